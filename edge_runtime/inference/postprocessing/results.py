"""Typed answers that the model's numbers alone tell, and the sample that any answer is made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from edge_runtime.contract.errors import InferenceError
from edge_runtime.inference.backend import Array, Tensors

if TYPE_CHECKING:
    from edge_runtime.inference.postprocessing.question_results import Anomaly, Boxes, Mask
    from edge_runtime.inference.postprocessing.stream_results import Segments, Track
    from edge_runtime.inference.preprocessing.geometry import Placement


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


class Scored(msgspec.Struct, frozen=True):
    """One number, as `score` promises it: between 0 and 1."""

    score: float


class Values(msgspec.Struct, frozen=True):
    """Numbers with a unit."""

    values: tuple[float, ...]
    unit: str


class TensorAnswer(msgspec.Struct, frozen=True, eq=False):
    """A tensor of one sample, without its batch axis: raw output or embedding."""

    array: Array


if TYPE_CHECKING:
    Result = Classes | Boxes | Mask | Anomaly | Scored | Track | Segments | Values | TensorAnswer
else:
    Result = object  # no answer waits for the types of all others

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
