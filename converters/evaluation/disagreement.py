"""The samples on which a candidate is farthest from the source model, found while it is judged; few are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from edge_runtime.inference.backend import Array

KEPT: Final = 6
_SHOWN: Final = 160
"""Characters of an answer; a picture full of boxes says no more with all of them."""


class Example(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sample, and what both said to it."""

    position: int
    """In the evaluation set."""
    distance: float | None
    """Length of the difference over the length of the source model's answer; None when one is not a number."""
    source: str
    candidate: str
    name: str = ""
    """File of the sample; empty where it may not be shown."""

    @property
    def differs(self) -> bool:
        """Whether a person would read another answer."""
        return _first(self.source) != _first(self.candidate)


class Disagreements:
    """Keeps the samples with the largest distance; other answers come before other numbers."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._found: list[tuple[bool, float, Example]] = []

    def add(self, position: int, reference: Array, answer: Array, said: Callable[[], tuple[str, str]]) -> None:
        """Take one sample in.

        Args:
            position: in the evaluation set.
            reference: the source model's tensor.
            answer: the candidate's, of the same shape.
            said: both answers for a person.
        """
        distance = _distance(reference, answer)
        if len(self._found) == self._kept and distance <= 0.0:
            return
        source, candidate = (text[:_SHOWN] for text in said())
        shown = distance if np.isfinite(distance) else None
        example = Example(position=position, distance=shown, source=source, candidate=candidate)
        self._found.append((example.differs, distance, example))
        self._found.sort(key=lambda one: (one[0], one[1], -one[2].position), reverse=True)
        del self._found[self._kept :]

    def worst(self) -> tuple[Example, ...]:
        """The samples kept, worst first; those answered alike to the last digit are none."""
        return tuple(example for _, distance, example in self._found if distance > 0.0)


def _distance(reference: Array, answer: Array) -> float:
    expected, found = np.asarray(reference, np.float64), np.asarray(answer, np.float64)
    if expected.shape != found.shape:
        return float("inf")
    length = float(np.linalg.norm(expected))
    distance = float(np.linalg.norm(expected - found)) / (length or 1.0)
    return round(distance, 6) if np.isfinite(distance) else float("inf")


def _first(text: str) -> str:
    """What a person compares: the best class, without its score."""
    return text.partition(" (")[0]
