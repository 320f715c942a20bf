"""Typed answers, and the sample that each is made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from edge_runtime.contract.errors import InferenceError
from edge_runtime.inference.backend import Array, Tensors

if TYPE_CHECKING:
    from edge_runtime.inference.preprocessing.geometry import Placement

OUTSIDE: Final = -1
"""Class of a picture's pixel that a crop kept from the model; nothing else may say so, for nobody judges it."""

NO_CLASS: Final = -2
"""Class of a pixel for which the model gave none (a negative one, or no number): always wrong."""


class Classes(msgspec.Struct, frozen=True):
    """Best classes, best first; empty when none reaches the minimum score (or the scores are not numbers)."""

    indices: tuple[int, ...]
    labels: tuple[str, ...]
    """Same length as `indices`; the index as text where the release has no label list."""
    scores: tuple[float, ...]

    @property
    def top(self) -> int | None:
        """Index of the best class."""
        return self.indices[0] if self.indices else None


class Boxes(msgspec.Struct, frozen=True, eq=False):
    """Objects, best first; empty when none reaches the minimum score."""

    boxes: Array
    """float64 [K, 4]: x1, y1, x2, y2 in pixels of the caller's picture, upright as `decode` leaves it."""
    indices: tuple[int, ...]
    """Class of each object."""
    labels: tuple[str, ...]
    """Same length as `indices`; the index as text where the release has no label list."""
    scores: tuple[float, ...]


class Mask(msgspec.Struct, frozen=True, eq=False):
    """A class for every pixel."""

    classes: Array
    """int32 [H, W] of the caller's picture or of the model's input, as the release says; −1 where a crop cut it off,
    −2 where the model named no class."""
    labels: tuple[str, ...]
    """By class; empty where the release has no label list."""
    ignored: frozenset[int]
    """Classes that a summary leaves out."""

    def shares(self) -> dict[int, float]:
        """Share of the pixels by class that occurs, largest first, without ignored classes."""
        found, counts = np.unique(self.classes, return_counts=True)
        order = sorted(zip(found.tolist(), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
        return {
            index: count / self.classes.size
            for index, count in order
            if index != OUTSIDE and index not in self.ignored
        }


class Anomaly(msgspec.Struct, frozen=True):
    """How far a sample is from what the model learned to reconstruct."""

    score: float
    is_anomalous: bool | None
    """None where the release has no threshold."""


class Scored(msgspec.Struct, frozen=True):
    """One number, as `score` promises it: between 0 and 1."""

    score: float


class Track(msgspec.Struct, frozen=True, eq=False):
    """A number for every step of a stream."""

    scores: Array
    """float64 [F], one per frame; empty when no frame was full yet."""
    start_s: float
    """When the first frame begins, in seconds of the stream."""
    step_s: float
    """Seconds from one frame to the next."""


class Segment(msgspec.Struct, frozen=True):
    """A piece of a stream."""

    start_s: float
    """Seconds since the stream began."""
    end_s: float


class Segments(msgspec.Struct, frozen=True):
    """Pieces of a stream in which something lasted, in the order of time."""

    segments: tuple[Segment, ...]
    """Those that ended; a piece that may still grow is not among them."""
    open_since_s: float | None
    """When the piece began that has not ended yet; None when there is none, and at the end of a stream."""


class Values(msgspec.Struct, frozen=True):
    """Numbers with a unit."""

    values: tuple[float, ...]
    unit: str


class TensorAnswer(msgspec.Struct, frozen=True, eq=False):
    """A tensor of one sample, without its batch axis: raw output or embedding."""

    array: Array


Result = Classes | Boxes | Mask | Anomaly | Scored | Track | Segments | Values | TensorAnswer
Answer = dict[str, Result]
"""Results of one sample by public output name."""


class Sample(msgspec.Struct, frozen=True):
    """What one answer is made from."""

    tensors: Tensors
    """Canonical output tensors, [windows, …]; one window unless preprocessing cut the sample into several."""
    placement: Placement | None
    inputs: Tensors
    """Canonical input tensors, [windows, …]; empty when the question is not known."""

    def only(self, tensor: str) -> Array:
        """A tensor of the sample, which has one window. Raises: InferenceError."""
        array = self.tensors[tensor]
        if len(array) != 1:
            raise InferenceError("answer", f"the sample was cut into {len(array)} windows", "ask about one at a time")
        row: Array = array[0]
        return row


Interpreter = Callable[[Sample], Result]
"""Makes one output's answer."""


def label_of(index: int, labels: tuple[str, ...]) -> str:
    """A class's label, or its index as text."""
    return labels[index] if 0 <= index < len(labels) else str(index)
