"""A mergeable log-histogram with a fixed relative error, for latencies and scores.

Bucket i holds values in (γ^(i−1), γ^i] with γ = (1 + α)/(1 − α), so a bucket's midpoint 2γ^i/(γ + 1) is
within α of each of its values: the mapping of DDSketch (Masson, Rim, Lee, VLDB 2019), α = 1 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from edge_runtime.contract.codec import Document
from edge_runtime.contract.errors import ContractError

RELATIVE_ERROR: Final = 0.01
GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA: Final = math.log(GAMMA)
# 1e-9 … 1e9 in whatever unit: outside, values are clamped so that a hostile sketch cannot grow without bound.
MIN_INDEX: Final = math.ceil(math.log(1e-9) / _LOG_GAMMA)
MAX_INDEX: Final = math.ceil(math.log(1e9) / _LOG_GAMMA)
MAX_COUNT: Final = 2**53


class SketchData(Document, frozen=True, kw_only=True):
    """A log-histogram on the wire."""

    buckets: dict[str, int] = {}
    """Count by bucket index."""
    zeros: int = 0
    """Values ≤ 1e-9."""
    sum: float = 0.0
    alpha: float = RELATIVE_ERROR


class Sketch:
    """A log-histogram in memory. Not thread-safe: one writer."""

    __slots__ = ("_buckets", "_sum", "_zeros")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._zeros = 0
        self._sum = 0.0

    def add(self, value: float, count: int = 1) -> None:
        """Count a value. NaN and infinities are the caller's mistake and are ignored; ≤ 1e-9 counts as zero."""
        if not math.isfinite(value):
            return
        self._sum += value * count
        if value <= 1e-9:
            self._zeros += count
            return
        index = min(math.ceil(math.log(value) / _LOG_GAMMA), MAX_INDEX)
        self._buckets[index] = self._buckets.get(index, 0) + count

    @property
    def count(self) -> int:
        """How many values were added."""
        return self._zeros + sum(self._buckets.values())

    @property
    def mean(self) -> float | None:
        """Exact mean of the values added; None when empty."""
        count = self.count
        return self._sum / count if count else None

    def quantile(self, q: float) -> float | None:
        """The q-quantile (0 ≤ q ≤ 1) within 1 % relative error; None when empty."""
        if not 0 <= q <= 1:
            raise ContractError(f"compute quantile {q}", "it is not between 0 and 1")
        count = self.count
        if not count:
            return None
        rank = q * (count - 1)
        seen = self._zeros
        if rank < seen:
            return 0.0
        for index in sorted(self._buckets):
            seen += self._buckets[index]
            if rank < seen:
                break
        return float(2 * GAMMA**index / (GAMMA + 1))

    def merge(self, other: Sketch) -> None:
        """Add everything another sketch has seen."""
        for index, count in other._buckets.items():
            self._buckets[index] = self._buckets.get(index, 0) + count
        self._zeros += other._zeros
        self._sum += other._sum

    def to_data(self) -> SketchData:
        """The wire form."""
        buckets = {str(index): count for index, count in sorted(self._buckets.items())}
        return SketchData(buckets=buckets, zeros=self._zeros, sum=self._sum)

    @classmethod
    def from_data(cls, data: SketchData) -> Sketch:
        """Read the wire form. Raises: ContractError for another error bound, index or count."""
        if not math.isclose(data.alpha, RELATIVE_ERROR):
            raise ContractError("read a sketch", f"its relative error is {data.alpha}, not {RELATIVE_ERROR}")
        sketch = cls()
        for text, count in data.buckets.items():
            index = _bucket_index(text)
            if not 0 < count <= MAX_COUNT:
                raise ContractError("read a sketch", f"bucket {index} has the impossible count {count}")
            sketch._buckets[index] = count
        if not 0 <= data.zeros <= MAX_COUNT:
            raise ContractError("read a sketch", f"zeros has the impossible count {data.zeros}")
        sketch._zeros = data.zeros
        sketch._sum = data.sum
        return sketch


def merged(sketches: Iterable[SketchData]) -> Sketch:
    """One sketch over many, as if it had seen all their values. Raises: ContractError."""
    total = Sketch()
    for data in sketches:
        total.merge(Sketch.from_data(data))
    return total


def _bucket_index(text: str) -> int:
    try:
        index = int(text)
    except ValueError as error:
        raise ContractError("read a sketch", f"bucket {text[:20]!r} is no number") from error
    if not MIN_INDEX <= index <= MAX_INDEX or str(index) != text:
        raise ContractError("read a sketch", f"bucket {text[:20]!r} is out of range")
    return index
