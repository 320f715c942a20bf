"""Asks a model the evaluation set: its score by the labels, and how far it is from the source model.

One sample is in memory at a time; what the source model said is read from disk beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from converters.data.answers import AnswerWriter, read_answers
from converters.data.datasets import Dataset
from converters.evaluation.disagreement import Disagreements, Example
from converters.evaluation.metrics.choose import Task, agreement_of, metric_of
from converters.evaluation.metrics.detection import strong_boxes
from converters.evaluation.metrics.metric import Metric, Reply, Score
from converters.evaluation.parity import Parity
from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.release import ReleaseManifest
from edge_runtime.contract.steps import RawStep
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.checks.agreement import Distance
from edge_runtime.inference.postprocessing.postprocess import compile_postprocess
from edge_runtime.inference.postprocessing.question_results import Boxes
from edge_runtime.inference.postprocessing.rendering import as_text
from edge_runtime.inference.postprocessing.results import Answer, Result
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.preprocessing.preprocess import Preprocessor

Interpret = Callable[[Tensors, Tensors], list[Answer]]
"""Answers from canonical output tensors and the inputs they answer, after `decode`; one per sample."""

_WEAK_SCORE: Final = 0.01
"""Boxes from here on enter a precision curve; one that ends at the release's own threshold is not comparable."""
_BOXES_MAX: Final = 100
"""Boxes per picture that COCO's evaluation looks at."""


@dataclass(frozen=True, slots=True)
class Examination:
    """The evaluation set, what is judged, and where the source model's answers to it stand."""

    dataset: Dataset
    preprocessor: Preprocessor
    """Of the source model: nothing is absorbed."""
    interpret: Interpret
    task: Task
    answers: Path
    positions: tuple[int, ...] | None = None
    """Of its samples among those that the source model answered; None: all of them."""

    def part(self, most: int) -> Examination:
        """At most so many of its samples, evenly spread, so that every class stays; itself where it has no more."""
        samples = self.dataset.samples
        if len(samples) <= most:
            return self
        positions = tuple(place * len(samples) // most for place in range(most))
        dataset = replace(self.dataset, samples=tuple(samples[position] for position in positions))
        return replace(self, dataset=dataset, positions=positions)

    def references(self) -> Iterator[dict[str, Array]]:
        """What the source model said to each sample, in order."""
        wanted = None if self.positions is None else frozenset(self.positions)
        for position, answer in enumerate(read_answers(self.answers)):
            if wanted is None or position in wanted:
                yield answer


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A model beside the source model."""

    score: Score | None
    """By the labels; None without them."""
    agreement: Score
    """With the source model, by the task's own measure."""
    snr_db: float
    """Of the task's tensor over the whole set; −inf when an answer is not a number."""
    cosine: float
    range_error: float | None
    """Largest difference over the range of the source model's answers, of the tensor that has the greatest; None where
    no output is a float tensor."""
    worst: tuple[Example, ...] = ()
    """Samples on which it is farthest from the source model."""


def interpreter_of(
    release: ReleaseManifest, layers: Tensors | None = None, labels: Mapping[str, tuple[str, ...]] | None = None
) -> Interpret:
    """The release's postprocessing, with weak boxes kept: metrics draw their own line.

    Args:
        release: whose answers are judged.
        labels: label lists by public output name.
        layers: arrays of the release by the reference that a step names them by.
    """
    weaker = {name: [_weaker(step) for step in chain] for name, chain in release.postprocess.items()}
    return compile_postprocess(msgspec.structs.replace(release, postprocess=weaker), labels or {}, layers)


def ask_source(source: Predictor, examination: Examination) -> Score | None:
    """Ask the source model every question and keep its answers; its score by the labels, None without them.

    Raises:
        BadDataset: a sample cannot be used; it is named.
        InferenceError: the model cannot answer.
        CannotWrite: the answers do not fit on the disk.
    """
    metric = metric_of(examination.task)
    dataset = examination.dataset
    with AnswerWriter(examination.answers) as answers:
        # Prepared by its own steps, with each sample's name at hand: a quantised source takes integers.
        for sample, prepared in zip(dataset.samples, dataset.prepared(source.preprocess), strict=True):
            tensors = source.run_canonical(prepared.canonical)
            answers.append(tensors)
            if metric is not None and sample.truth is not None:
                metric.add(_reply(tensors, prepared.decoded, examination), sample.truth)
    return _sound(metric)


def evaluate(subject: Predictor, examination: Examination) -> Evaluated:
    """Ask a candidate every question. Raises: InferenceError, BadDataset."""
    decoded = examination.dataset.decoded(examination.preprocessor)
    return judge_answers(((sample, subject.run_decoded(sample)) for sample in decoded), examination)


def judge_answers(answered: Iterable[tuple[Tensors, Tensors]], examination: Examination) -> Evaluated:
    """Judge answers that may have been given elsewhere, such as on another instruction set.

    Args:
        answered: inputs after `decode` and canonical output tensors of each sample, in the set's order.
        examination: labels, task, and the source model's answers.

    Raises:
        InferenceError: an answer has another shape than the source model's, or answers are not numbers.
    """
    task = examination.task
    metric, agreement, distance = metric_of(task), agreement_of(task), Distance()
    disagreements, parity = Disagreements(), Parity()
    together = zip(examination.dataset.samples, examination.references(), answered, strict=True)
    for position, (sample, reference, (decoded, tensors)) in enumerate(together):
        distance.add(reference[task.tensor], tensors[task.tensor])
        parity.add(reference, tensors)
        reply = _reply(tensors, decoded, examination)
        expected = _reply(reference, decoded, examination)
        agreement.add(expected, reply)
        disagreements.add(
            position, reference[task.tensor], tensors[task.tensor], partial(_texts, expected, reply, task)
        )
        if metric is not None and sample.truth is not None:
            metric.add(reply, sample.truth)
    return Evaluated(
        _sound(metric),
        agreement.score(),
        distance.snr_db(),
        distance.cosine(),
        parity.range_error(),
        disagreements.worst(),
    )


def _sound(metric: Metric | None) -> Score | None:
    """The score of a metric, if there is one; a model whose answers are not numbers has none."""
    if metric is None:
        return None
    score = metric.score()
    if not math.isfinite(score.value):
        raise InferenceError("evaluate", f"its {score.metric} is {score.value}, because answers are not numbers")
    return score


def _texts(expected: Reply, reply: Reply, task: Task) -> tuple[str, str]:
    """Both answers as an application sees them: without boxes that are too weak."""
    first, second = (_shown(one.answer[task.output], task) for one in (expected, reply))
    return as_text(first), as_text(second)


def _shown(result: Result, task: Task) -> Result:
    return strong_boxes(result, task.min_score) if isinstance(result, Boxes) else result


def _reply(tensors: Tensors, decoded: Tensors, examination: Examination) -> Reply:
    answers = examination.interpret(tensors, decoded)
    rules = examination.preprocessor.rules
    if answers and rules is not None and rules.unit == "row":
        # What a sequence of rows comes to is what the model says at its end.
        return Reply({name: array[-1:] for name, array in tensors.items()}, answers[-1])
    if len(answers) != 1:
        raise InferenceError(
            "evaluate", f"one sample gave {len(answers)} answers", "store one sample per file, with a batch axis of 1"
        )
    return Reply(tensors, answers[0])


def _weaker(step: RawStep) -> RawStep:
    if step.get("op") != "detect":
        return step
    score, most = step.get("min_score"), step.get("max")
    return {
        **step,
        "min_score": min(score, _WEAK_SCORE) if isinstance(score, int | float) else score,
        "max": max(most, _BOXES_MAX) if isinstance(most, int) else most,
    }
