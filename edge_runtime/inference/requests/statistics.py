"""What a model did, added up over all threads for whoever asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from edge_runtime.inference.requests.accounting import (
    BAD_INPUT,
    BITS,
    CANCELLED,
    EXPIRED,
    FAILED,
    FAULTS,
    NOT_FINITE,
    PARTS,
    REJECTED,
    SAMPLES,
    STAGES,
    SUCCESS,
    Accounting,
    Record,
)

if TYPE_CHECKING:
    from edge_runtime.contract.sketch import Sketch


class Histogram(msgspec.Struct, frozen=True):
    """Durations of one stage, added up over all threads."""

    buckets: Mapping[int, int]
    """Count by bucket, without empty ones, in order."""
    total_ns: int

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.buckets.values())

    def quantile_s(self, q: float) -> float | None:
        """The q-quantile (0 ≤ q ≤ 1) in seconds, within 1 %; None when nothing was counted."""
        rank, seen = q * (self.count - 1), 0
        for bucket, count in self.buckets.items():
            seen += count
            if rank < seen:
                return middle_of(bucket) / 1e9
        return None

    def since(self, earlier: Histogram) -> Histogram:
        """What was counted after an earlier reading of the same stage."""
        fresh = {bucket: count - earlier.buckets.get(bucket, 0) for bucket, count in self.buckets.items()}
        return Histogram({bucket: count for bucket, count in fresh.items() if count}, self.total_ns - earlier.total_ns)

    def sketch(self, unit_s: float = 1.0) -> Sketch:
        """The same as the sketch that telemetry carries, in units of so many seconds."""
        from edge_runtime.contract.sketch import Sketch

        sketch = Sketch()
        for bucket, count in self.buckets.items():
            sketch.add(middle_of(bucket) / 1e9 / unit_s, count)
        return sketch


class Statistics(msgspec.Struct, frozen=True):
    """What a model did since it was opened."""

    success: int
    """Requests that were answered."""
    failed: int
    """Requests that the model could not answer, though they were right: its engine failed, or memory was short."""
    bad_input: int
    """Requests whose names, shapes, dtypes or bytes it does not take; whoever asked is to blame."""
    expired: int
    """Requests whose deadline passed before they ran."""
    cancelled: int
    rejected: int
    """Requests that met a full queue or a closed model."""
    samples: int
    """Samples in the requests that were answered."""
    not_finite: int
    """Requests in which NaN or an infinity was found, where the NaN policy looks."""
    faults: int
    """Times that the model or its engine was to blame; where another variant answered then, the request succeeded."""
    stages: Mapping[str, Histogram]
    """By stage (`queue, prepare, run, interpret`); a stage that a request skips is not counted for it."""


def statistics_of(accounting: Accounting) -> Statistics:
    """Everything counted so far; calls in flight may be missing."""
    records = accounting.records()

    def total(counter: int) -> int:
        return sum(record.counters[counter] for record in records)

    return Statistics(
        success=total(SUCCESS),
        failed=total(FAILED),
        bad_input=total(BAD_INPUT),
        expired=total(EXPIRED),
        cancelled=total(CANCELLED),
        rejected=total(REJECTED),
        samples=total(SAMPLES),
        not_finite=total(NOT_FINITE),
        faults=total(FAULTS),
        stages={name: _added(records, index) for index, name in enumerate(STAGES)},
    )


def middle_of(bucket: int) -> float:
    """The middle of a bucket, in nanoseconds."""
    if bucket < 2 * PARTS:
        return float(bucket)
    shift = (bucket >> BITS) - 1
    first = ((bucket & (PARTS - 1)) + PARTS) << shift
    return first + ((1 << shift) - 1) / 2


def _added(records: Sequence[Record], stage: int) -> Histogram:
    buckets: dict[int, int] = {}
    for record in records:
        # A copy, because its thread goes on counting.
        for bucket, count in enumerate(record.histograms[stage].copy()):
            if count:
                buckets[bucket] = buckets.get(bucket, 0) + count
    return Histogram(dict(sorted(buckets.items())), sum(record.totals_ns[stage] for record in records))
