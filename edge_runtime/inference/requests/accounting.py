"""What a model did and how long it took: counters and fixed histograms that the hot path fills without a lock.

Each thread counts into arrays of its own, which are added up when somebody reads. A thread that ends leaves its arrays
to the next new one, so there are never more of them than there were threads at once.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from edge_runtime.contract.sketch import Sketch

SUCCESS: Final = 0
FAILED: Final = 1
EXPIRED: Final = 2
CANCELLED: Final = 3
REJECTED: Final = 4
SAMPLES: Final = 5
NOT_FINITE: Final = 6
FAULTS: Final = 7
BAD_INPUT: Final = 8
ANSWERED_NS: Final = 9
WAITED_NS: Final = 10
FAILED_NS: Final = 11
STOOD_IN: Final = 12
_COUNTERS: Final = 13

QUEUE: Final = 0
PREPARE: Final = 1
RUN: Final = 2
INTERPRET: Final = 3
STAGES: Final = ("queue", "prepare", "run", "interpret")
"""Where the time of a request goes: waiting, preprocessing, the engine, postprocessing."""

# 64 buckets for each doubling: a bucket's middle is within 1/128 of each of its values, which is finer than the
# sketches that telemetry carries.
_BITS: Final = 6
_PARTS: Final = 1 << _BITS
_MAX_NS: Final = (1 << 40) - 1  # 18 minutes: longer calls count as this long
BUCKETS: Final = ((_MAX_NS.bit_length() - _BITS - 1) << _BITS) + 2 * _PARTS


def bucket_of(ns: int) -> int:
    """The bucket that counts durations of so many nanoseconds."""
    if ns < 2 * _PARTS:
        return max(0, ns)
    ns = min(ns, _MAX_NS)
    shift = ns.bit_length() - _BITS - 1
    return (shift << _BITS) + (ns >> shift)


def middle_of(bucket: int) -> float:
    """The middle of a bucket, in nanoseconds."""
    if bucket < 2 * _PARTS:
        return float(bucket)
    shift = (bucket >> _BITS) - 1
    first = ((bucket & (_PARTS - 1)) + _PARTS) << shift
    return first + ((1 << shift) - 1) / 2


class Record:
    """What one thread counted; only that thread writes.

    Lists of numbers, not arrays: adding to an element of a list is several times as fast.
    """

    __slots__ = ("counters", "histograms", "totals_ns")

    def __init__(self) -> None:
        self.counters = [0] * _COUNTERS
        self.totals_ns = [0] * len(STAGES)
        self.histograms = tuple([0] * BUCKETS for _ in STAGES)

    def count(self, counter: int, amount: int = 1) -> None:
        """Add to one of the counters."""
        self.counters[counter] += amount

    def answered(self, run_ns: int, samples: int) -> None:
        """Count a request that the engine answered: the shortest way to do it, for it stands on the hot path."""
        shift = run_ns.bit_length() - _BITS - 1
        if shift <= 0:
            bucket = run_ns
        elif run_ns <= _MAX_NS:
            bucket = (shift << _BITS) + (run_ns >> shift)
        else:
            bucket = BUCKETS - 1
        self.histograms[RUN][bucket] += 1
        self.totals_ns[RUN] += run_ns
        counters = self.counters
        counters[SUCCESS] += 1
        counters[SAMPLES] += samples

    def time(self, stage: int, ns: int) -> None:
        """Count a duration of one stage."""
        self.totals_ns[stage] += ns
        self.histograms[stage][bucket_of(ns)] += 1


class _Seat:
    """Ties a record to a thread: when the thread ends, the record is free for another."""

    __slots__ = ("_free", "record")

    def __init__(self, record: Record, free: deque[Record]) -> None:
        self.record = record
        self._free = free

    def __del__(self) -> None:
        self._free.append(self.record)


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


class Accounting:
    """Counters and stage histograms of one model; any thread may count and read."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._records: list[Record] = []
        self._free: deque[Record] = deque()

    def record(self) -> Record:
        """The calling thread's own record."""
        try:
            record: Record = self._local.seat.record
        except AttributeError:
            return self._take_seat()
        return record

    def statistics(self) -> Statistics:
        """Everything counted so far; calls in flight may be missing."""
        records = list(self._records)
        counted = [self.total(counter) for counter in range(_COUNTERS)]
        return Statistics(
            success=counted[SUCCESS],
            failed=counted[FAILED],
            bad_input=counted[BAD_INPUT],
            expired=counted[EXPIRED],
            cancelled=counted[CANCELLED],
            rejected=counted[REJECTED],
            samples=counted[SAMPLES],
            not_finite=counted[NOT_FINITE],
            faults=counted[FAULTS],
            stages={name: _added(records, index) for index, name in enumerate(STAGES)},
        )

    def total(self, counter: int) -> int:
        """One of the counters alone, which costs next to nothing."""
        return sum(record.counters[counter] for record in list(self._records))

    def _take_seat(self) -> Record:
        try:
            record = self._free.pop()
        except IndexError:
            record = Record()
            self._records.append(record)
        self._local.seat = _Seat(record, self._free)
        return record


def _added(records: Sequence[Record], stage: int) -> Histogram:
    buckets: dict[int, int] = {}
    for record in records:
        # A copy, because its thread goes on counting.
        for bucket, count in enumerate(record.histograms[stage].copy()):
            if count:
                buckets[bucket] = buckets.get(bucket, 0) + count
    return Histogram(dict(sorted(buckets.items())), sum(record.totals_ns[stage] for record in records))
