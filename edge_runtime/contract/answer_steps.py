"""The steps that make answers of the model's numbers alone."""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

from typing import Literal

from edge_runtime.contract.steps import Reading


class TopK(Reading, frozen=True, kw_only=True, tag="top_k"):
    """Best classes with their scores."""

    activation: Literal["none", "softmax", "sigmoid"]
    k: int
    min_score: float = 0.0
    ignore: list[int] = []
    labels_offset: int = 0


class Hysteresis(Reading, frozen=True, kw_only=True, tag="hysteresis"):
    """Scores over time to segments."""

    on: float
    off: float
    min_on_ms: float
    min_off_ms: float
    pad_ms: float


class Score(Reading, frozen=True, kw_only=True, tag="score"):
    """One number between 0 and 1."""


class Regression(Reading, frozen=True, kw_only=True, tag="regression"):
    """Numbers with a unit."""

    unit: str
    scale: float


class Embedding(Reading, frozen=True, kw_only=True, tag="embedding"):
    """A vector, optionally of unit length."""

    normalise: Literal["none", "l2"]
