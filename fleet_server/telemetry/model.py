"""Streams of batches and what they add up to (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final, Literal

from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import DeviceId, SlotId, VariantId
from edge_runtime.contract.sketch import Sketch, SketchData

GroupKey = Literal["device", "slot", "release", "variant"]
EVERY_KEY: Final[tuple[GroupKey, ...]] = ("device", "slot", "release", "variant")


@dataclass(frozen=True, slots=True)
class StreamKey:
    """One stream of one agent start."""

    device: DeviceId
    epoch: str
    stream: str


@dataclass(frozen=True, slots=True)
class Extent:
    """The samples one stored batch covers, and how many before it the device declared lost."""

    first_seq: int
    count: int
    dropped: int

    @property
    def end(self) -> int:
        """The sequence number after the last sample."""
        return self.first_seq + self.count


@dataclass(frozen=True, slots=True)
class StreamState:
    """How far a stream is committed without a gap."""

    next_seq: int = 0
    """The next sequence number; the first sample of a stream has number 0."""
    gap_since: float | None = None
    """Since when batches beyond a gap are waiting; None when none is."""
    missing: int = 0
    """Samples that the device has declared lost."""


def advance(state: StreamState, stored: Iterable[Extent], now: float) -> StreamState:
    """Follow the stored batches, in order, as far as they are contiguous or their device has declared the gap.

    Never beyond: what is acknowledged is deleted on the device. A device that has given samples up, or that knows
    more of a stream than a restored database does, learns from the acknowledgement what to declare.

    Args:
        state: how far the stream was committed.
        stored: batches that end beyond it, by first_seq.
        now: seconds since 1970.
    """
    next_seq, missing, gap_since = state.next_seq, state.missing, state.gap_since
    extents = list(stored)
    # A later batch may declare what is missing before an earlier one that arrived without its predecessors.
    declared = list(accumulate((extent.first_seq - extent.dropped for extent in reversed(extents)), min))
    for extent, reaches_back_to in zip(extents, reversed(declared), strict=True):
        if reaches_back_to > next_seq:
            return StreamState(next_seq, now if gap_since is None else gap_since, missing)
        missing += max(0, extent.first_seq - next_seq)
        next_seq = max(extent.end, next_seq)
        gap_since = None
    return StreamState(next_seq, None, missing)


@dataclass(frozen=True, slots=True)
class Window:
    """One stored sample, as far as summaries need it."""

    device: DeviceId
    slot: SlotId
    release: Digest
    variant: VariantId
    start: float
    end: float
    requests: int
    correct: int | None
    total: int | None
    errors: dict[str, int]
    latency_ms: SketchData | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a group of samples adds up to."""

    group: dict[str, str]
    requests: int
    errors: dict[str, int]
    correct: int | None
    total: int | None
    accuracy: float | None
    """correct / total, where devices knew the labels."""
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    latency_p99_ms: float | None
    first: float
    last: float


@dataclass(slots=True)
class _Sum:
    first: float
    last: float
    requests: int = 0
    correct: int = 0
    total: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    latency: Sketch = field(default_factory=Sketch)

    def add(self, window: Window) -> None:
        self.first, self.last = min(self.first, window.start), max(self.last, window.end)
        self.requests += window.requests
        self.correct += window.correct or 0
        self.total += window.total or 0
        for code, count in window.errors.items():
            self.errors[code] = self.errors.get(code, 0) + count
        if window.latency_ms is not None:
            self.latency.merge(Sketch.from_data(window.latency_ms))


def summarise(windows: Iterable[Window], by: Iterable[GroupKey]) -> list[Summary]:
    """Add samples up by device, slot, release and variant, or by fewer of them; ordered by group."""
    keys = tuple(by)
    sums: dict[tuple[str, ...], _Sum] = {}
    for window in windows:
        group = tuple(str(getattr(window, key)) for key in keys)
        sums.setdefault(group, _Sum(window.start, window.end)).add(window)
    return [_summary(dict(zip(keys, group, strict=True)), total) for group, total in sorted(sums.items())]


def _summary(group: dict[str, str], total: _Sum) -> Summary:
    labelled = total.total > 0
    return Summary(
        group=group,
        requests=total.requests,
        errors=total.errors,
        correct=total.correct if labelled else None,
        total=total.total if labelled else None,
        accuracy=total.correct / total.total if labelled else None,
        latency_p50_ms=total.latency.quantile(0.5),
        latency_p95_ms=total.latency.quantile(0.95),
        latency_p99_ms=total.latency.quantile(0.99),
        first=total.first,
        last=total.last,
    )
