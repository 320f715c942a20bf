"""Durations as figures, and when one thing is really slower than another (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import msgspec


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of many calls."""

    count: int
    min: float
    p10: float
    p50: float
    p90: float
    p99: float


def figures_of(durations_ns: Sequence[int]) -> Figures:
    """Figures of durations in nanoseconds; at least one."""
    ordered = sorted(durations_ns)
    p10, p50, p90, p99 = (quantile(ordered, q) / 1e6 for q in (0.1, 0.5, 0.9, 0.99))
    return Figures(count=len(ordered), min=ordered[0] / 1e6, p10=p10, p50=p50, p90=p90, p99=p99)


def quantile(ordered: Sequence[int], q: float) -> float:
    """The q-quantile of sorted values, linear between neighbours."""
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def paired_ratio(ours: Sequence[int], theirs: Sequence[int]) -> float:
    """Median of the ratios within pairs that were taken one right after the other.

    What slows the machine for a while slows both of a pair, so it cancels where a ratio of two medians would keep it.
    """
    return median(one / other for one, other in zip(ours, theirs, strict=True))


def steady_ratio(ours: Sequence[int], theirs: Sequence[int], *, is_busy: bool) -> float:
    """The paired ratio; on a busy machine that of the fastest calls.

    Where other work takes the processor away in the middle of a call, pairs say little; only calls that were left alone
    can be compared.
    """
    if not is_busy:
        return paired_ratio(ours, theirs)
    return min(ours) / min(theirs)
