"""The port of a metric, what it is fed, what it says, and the intervals around a share and a mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Protocol

from converters.data.truth import Truth
from edge_runtime.inference.backend import Tensors
from edge_runtime.inference.postprocessing.results import Answer

Z95: Final = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said to one sample."""

    tensors: Tensors
    """Canonical output tensors, with their batch axis."""
    answer: Answer
    """What the release's postprocessing makes of them."""


@dataclass(frozen=True, slots=True)
class Score:
    """A metric over a set."""

    metric: str
    value: float
    count: int
    """Samples that were judged."""
    ci95: Interval | None = None
    """95 % confidence interval; None where none can be given honestly."""
    is_error: bool = False
    """Whether less is better."""

    def lost_from(self, reference: float) -> float:
        """By how much this is worse than a reference value, in the metric's own unit; negative: it is better."""
        # Rounded as the manifest holds the reference, or equal scores would differ in the last digits.
        lost = reference - round(self.value, 6)
        return -lost if self.is_error else lost


class Metric(Protocol):
    """Judges replies by what a person says."""

    def add(self, reply: Reply, truth: Truth) -> None:
        """Take one sample in. Raises: BadDataset when the truth is of another kind than the metric needs."""

    def score(self) -> Score:
        """What came out."""


class Agreement(Protocol):
    """Judges replies by those of the source model."""

    def add(self, reference: Reply, reply: Reply) -> None:
        """Take one sample in."""

    def score(self) -> Score:
        """What came out."""


def wilson(share: float, count: int) -> Interval:
    """95 % confidence interval of a share of `count` trials (Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    spread = Z95**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)
