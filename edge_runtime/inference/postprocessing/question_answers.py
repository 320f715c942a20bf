"""Answers that depend on what was asked: where boxes and masks lie, how far an input is from its copy."""

from __future__ import annotations

from functools import partial

import numpy as np

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.question_steps import Detect, Nms, Reconstruction, Segment
from edge_runtime.contract.steps import PostStep
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.postprocessing.question_results import Anomaly, Boxes, Mask
from edge_runtime.inference.postprocessing.results import Interpreter, Sample, label_of


def question_answer(steps: tuple[PostStep, ...], labels: tuple[str, ...], layers: Tensors) -> Interpreter | None:
    """What makes an answer by these steps; None for steps that do not go together, or are of another kind.

    Raises:
        UnsupportedFeature: a step that this runtime does not run.
        ContractError: a step that contradicts itself.
    """
    match steps:
        case (Detect() as detect,):
            return _detector(detect, None, labels, layers)
        case (Detect() as detect, Nms(from_="detect") as nms):
            return _detector(detect, nms, labels, layers)
        case (Segment() as segment,):
            from edge_runtime.inference.postprocessing.segment import check_segment

            check_segment(segment)
            return partial(_segment, step=segment, labels=labels)
        case (Reconstruction() as reconstruction,):
            return partial(_reconstruction, step=reconstruction)
        case _:
            return None


def _detector(detect: Detect, nms: Nms | None, labels: tuple[str, ...], layers: Tensors) -> Interpreter:
    from edge_runtime.inference.postprocessing.detect import check_detect

    check_detect(detect)
    # Who only compares tensors need not read them; a box without them is refused.
    priors = layers.get(detect.priors or "")
    return partial(_boxes, detect=detect, nms=nms, labels=labels, priors=priors)


def _boxes(
    sample: Sample, *, detect: Detect, nms: Nms | None, labels: tuple[str, ...], priors: Array | None
) -> Boxes:
    from edge_runtime.inference.postprocessing.detect import Asked, find_candidates
    from edge_runtime.inference.postprocessing.suppression import suppress

    if sample.placement is None:
        raise InferenceError("answer with boxes", "the question is not known", "give interpret the decoded inputs")
    tensors = {name: sample.only(name) for name in detect.tensors}
    found = find_candidates(Asked(detect, tensors, sample.placement.size, priors))
    best = suppress(found, nms, min_score=detect.min_score, most=detect.max)
    indices = tuple(best.classes.tolist())
    named = tuple(label_of(index, labels) for index in indices)
    return Boxes(sample.placement.to_picture(best.boxes), indices, named, tuple(best.scores.tolist()))


def _segment(sample: Sample, *, step: Segment, labels: tuple[str, ...]) -> Mask:
    from edge_runtime.inference.postprocessing.segment import classes_of

    classes = classes_of(step, sample.only(step.from_), sample.placement)
    return Mask(classes, labels, frozenset(step.ignore))


def _reconstruction(sample: Sample, *, step: Reconstruction) -> Anomaly:
    made = sample.tensors[step.from_].astype(np.float64)
    if step.over not in sample.inputs:
        raise InferenceError("answer with an anomaly", "the question is not known", "give interpret the decoded inputs")
    asked = sample.inputs[step.over].astype(np.float64)
    if made.size != asked.size:
        because = f"{step.from_} has shape {list(made.shape)}, {step.over} has {list(asked.shape)}"
        raise InferenceError("answer with an anomaly score", because)
    apart = made.reshape(len(made), -1) - asked.reshape(len(made), -1)
    by_window = (np.square(apart) if step.metric == "mse" else np.abs(apart)).mean(axis=1)
    score = float(by_window.mean() if step.aggregate == "mean" else by_window.max())
    return Anomaly(score, None if step.threshold is None else score > step.threshold)
