"""Who may use a model now: a bounded waiting line, ordered by priority, in which nothing runs after its deadline.

A slot is the right to one call of the engine. Callers with a thread of their own `enter` and `leave`; event loops
`submit` work, which a few worker threads run. Both wait in the same line. Deadlines are seconds of `time.monotonic()`.
"""

from __future__ import annotations

import heapq
import itertools
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic
from typing import Final, Literal

from edge_runtime.inference.accounting import CANCELLED, EXPIRED, QUEUE, REJECTED, Accounting
from edge_runtime.inference.refusals import Cancelled, Closed, DeadlinePassed, Overloaded, Refused

Work = Callable[[], None]
Refuse = Callable[[Refused], None]

_FIRST_PACE_S: Final = 0.05
"""How long a turn is taken to last before one was measured."""


class _Turn:
    """A place in the line."""

    __slots__ = ("deadline", "joined", "refusal", "refuse", "state", "wake", "work")

    def __init__(self, deadline: float | None, joined: float) -> None:
        self.deadline = deadline
        self.joined = joined
        self.state: Literal["waiting", "granted", "running", "gone"] = "waiting"
        self.work: Work | None = None
        self.refuse: Refuse | None = None
        self.wake: threading.Lock | None = None
        self.refusal: Refused | None = None

    def is_late(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline


class Ticket:
    """Submitted work, as its owner holds it."""

    __slots__ = ("_admission", "_turn")

    def __init__(self, admission: Admission, turn: _Turn) -> None:
        self._admission = admission
        self._turn = turn

    def cancel(self) -> bool:
        """Withdraw the work; True when it will not run (its `refuse` was called), False when it began or ended.

        Work whose deadline has passed counts as expired, any other as cancelled.
        """
        refusal = DeadlinePassed() if self._turn.is_late(monotonic()) else Cancelled()
        return self._admission._withdraw(self._turn, refusal)  # noqa: SLF001 (one mechanism, two faces)


class Admission:
    """The waiting line of one model; every method may be called from any thread.

    Args:
        slots: calls that may run at once.
        queue_limit: requests that may wait; one more is refused.
        accounting: where waiting times and refusals are counted.
    """

    def __init__(self, slots: int, queue_limit: int, accounting: Accounting | None = None) -> None:
        self.slots = slots
        self.queue_limit = queue_limit
        self._accounting = accounting or Accounting()
        self._lock = threading.Lock()
        self._limit = slots
        """Slots; none once it is closed."""
        self._busy = 0
        self._line: list[tuple[int, int, _Turn]] = []
        """Heap of priority, order of arrival, turn; empty whenever a slot is free. May hold turns that are gone."""
        self._waiting = 0
        self._soonest: float | None = None
        """No waiting turn has an earlier deadline."""
        self._numbers = itertools.count()
        self._ready: SimpleQueue[_Turn | None] = SimpleQueue()
        self._idle_workers = 0
        self._when_idle: list[Callable[[], None]] = []
        self._pace_s = _FIRST_PACE_S
        self._last_turn: float | None = None

    @property
    def running(self) -> int:
        """Calls that hold a slot."""
        return self._busy

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        return self._waiting

    def enter(self, deadline: float | None = None, priority: int = 0) -> None:
        """Take a slot in the calling thread, waiting for it where none is free; `leave` must follow.

        Args:
            deadline: after it the request is refused instead.
            priority: a higher number is served first, equal ones in order of arrival.

        Raises:
            Refused: `DeadlinePassed`, `Overloaded` or `Closed`; no slot is taken.
        """
        if deadline is not None and monotonic() >= deadline:
            raise self._counted(DeadlinePassed())
        with self._lock:
            if self._busy < self._limit:
                self._busy += 1
                return
        self._wait(deadline, priority)

    def leave(self) -> None:
        """Give the slot back, or on to whoever is next."""
        with self._lock:
            if not self._line and not self._when_idle:
                self._busy -= 1
                return
        following = self._pass_on(may_run=False)
        assert following is None

    def submit(self, work: Work, *, refuse: Refuse, deadline: float | None = None, priority: int = 0) -> Ticket:
        """Have work run on a worker thread when its turn comes; never blocks.

        Args:
            work: called once, on a worker thread; it must not raise.
            refuse: called instead, when the work will not run after all: on a worker thread, or in the thread that
                cancels or closes.
            deadline: after it the work is not begun.
            priority: a higher number is served first, equal ones in order of arrival.

        Raises:
            Refused: at once, without a call of `refuse`: `DeadlinePassed`, `Overloaded` or `Closed`.
        """
        now = monotonic()
        turn = _Turn(deadline, now)
        turn.work, turn.refuse = work, refuse
        if turn.is_late(now):
            raise self._counted(DeadlinePassed())
        with self._lock:
            is_first = self._busy < self._limit
            late: list[_Turn] = []
            refusal = None
            if is_first:
                self._busy += 1
                turn.state = "granted"
            else:
                refusal = self._join(turn, priority, now, late)
        self._refuse_all(late)
        if refusal is not None:
            raise self._counted(refusal)
        if is_first:
            self._hand_to_worker(turn)
        return Ticket(self, turn)

    def on_idle(self, call: Callable[[], None]) -> None:
        """Call once, as soon as nothing runs or waits: at once, or in the thread of the last call."""
        with self._lock:
            if self._busy:
                self._when_idle.append(call)
                return
        call()

    def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing runs or waits; False when that took longer."""
        ended = threading.Event()
        self.on_idle(ended.set)
        return ended.wait(timeout_s)

    def close(self) -> None:
        """Refuse whoever waits and whoever comes; calls that run go on to their end."""
        with self._lock:
            self._limit = 0
            turns = [turn for _, _, turn in self._line if turn.state == "waiting"]
            for turn in turns:
                turn.state = "gone"
                turn.refusal = Closed()
            self._line.clear()
            self._waiting = 0
            for _ in range(self._idle_workers):
                self._ready.put(None)
            self._idle_workers = 0
        self._refuse_all(turns)

    def _wait(self, deadline: float | None, priority: int) -> None:
        now = monotonic()
        turn = _Turn(deadline, now)
        turn.wake = threading.Lock()
        turn.wake.acquire()
        late: list[_Turn] = []
        with self._lock:
            if self._busy < self._limit:
                self._busy += 1
                return
            refusal = self._join(turn, priority, now, late)
        self._refuse_all(late)
        if refusal is not None:
            raise self._counted(refusal)
        timeout = -1.0 if deadline is None else min(max(deadline - now, 0.0), threading.TIMEOUT_MAX)
        try:
            if not turn.wake.acquire(timeout=timeout):
                self._withdraw(turn, DeadlinePassed())
        except BaseException:  # Ctrl-C reaches the main thread while it waits
            if not self._withdraw(turn, Cancelled()) and turn.refusal is None:
                self.leave()
            raise
        if turn.refusal is not None:
            try:
                raise turn.refusal
            finally:
                # An error that its own frame still names would keep a closed model in memory until the next collection.
                turn.refusal = None
        now = monotonic()
        if turn.is_late(now):
            self.leave()
            raise self._counted(DeadlinePassed())
        self._accounting.record().time(QUEUE, int((now - turn.joined) * 1e9))

    def _join(self, turn: _Turn, priority: int, now: float, late: list[_Turn]) -> Refused | None:
        """Put a turn into the line, or say why not; the lock is held. Turns found late are added to `late`."""
        if not self._limit:
            return Closed()
        if self._waiting >= self.queue_limit and self._soonest is not None and now >= self._soonest:
            self._drop_late(now, late)
        if self._waiting >= self.queue_limit:
            return Overloaded(self._waiting, self._pace_s * max(self._waiting, 1))
        heapq.heappush(self._line, (-priority, next(self._numbers), turn))
        self._waiting += 1
        if turn.deadline is not None and (self._soonest is None or turn.deadline < self._soonest):
            self._soonest = turn.deadline
        return None

    def _drop_late(self, now: float, late: list[_Turn]) -> None:
        kept = []
        for entry in self._line:
            turn = entry[2]
            if turn.state != "waiting":
                continue
            if turn.is_late(now):
                self._drop(turn, late)
            else:
                kept.append(entry)
        heapq.heapify(kept)
        self._line[:] = kept
        self._soonest = min((turn.deadline for _, _, turn in kept if turn.deadline is not None), default=None)

    def _drop(self, turn: _Turn, late: list[_Turn]) -> None:
        turn.state = "gone"
        turn.refusal = DeadlinePassed()
        self._waiting -= 1
        late.append(turn)

    def _pass_on(self, *, may_run: bool) -> _Turn | None:
        """Give the caller's slot to the next turn; returned, not handed over, when a worker asks and it is work."""
        now = monotonic()
        late: list[_Turn] = []
        idle_calls: list[Callable[[], None]] = []
        with self._lock:
            following = self._next(now, late)
            if following is None:
                self._busy -= 1
                self._last_turn = None
                if not self._busy:
                    idle_calls, self._when_idle = self._when_idle, []
            else:
                self._measure_pace(now)
            runs_here = may_run and following is not None and following.work is not None
            if may_run and not runs_here and self._limit:
                self._idle_workers += 1
        self._refuse_all(late)
        for call in idle_calls:
            call()
        if following is None or runs_here:
            return following
        if following.wake is not None:
            following.wake.release()
        else:
            self._hand_to_worker(following)
        return None

    def _next(self, now: float, late: list[_Turn]) -> _Turn | None:
        while self._line:
            turn = heapq.heappop(self._line)[2]
            if turn.state != "waiting":
                continue
            if turn.is_late(now):
                self._drop(turn, late)
                continue
            turn.state = "granted"
            self._waiting -= 1
            return turn
        self._soonest = None
        return None

    def _measure_pace(self, now: float) -> None:
        if self._last_turn is not None:
            self._pace_s += 0.2 * (now - self._last_turn - self._pace_s)
        self._last_turn = now

    def _withdraw(self, turn: _Turn, refusal: Refused) -> bool:
        with self._lock:
            if turn.state == "waiting":
                self._waiting -= 1
            elif turn.state != "granted" or turn.work is None:
                return False
            # Work that was granted but not begun leaves its slot to its worker.
            turn.state = "gone"
            turn.refusal = refusal
        self._refuse_all([turn])
        return True

    def _refuse_all(self, turns: list[_Turn]) -> None:
        for turn in turns:
            assert turn.refusal is not None
            self._counted(turn.refusal)
            if turn.wake is not None:
                turn.wake.release()
            if turn.refuse is not None:
                turn.refuse(turn.refusal)

    def _counted(self, refusal: Refused) -> Refused:
        counter = {"deadline": EXPIRED, "cancelled": CANCELLED}.get(refusal.code, REJECTED)
        self._accounting.record().count(counter)
        return refusal

    def _hand_to_worker(self, turn: _Turn) -> None:
        self._ready.put(turn)
        with self._lock:
            if self._idle_workers:
                self._idle_workers -= 1
                return
        threading.Thread(target=self._serve, name="inference", daemon=True).start()

    def _serve(self) -> None:
        """A worker: there are never more of them than slots, because each runs work that holds one."""
        while (turn := self._ready.get()) is not None:
            following: _Turn | None = turn
            while following is not None:
                self._run(following)
                following = self._pass_on(may_run=True)
            if not self._limit:
                return

    def _run(self, turn: _Turn) -> None:
        now = monotonic()
        with self._lock:
            if turn.state == "gone":
                return
            is_late = turn.is_late(now)
            turn.state = "gone" if is_late else "running"
        if is_late:
            turn.refusal = DeadlinePassed()
            self._refuse_all([turn])
            return
        work, turn.work, turn.refuse = turn.work, None, None
        assert work is not None
        self._accounting.record().time(QUEUE, int((now - turn.joined) * 1e9))
        try:
            work()
        except Exception:  # noqa: BLE001 (one request's fault must not take a worker from all others)
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))
