"""Agreement of outputs that are just numbers: the angle between two answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from converters.evaluation.metrics.metric import Z95, Interval, Reply, Score
from edge_runtime.inference.checks.agreement import cosine


@dataclass(slots=True)
class MeanCosine:
    """Mean over the samples of the cosine between both answers; an answer that is not a number counts 0."""

    tensor: str
    _cosines: list[float] = field(default_factory=list, init=False)

    def add(self, reference: Reply, reply: Reply) -> None:
        """Take one sample in."""
        first, second = reference.tensors[self.tensor], reply.tensors[self.tensor]
        if not (first.any() or second.any()):
            self._cosines.append(1.0)
            return
        value = cosine(first, second)
        self._cosines.append(value if math.isfinite(value) else 0.0)

    def score(self) -> Score:
        """What came out."""
        return Score("cosine", *mean_of(self._cosines))


def mean_of(values: list[float]) -> tuple[float, int, Interval | None]:
    """Mean, count and 95 % confidence interval (normal approximation; None for fewer than two values)."""
    if not values:
        return float("nan"), 0, None
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, 1, None
    half = Z95 * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, len(values), (mean - half, mean + half)
