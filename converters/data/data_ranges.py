"""Do the numbers look like what the recipe says they are? Wrong ranges cost accuracy in silence, so they are noted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from converters.data.datasets import Dataset
from edge_runtime.contract.release import ReleaseManifest
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.preprocessing.preprocess import Preprocessor

_LOOKED_AT: Final = 4
"""Samples of each set; what is wrong with all shows in a few, and this is looked at in every build."""
_FAR: Final = 300.0
"""Beyond every normalisation in use, and beyond pixels left as they are (0..255)."""
_FLAT: Final = 0.05
"""A spread that no normalisation in use leaves of a picture."""
_OTHER: Final = 8.0
"""Sets whose largest numbers differ by more were not prepared alike."""
_MANY: Final = 64
"""Numbers per sample from which a few samples say where the whole set reaches; a row of a table does not."""


@dataclass(frozen=True, slots=True)
class Span:
    """Smallest and largest number of a tensor over some samples."""

    low: float
    high: float
    numbers: int
    """In one sample."""

    @property
    def reach(self) -> float:
        """Distance from zero."""
        return max(abs(self.low), abs(self.high))


def range_notes(
    release: ReleaseManifest, preprocessor: Preprocessor, evaluation: Dataset, calibration: Dataset | None
) -> tuple[str, ...]:
    """What looks wrong about the data's numbers; empty when nothing does. Raises: BadDataset: a sample is damaged."""
    given, fed = _spans(evaluation, preprocessor)
    notes = [*_given_notes(release, given), *_fed_notes(release, fed)]
    if calibration is not None:
        _, also = _spans(calibration, preprocessor)
        notes += _difference_notes(fed, also)
    return tuple(notes)


def _spans(dataset: Dataset, preprocessor: Preprocessor) -> tuple[dict[str, Span], dict[str, Span]]:
    """Spans by public input after `decode`, and by canonical tensor."""
    step = max(1, len(dataset.samples) // _LOOKED_AT)
    few = replace(dataset, samples=dataset.samples[::step][:_LOOKED_AT])
    given: dict[str, Span] = {}
    fed: dict[str, Span] = {}
    for prepared in few.prepared(preprocessor):
        _widen(given, prepared.decoded)
        _widen(fed, prepared.canonical)
    return given, fed


def _widen(spans: dict[str, Span], tensors: Tensors) -> None:
    for name, array in tensors.items():
        seen: Array = array[np.isfinite(array)] if array.dtype.kind == "f" else array
        if seen.size:
            low, high = float(seen.min()), float(seen.max())
            before = spans.get(name, Span(low, high, array.size))
            spans[name] = Span(min(low, before.low), max(high, before.high), max(array.size, before.numbers))


def _given_notes(release: ReleaseManifest, given: Mapping[str, Span]) -> Iterator[str]:
    for spec in release.signature.inputs:
        if (span := given.get(spec.name)) is None:
            continue
        if spec.kind == "image" and span.high <= 1.0:
            yield f"input {spec.name}: pixels look like 0..1 where 0..255 is declared; multiply them by 255"
        if spec.range and (span.low < spec.range[0] - 1.0 or span.high > spec.range[1] + 1.0):
            declared = f"{spec.range[0]:g}..{spec.range[1]:g}"
            yield f"input {spec.name}: numbers from {span.low:g} to {span.high:g} where {declared} is declared"


def _fed_notes(release: ReleaseManifest, fed: Mapping[str, Span]) -> Iterator[str]:
    for name, steps in release.preprocess.items():
        if (span := fed.get(name)) is None or not any(step.get("op") == "normalize" for step in steps):
            continue
        seen = f"tensor {name}: after normalisation numbers reach from {span.low:.4g} to {span.high:.4g}"
        if span.reach > _FAR:
            yield f"{seen}; mean and std look like those for pixels in 0..1: write scale = {1 / 255:.8f} with them"
        elif span.high - span.low < _FLAT:
            yield f"{seen}; mean and std look like those for pixels in 0..255: write scale = 1.0 with them"


def _difference_notes(fed: Mapping[str, Span], also: Mapping[str, Span]) -> Iterator[str]:
    for name, span in fed.items():
        other = also.get(name)
        if other is None or span.numbers < _MANY or not min(span.reach, other.reach):
            continue
        if max(span.reach, other.reach) / min(span.reach, other.reach) > _OTHER:
            yield (
                f"tensor {name}: calibration reaches from {other.low:.4g} to {other.high:.4g}, evaluation from "
                f"{span.low:.4g} to {span.high:.4g}; prepare both sets alike"
            )
