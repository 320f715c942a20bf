"""What drift is seen in: how sure the model is, and what its inputs look like; sampled, as sketches that can be merged.

No input and no answer is kept, only counts of how bright, how varied, how sure: nothing in them leads back to a person.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from edge_runtime.contract.sketch import Sketch, SketchData
from edge_runtime.inference.backend import Array
from edge_runtime.inference.postprocessing.question_results import Anomaly, Boxes
from edge_runtime.inference.postprocessing.results import Answer, Classes, Result, Scored

_POINTS: Final = 64
"""Places along each axis at which a large input is looked at: a whole photo would cost milliseconds."""


class DriftSketches(msgspec.Struct, frozen=True):
    """What was seen since the model was opened; sketches of several devices can be merged."""

    seen: int
    """Requests, up to the last one that was looked at."""
    sampled: int
    """Of these, looked at."""
    confidence: Mapping[str, SketchData]
    """By output: the best class's, object's or the one score of each sample; 0 where nothing was found."""
    inputs: Mapping[str, SketchData]
    """`NAME.level` (mean magnitude) and `NAME.spread` (standard deviation) of each input, in its own units."""


class Drift:
    """Collects sketches of one model; any thread may tell and read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = 0
        self._sampled = 0
        self._confidence: dict[str, Sketch] = {}
        self._inputs: dict[str, Sketch] = {}

    def look(self, number: int, answers: Sequence[Answer], inputs: Mapping[str, object]) -> None:
        """Look at one request that was answered.

        Args:
            number: of the request, counted from 1.
            answers: of each sample.
            inputs: what they answer, by public name; only arrays are looked at, with or without batch axis.
        """
        looks = {name: _look(given) for name, given in inputs.items() if isinstance(given, np.ndarray) and given.size}
        with self._lock:
            self._seen = max(self._seen, number)
            self._sampled += 1
            for name, (level, spread) in looks.items():
                self._inputs.setdefault(f"{name}.level", Sketch()).add(level)
                self._inputs.setdefault(f"{name}.spread", Sketch()).add(spread)
            for answer in answers:
                for name, part in answer.items():
                    if (score := _confidence(part)) is not None:
                        self._confidence.setdefault(name, Sketch()).add(score)

    def sketches(self) -> DriftSketches:
        """What was seen so far."""
        with self._lock:
            return DriftSketches(
                self._seen,
                self._sampled,
                {name: sketch.to_data() for name, sketch in self._confidence.items()},
                {name: sketch.to_data() for name, sketch in self._inputs.items()},
            )


def grid_of(given: Array) -> Array:
    """The points of an array at which it is looked at, as an array of its own; of these all are."""
    steps = tuple(slice(None, None, max(-(-size // _POINTS), 1)) for size in given.shape)
    points: Array = given[steps].copy()
    return points


def _look(given: Array) -> tuple[float, float]:
    """Level and spread of an array, on a grid of its points."""
    points = grid_of(given).astype(np.float64)
    return float(np.abs(points).mean()), float(points.std())


def _confidence(part: Result) -> float | None:
    match part:
        case Classes() | Boxes():
            return max(part.scores, default=0.0)
        case Scored() | Anomaly():
            return part.score
        case _:
            return None
