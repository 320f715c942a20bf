"""What a model did and how long it took: counters and fixed histograms that the hot path fills without a lock.

Each thread counts into arrays of its own, which are added up when somebody reads. A thread that ends leaves its arrays
to the next new one, so there are never more of them than there were threads at once.
"""

from __future__ import annotations

from _thread import _local  # what `threading.local` is: a first answer would wait for the rest of that module
from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn

from edge_runtime.inference.blame import BadInput

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
BITS: Final = 6
PARTS: Final = 1 << BITS
_MAX_NS: Final = (1 << 40) - 1  # 18 minutes: longer calls count as this long
BUCKETS: Final = ((_MAX_NS.bit_length() - BITS - 1) << BITS) + 2 * PARTS


def bucket_of(ns: int) -> int:
    """The bucket that counts durations of so many nanoseconds."""
    if ns < 2 * PARTS:
        return max(0, ns)
    ns = min(ns, _MAX_NS)
    shift = ns.bit_length() - BITS - 1
    return (shift << BITS) + (ns >> shift)


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
        shift = run_ns.bit_length() - BITS - 1
        if shift <= 0:
            bucket = run_ns
        elif run_ns <= _MAX_NS:
            bucket = (shift << BITS) + (run_ns >> shift)
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


class Accounting:
    """Counters and stage histograms of one model; any thread may count and read."""

    def __init__(self) -> None:
        self._local = _local()
        self._records: list[Record] = []
        self._free: deque[Record] = deque()

    def record(self) -> Record:
        """The calling thread's own record."""
        try:
            record: Record = self._local.seat.record
        except AttributeError:
            return self._take_seat()
        return record

    def records(self) -> list[Record]:
        """What each thread counted so far, each as it goes on counting."""
        return list(self._records)

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


def fail(record: Record, blame: Callable[[BaseException], NoReturn], error: BaseException) -> NoReturn:
    """Raise what `blame` makes of an error, counted as a request that has no answer."""
    try:
        blame(error)
    except BaseException as blamed:
        count_failure(record, blamed)
        raise


def count_failure(record: Record, error: BaseException) -> None:
    """Count a request that has no answer; what is neither its own fault nor a refusal is the model's."""
    if isinstance(error, BadInput):
        record.count(BAD_INPUT)
        return
    from edge_runtime.inference.requests.refusals import DeadlinePassed, Refused  # where something failed

    record.count(EXPIRED if isinstance(error, DeadlinePassed) else FAILED)
    if isinstance(error, Exception) and not isinstance(error, Refused):
        record.count(FAULTS)
