"""How far two sets of answers agree: shared by converter, golden trial and shadow; pure numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.errors import InferenceError

SNR_CAP_DB: Final = 200.0
"""Reported for equal tensors, whose SNR is infinite and could not travel as JSON."""

_Array = npt.NDArray[Any]


def top1(predicted: Sequence[int | None], truth: Sequence[int | None]) -> float:
    """Share of samples whose predicted class is the true one.

    Samples without truth do not count; a missing prediction is wrong. NaN when nothing counts.

    Raises:
        InferenceError: the two differ in length.
    """
    _same_length(len(predicted), len(truth))
    judged = [(guess, label) for guess, label in zip(predicted, truth, strict=True) if label is not None]
    return sum(guess == label for guess, label in judged) / len(judged) if judged else float("nan")


def top1_agreement(reference: _Array, candidate: _Array) -> float:
    """Share of rows [N, C] whose largest value stands at the same place; a row with NaN never agrees.

    Raises:
        InferenceError: the shapes differ.
    """
    _same_shape(reference, candidate)
    rows = reference.shape[0] if reference.ndim > 1 else 1
    first, second = reference.reshape(rows, -1), candidate.reshape(rows, -1)
    if first.size == 0:
        return float("nan")
    sound = ~(np.isnan(first).any(axis=1) | np.isnan(second).any(axis=1))
    return float(np.mean((first.argmax(axis=1) == second.argmax(axis=1)) & sound))


@dataclass(slots=True)
class Distance:
    """How far answers lie from reference answers, fed one pair after the other; keeps sums, never a tensor."""

    _signal: float = 0.0
    _noise: float = 0.0
    _power: float = 0.0
    _product: float = 0.0
    _largest: float = 0.0
    _lowest: float = float("inf")
    _highest: float = float("-inf")
    _is_finite: bool = True

    def add(self, reference: _Array, candidate: _Array) -> None:
        """Take one pair of the same shape in. Raises: InferenceError: the shapes differ."""
        _same_shape(reference, candidate)
        exact, approximate = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
        self._is_finite = self._is_finite and bool(np.isfinite(exact).all() and np.isfinite(approximate).all())
        # Sums of what is not a number are never read, but numpy would warn about them.
        with np.errstate(invalid="ignore", over="ignore"):
            self._signal += float(exact @ exact)
            self._power += float(approximate @ approximate)
            self._product += float(exact @ approximate)
            error = exact - approximate
            self._noise += float(error @ error)
        if exact.size and self._is_finite:
            self._largest = max(self._largest, float(np.abs(error).max()))
            self._lowest = min(self._lowest, float(exact.min()))
            self._highest = max(self._highest, float(exact.max()))

    def snr_db(self) -> float:
        """Signal-to-noise ratio in dB, 10·log10(Σ ref² / Σ (ref − cand)²), at most ±200; −inf for NaN or infinity.

        The power ratio of a signal and its quantisation noise (Oppenheim, Schafer, Discrete-Time Signal Processing,
        section 4.8.3), pooled over all pairs.
        """
        if not self._is_finite:
            return float("-inf")
        if self._noise == 0.0:
            return SNR_CAP_DB
        if self._signal == 0.0:
            return -SNR_CAP_DB
        return float(np.clip(10.0 * np.log10(self._signal / self._noise), -SNR_CAP_DB, SNR_CAP_DB))

    def range_error(self) -> float:
        """Largest difference over the range (greatest − least) of all references; infinite for NaN or infinity.

        Where all references are one number, its size stands for the range.
        """
        if not self._is_finite:
            return float("inf")
        if self._largest == 0.0:
            return 0.0
        span = (self._highest - self._lowest) or abs(self._highest)
        return self._largest / span if span > 0 else float("inf")

    def cosine(self) -> float:
        """Cosine of the angle between all answers and all references, seen as two vectors; NaN without length."""
        length = float(np.sqrt(self._signal) * np.sqrt(self._power))
        if not (self._is_finite and np.isfinite(length) and length > 0):
            return float("nan")
        return self._product / length


def snr_db(reference: _Array, candidate: _Array) -> float:
    """Signal-to-noise ratio of one pair, as `Distance.snr_db`. Raises: InferenceError: the shapes differ."""
    distance = Distance()
    distance.add(reference, candidate)
    return distance.snr_db()


def max_abs(reference: _Array, candidate: _Array) -> float:
    """Largest absolute difference; NaN when either holds one, infinity for infinities. Raises: InferenceError."""
    _same_shape(reference, candidate)
    if reference.size == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        return float(np.abs(reference.astype(np.float64) - candidate.astype(np.float64)).max())


def cosine(reference: _Array, candidate: _Array) -> float:
    """Cosine of the angle between two tensors seen as vectors; NaN when one has no length. Raises: InferenceError."""
    distance = Distance()
    distance.add(reference, candidate)
    return distance.cosine()


def iou(first: _Array, second: _Array) -> _Array:
    """Intersection over union of each box with each: [F, 4] and [S, 4] of left, top, right, bottom give [F, S]."""
    one, other = first.astype(np.float64)[:, None, :], second.astype(np.float64)[None, :, :]
    overlap = np.clip(np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2]), 0.0, None)
    shared = overlap.prod(axis=-1)
    areas = [np.clip(boxes[..., 2:] - boxes[..., :2], 0.0, None).prod(axis=-1) for boxes in (one, other)]
    union = areas[0] + areas[1] - shared
    ratio: _Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def box_matches(
    first: _Array, first_classes: Sequence[int], second: _Array, second_classes: Sequence[int], *, min_iou: float = 0.5
) -> int:
    """Pairs of boxes of the same class that overlap by `min_iou` or more; each box is in one pair at most.

    The first set's boxes choose in their order, each the best that is left, as COCO's evaluation does.

    Args:
        first: [F, 4] left, top, right, bottom; best first.
        first_classes: their classes.
        second: [S, 4].
        second_classes: their classes.
        min_iou: overlap from which two boxes are the same object.
    """
    if not len(first_classes) or not len(second_classes):
        return 0
    overlaps = iou(first, second)
    overlaps[np.asarray(first_classes)[:, None] != np.asarray(second_classes)[None, :]] = 0.0
    matched = 0
    for row in overlaps:
        best = int(row.argmax())
        if row[best] >= min_iou:
            overlaps[:, best] = 0.0
            matched += 1
    return matched


def f1(matched: int, first: int, second: int) -> float:
    """Harmonic mean of both shares, 2 · matched / (first + second); 1 when neither side has any."""
    return 2 * matched / (first + second) if first + second else 1.0


def overlap_by_class(known: _Array, found: _Array, classes: int) -> _Array:
    """Intersection, union and known pixels, int64 [3, classes]; the maps have any one shape.

    A pixel whose class in one map is none of 0 … classes − 1 counts for the other map alone.

    Raises:
        InferenceError: the shapes differ.
    """
    _same_shape(known, found)
    true, said, both = (
        np.bincount(pixels[(pixels >= 0) & (pixels < classes)].astype(np.int64), minlength=classes)
        for pixels in (known, found, known[known == found])
    )
    return np.stack([both, true + said - both, true])


def mean_iou(overlap: _Array) -> float:
    """Mean of intersection / union over the classes that somebody marked, from [3, classes]; NaN when nobody did.

    A class that only the answer holds takes pixels from the others' intersections, and has no mean of its own: on a few
    pictures one stray pixel would halve it.
    """
    occurs = overlap[2] > 0
    return float(np.mean(overlap[0][occurs] / overlap[1][occurs])) if occurs.any() else float("nan")


def resized_map(classes: _Array, size: tuple[int, int]) -> _Array:
    """A class map [H, W] in another size, by nearest neighbour: classes have no values in between."""
    if classes.shape == size:
        return classes
    rows, columns = (
        ((np.arange(wanted) + 0.5) * given / wanted).astype(int)
        for wanted, given in zip(size, classes.shape, strict=True)
    )
    grown: _Array = classes[rows[:, None], columns[None, :]]
    return grown


def r2(right: _Array, answers: _Array) -> float:
    """Coefficient of determination over [samples, numbers], mean over the numbers; NaN when a truth never varies."""
    _same_shape(right, answers)
    exact, given = right.astype(np.float64), answers.astype(np.float64)
    spread = np.square(exact - exact.mean(axis=0)).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean(1.0 - np.square(exact - given).sum(axis=0) / spread)) if spread.all() else float("nan")


def area_under_curve(anomalous: Sequence[float], normal: Sequence[float]) -> float:
    """Chance that an anomalous sample scores higher than a normal one, ties half; NaN when one kind is missing."""
    if not (len(anomalous) and len(normal)):
        return float("nan")
    high, low = np.asarray(anomalous, np.float64)[:, None], np.asarray(normal, np.float64)[None, :]
    if not (np.isfinite(high).all() and np.isfinite(low).all()):
        return float("nan")
    return float(np.mean((high > low) + 0.5 * (high == low)))


def _same_shape(reference: _Array, candidate: _Array) -> None:
    if reference.shape != candidate.shape:
        raise InferenceError(
            "compare answers", f"the reference has shape {list(reference.shape)}, the answer {list(candidate.shape)}"
        )


def _same_length(predicted: int, truth: int) -> None:
    if predicted != truth:
        raise InferenceError("compare answers", f"{predicted} answers cannot be judged by {truth} labels")
