"""One version of one model in service: answers calls, counts them, and asks again where an engine failed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property

from edge_runtime.contract.errors import EdgeError
from edge_runtime.inference.blame import EngineFault
from edge_runtime.inference.requests.accounting import (
    ANSWERED_NS,
    FAILED,
    FAILED_NS,
    FAULTS,
    REJECTED,
    STOOD_IN,
    SUCCESS,
    WAITED_NS,
    Accounting,
    count_failure,
)
from edge_runtime.inference.requests.refusals import Closed, DeadlinePassed, Refused, outcome_of
from edge_runtime.serving.calls import Call, Reply, Ticket
from edge_runtime.serving.describing import describe_inputs, describe_outputs, tensor_labels
from edge_runtime.serving.instance import Open
from edge_runtime.serving.opener import Isolation
from edge_runtime.serving.seat import Seat
from edge_runtime.serving.seating import Keeper, Retired, Seating
from edge_runtime.serving.statistics import ServedStatistics, read_statistics
from edge_runtime.serving.variants import Origin

Done = Callable[[Reply | EdgeError], None]
"""Is told the outcome of a submitted call, once, mostly on a worker thread; must return soon."""


class Deployment:
    """One version; any thread may call it.

    Args:
        name: under which it is served.
        origin: release and fitting variants.
        open_variant: loads one of them.
        keeper: what the host's versions share.
        isolation: where `open_variant` loads it.
    """

    def __init__(
        self, name: str, origin: Origin, open_variant: Open, keeper: Keeper, isolation: Isolation = "thread"
    ) -> None:
        release = origin.release.manifest
        self.release = release
        self.isolation = isolation
        self.name = name
        self.version = str(release.version)
        self.inputs = describe_inputs(release)
        self.outputs = describe_outputs(release, origin.variants[0])
        self.is_sequential = release.is_sequential
        """Whether calls may belong to sequences."""
        self.on_swap = "drain" if release.stream is None else release.stream.on_swap
        """What its sequences do when another version takes over: `drain` or `reset`."""
        self._origin = origin
        self.drained_by = float("inf")
        """`time.monotonic()` seconds by which its sequences must have ended, once it was replaced."""
        self._accounting = Accounting()
        self.seating = Seating(name, origin, open_variant, keeper, self._accounting)
        self._keeper = keeper
        self._last_inference_ns = 0

    @cached_property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """What the classes of an output tensor are called. Raises: ContractError, DigestMismatch."""
        return tensor_labels(self._origin.release, self._origin.source)

    def statistics(self) -> ServedStatistics:
        """Everything since the version was first loaded."""
        return read_statistics(self._accounting, last_inference_ms=self._last_inference_ns // 1_000_000)

    @property
    def answered(self) -> int:
        """Calls that the variant that is meant answered, not those of its stand-ins."""
        return self._accounting.total(SUCCESS) - self._accounting.total(STOOD_IN)

    @property
    def faults(self) -> int:
        """Times that a variant or its engine was to blame, even if another one answered then."""
        return self._accounting.total(FAULTS)

    def call(self, call: Call) -> Reply:
        """Answer in the caller's thread. Raises: Retired, BadInput, InferenceError."""
        seating = self.seating
        arrived = time.perf_counter_ns()
        while True:
            seat = seating.seat or self._seated(call.deadline, arrived)
            try:
                seat.admission.enter(call.deadline, call.priority)
            except Closed:
                self._uncount()
                continue
            try:
                return self._ask(seat, call, arrived)
            except EngineFault as fault:
                cause = fault
            finally:
                seat.admission.give_back(None)
                if seat.admission.is_awaited:
                    seat.admission.settle()
            if not seating.replace(seat, cause):
                self._count_failure(arrived)
                raise cause

    def submit(self, call: Call, done: Done, moved: Callable[[], None]) -> Ticket | None:
        """Answer on a worker thread.

        Args:
            call: the question.
            done: is told the outcome.
            moved: called instead when the model went elsewhere before the call began: submit it again.

        Returns:
            None while the model is being brought into memory, or when it was moved at once.

        Raises:
            Retired: at once, when the version is out of service.
            Refused: at once, when there is no room or no time for it.
        """
        arrived = time.perf_counter_ns()
        seat = self.seating.seat
        if seat is None:
            self.seating.check_room()
            self._keeper.caretaker.soon(lambda: self._seat_then(call, arrived, done, moved))
            return None

        def refuse(refusal: Refused) -> None:
            if isinstance(refusal, Closed):
                self._uncount()
                moved()
            else:
                done(refusal)

        def work() -> None:
            self._work(seat, call, arrived, done, moved)

        try:
            return seat.admission.submit(work, refuse=refuse, deadline=call.deadline, priority=call.priority)
        except Closed:
            self._uncount()
            moved()
            return None

    def _ask(self, seat: Seat, call: Call, arrived_ns: int) -> Reply:
        began = time.perf_counter_ns()
        record = self._accounting.record()
        try:
            tensors = seat.instance.answer(call, record)
        except EngineFault:
            # Whether the call has failed too, or is answered elsewhere, is not known yet.
            record.count(FAULTS)
            raise
        except BaseException as error:
            count_failure(record, error)
            if not isinstance(error, DeadlinePassed):
                record.count(FAILED_NS, time.perf_counter_ns() - arrived_ns)
            raise
        record.count(SUCCESS)
        if seat.is_stand_in:
            record.count(STOOD_IN)
        record.count(WAITED_NS, began - arrived_ns)
        record.count(ANSWERED_NS, time.perf_counter_ns() - arrived_ns)
        self.seating.last_used = time.monotonic()
        self._last_inference_ns = time.time_ns()
        return Reply(tensors, self.name, self.version, seat.instance.variant.id)

    def _work(self, seat: Seat, call: Call, arrived_ns: int, done: Done, moved: Callable[[], None]) -> None:
        """What a worker does with a submitted call; it holds a slot of the seat."""
        outcome = outcome_of(lambda: self._ask_or_move(seat, call, arrived_ns, moved))
        if outcome is not None:
            done(outcome)

    def _ask_or_move(self, seat: Seat, call: Call, arrived_ns: int, moved: Callable[[], None]) -> Reply | None:
        """The reply; None when the engine failed and another one is to be asked."""
        try:
            return self._ask(seat, call, arrived_ns)
        except EngineFault as fault:
            if not self.seating.replace(seat, fault):
                self._count_failure(arrived_ns)
                raise
            # Not in this thread: its slot belongs to an engine that is on its way out.
            self._keeper.caretaker.soon(moved)
            return None

    def _seated(self, deadline: float | None, arrived_ns: int) -> Seat:
        """As `Seating.seated`; counts a call for which nothing can be brought into memory."""
        try:
            return self.seating.seated(deadline)
        except Refused:
            raise  # counted where it was turned away
        except EdgeError:
            self._count_failure(arrived_ns)
            raise

    def _seat_then(self, call: Call, arrived_ns: int, done: Done, moved: Callable[[], None]) -> None:
        def seat() -> None:
            with suppress(Retired):  # then another one has taken over
                self._seated(call.deadline, arrived_ns)

        outcome = outcome_of(seat)
        if isinstance(outcome, EdgeError):
            done(outcome)
        else:
            moved()

    def _uncount(self) -> None:
        # The line counts whoever it turned away; a call that goes on elsewhere was not turned away.
        self._accounting.record().count(REJECTED, -1)

    def _count_failure(self, arrived_ns: int) -> None:
        record = self._accounting.record()
        record.count(FAILED)
        record.count(FAILED_NS, time.perf_counter_ns() - arrived_ns)
