"""Golden checks on answers rather than tensors: what people labelled, and whether two variants answer alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import numpy as np

from edge_runtime.contract.errors import ContractError, UnsupportedFeature
from edge_runtime.contract.golden import TrueMask, TrueObject, Truth
from edge_runtime.contract.ids import shown
from edge_runtime.inference.backend import Array
from edge_runtime.inference.checks.agreement import (
    area_under_curve,
    box_matches,
    f1,
    mean_iou,
    overlap_by_class,
    r2,
    resized_map,
    top1,
)
from edge_runtime.inference.postprocessing.hysteresis import segment_overlap
from edge_runtime.inference.postprocessing.question_results import NO_CLASS, OUTSIDE, Anomaly, Boxes, Mask
from edge_runtime.inference.postprocessing.results import Answer, Classes, Result, Scored, Values
from edge_runtime.inference.postprocessing.stream_results import Segments

_TOP: Final = 5
_MASK_MAX: Final = 1 << 24
"""Pixels; all pictures that fit a golden set have fewer."""
_CLASS_MAX: Final = 4095
"""More classes than any segmenter has; counts are kept for each."""
_SCORES: Final[tuple[type[Anomaly | Scored], ...]] = (Anomaly, Scored)
_NUMBERS: Final[tuple[type[Values | Scored], ...]] = (Values, Scored)
_ResultT = TypeVar("_ResultT")
_TrueT = TypeVar("_TrueT")


def against_truth(metric: str, answers: Sequence[Answer], truth: Truth) -> float:
    """How right the answers to a golden set are; NaN when nobody knows anything that the metric could judge.

    Args:
        metric: `top1`, `top5`, `box_f1`, `mean_iou`, `r2`, `mae` or `auc`.
        answers: one per sample.
        truth: what a person says.

    Raises:
        UnsupportedFeature: a metric that this runtime does not compute.
        ContractError: the truth speaks of an output that gives no such answer.
    """
    measure = _OF_TRUTH.get(metric)
    if measure is None:
        raise UnsupportedFeature("check the golden set", f"metric {shown(metric)} against truth is not built")
    return measure(answers, truth)


def against_answers(metric: str, answers: Sequence[Answer], references: Sequence[Answer]) -> float:
    """How far answers agree with those of another variant.

    Args:
        metric: `top1`, `box_agreement`, `pixel_agreement` or `segment_iou`.
        answers: one per sample.
        references: as many.

    Raises:
        UnsupportedFeature: a metric that this runtime does not compute.
    """
    measure = _OF_ANSWERS.get(metric)
    if measure is None:
        raise UnsupportedFeature("check the golden set", f"metric {shown(metric)} on answers is not built")
    pairs = [
        (answer[name], reference[name])
        for answer, reference in zip(answers, references, strict=True)
        for name in sorted(answer.keys() & reference.keys())
    ]
    return measure(pairs)


def _true_top1(answers: Sequence[Answer], truth: Truth) -> float:
    judged = _judged(answers, truth.labels, Classes, "classes")
    return top1([result.top for result, _ in judged], [label for _, label in judged])


def _true_top5(answers: Sequence[Answer], truth: Truth) -> float:
    judged = _judged(answers, truth.labels, Classes, "classes")
    return _mean([float(label in result.indices[:_TOP]) for result, label in judged])


def _true_objects(answers: Sequence[Answer], truth: Truth) -> float:
    matched = said = true = 0
    for result, objects in _judged(answers, truth.objects, Boxes, "boxes"):
        if any(len(one.box) != 4 for one in objects):
            raise ContractError("check the golden set", "truth.json has a box that is not four numbers")
        corners = np.asarray([one.box for one in objects], np.float64).reshape(-1, 4)
        matched += box_matches(result.boxes, result.indices, corners, [one.label for one in objects])
        said, true = said + len(result.indices), true + len(objects)
    return f1(matched, said, true)


def _true_masks(answers: Sequence[Answer], truth: Truth) -> float:
    pairs = _judged(answers, truth.masks, Mask, "masks")
    # Each mask is unpacked alone, and summed up before: a short document may promise many pictures of any size.
    if sum(abs(mask.height * mask.width) for _, mask in pairs) > _MASK_MAX:
        raise ContractError("check the golden set", f"its masks have over {_MASK_MAX} pixels")
    overlap = np.zeros((3, _CLASS_MAX + 1), np.int64)
    for result, mask in pairs:
        known = unpack_mask(mask)
        placed = resized_map(result.classes, (known.shape[0], known.shape[1]))
        judged = (known != OUTSIDE) & (placed != OUTSIDE)
        overlap += overlap_by_class(known[judged], placed[judged], _CLASS_MAX + 1)
    return mean_iou(overlap)


def _true_r2(answers: Sequence[Answer], truth: Truth) -> float:
    right, given = _numbers(answers, truth)
    return r2(right, given) if right.size else float("nan")


def _true_mae(answers: Sequence[Answer], truth: Truth) -> float:
    right, given = _numbers(answers, truth)
    return float(np.abs(right - given).mean()) if right.size else float("nan")


def _true_auc(answers: Sequence[Answer], truth: Truth) -> float:
    judged = _judged(answers, truth.labels, _SCORES, "scores")
    by_kind = {kind: [result.score for result, label in judged if label == kind] for kind in (0, 1)}
    return area_under_curve(by_kind[1], by_kind[0])


def _numbers(answers: Sequence[Answer], truth: Truth) -> tuple[Array, Array]:
    judged = _judged(answers, truth.values, _NUMBERS, "numbers")
    given = [result.values if isinstance(result, Values) else (result.score,) for result, _ in judged]
    lengths = {len(one) for one in given} | {len(right) for _, right in judged}
    if len(lengths) > 1:
        raise ContractError("check the golden set", "truth.json has more or fewer numbers than an answer")
    return np.asarray([right for _, right in judged], np.float64), np.asarray(given, np.float64)


def _judged(
    answers: Sequence[Answer],
    truth: Mapping[str, Sequence[_TrueT | None]],
    kind: type[_ResultT] | tuple[type[_ResultT], ...],
    what: str,
) -> list[tuple[_ResultT, _TrueT]]:
    """Answers with what a person says of them, output by output; samples nobody knows are left out."""
    judged: list[tuple[_ResultT, _TrueT]] = []
    for name in sorted(truth):
        for answer, known in zip(answers, truth[name], strict=True):
            result = answer.get(name)
            if not isinstance(result, kind):
                raise ContractError("check the golden set", f"truth.json labels {shown(name)}, which gives no {what}")
            if known is not None:
                judged.append((result, known))
    return judged


def _same_top(pairs: Sequence[tuple[Result, Result]]) -> float:
    tops = [(one.top, other.top) for one, other in pairs if isinstance(one, Classes) and isinstance(other, Classes)]
    return top1([one for one, _ in tops], [other for _, other in tops])


def _same_objects(pairs: Sequence[tuple[Result, Result]]) -> float:
    matched = said = wanted = 0
    for one, other in pairs:
        if isinstance(one, Boxes) and isinstance(other, Boxes):
            matched += box_matches(other.boxes, other.indices, one.boxes, one.indices)
            said, wanted = said + len(one.indices), wanted + len(other.indices)
    return f1(matched, said, wanted)


def _same_pixels(pairs: Sequence[tuple[Result, Result]]) -> float:
    return _mean([
        pixel_agreement(one.classes, other.classes)
        for one, other in pairs
        if isinstance(one, Mask) and isinstance(other, Mask)
    ])


def _same_segments(pairs: Sequence[tuple[Result, Result]]) -> float:
    shared = covered = 0.0
    for one, other in pairs:
        if isinstance(one, Segments) and isinstance(other, Segments):
            both, either = segment_overlap(one.segments, other.segments)
            shared, covered = shared + both, covered + either
    return shared / covered if covered > 0 else 1.0


def pixel_agreement(first: Array, second: Array) -> float:
    """Share of the judged pixels of two answers that are in the same class; 0 when the sizes differ, 1 without any."""
    if first.shape != second.shape:
        return 0.0
    judged = (first != OUTSIDE) & (second != OUTSIDE)
    same = (first == second) & (first != NO_CLASS)
    return float(same[judged].mean()) if judged.any() else 1.0


def pack_mask(classes: Array) -> TrueMask:
    """A class map [H, W] as `truth.json` carries it; −1 where nobody judges."""
    flat = classes.astype(np.int64).ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    lengths = np.diff(np.concatenate([starts, [flat.size]]))
    runs = [(int(flat[start]), int(length)) for start, length in zip(starts, lengths, strict=True)]
    return TrueMask(height=classes.shape[0], width=classes.shape[1], runs=runs)


def unpack_mask(mask: TrueMask) -> Array:
    """int16 [H, W]. Raises: ContractError: the runs are no such picture."""
    lengths = [length for _, length in mask.runs]
    # Summed before anything is built: a short document may promise a picture of any size.
    if mask.height < 1 or mask.width < 1 or min(lengths, default=0) < 1 or sum(lengths) != mask.height * mask.width:
        raise ContractError("check the golden set", f"a mask's runs are no picture of {mask.width} by {mask.height}")
    if sum(lengths) > _MASK_MAX or not all(-1 <= label <= _CLASS_MAX for label, _ in mask.runs):
        raise ContractError("check the golden set", f"a mask has over {_MASK_MAX} pixels, or a class over {_CLASS_MAX}")
    flat: Array = np.repeat(np.asarray([label for label, _ in mask.runs], np.int16), lengths)
    return flat.reshape(mask.height, mask.width)


def true_objects(corners: Array, classes: Sequence[int]) -> list[TrueObject]:
    """Boxes [K, 4] of left, top, right, bottom as `truth.json` carries them."""
    return [
        TrueObject(label=label, box=[round(float(edge), 2) for edge in box])
        for label, box in zip(classes, corners, strict=True)
    ]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


_OF_TRUTH: Final[Mapping[str, Callable[[Sequence[Answer], Truth], float]]] = {
    "top1": _true_top1,
    "top5": _true_top5,
    "box_f1": _true_objects,
    "mean_iou": _true_masks,
    "r2": _true_r2,
    "mae": _true_mae,
    "auc": _true_auc,
}
_OF_ANSWERS: Final[Mapping[str, Callable[[Sequence[tuple[Result, Result]]], float]]] = {
    "top1": _same_top,
    "box_agreement": _same_objects,
    "pixel_agreement": _same_pixels,
    "segment_iou": _same_segments,
}
