"""Intervals of metrics that are no mean: the set is drawn again from itself, always with the same draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from converters.evaluation.metrics.metric import Interval
from edge_runtime.inference.backend import Array

_DRAWS: Final = 200


def interval_of(parts: Array, metric: Callable[[Array], float]) -> Interval | None:
    """95 % percentile bootstrap interval (Efron, Tibshirani, An Introduction to the Bootstrap, chapter 13).

    Args:
        parts: [samples, …]: what each sample adds to the sums that the metric is made of.
        metric: from the sums over a set, […].

    Returns:
        None for fewer than two samples, or when the metric is not a number.
    """
    count = len(parts)
    if count < 2:
        return None
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=_DRAWS)
    values = [metric(np.tensordot(weights, parts, axes=1)) for weights in draws]
    if not np.isfinite(values).all():
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
