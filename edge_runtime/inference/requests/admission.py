"""Who may use a model now: a bounded waiting line, ordered by priority, in which nothing runs after its deadline.

A slot is the right to one call of the engine. Callers with a thread of their own `enter` and `leave`; event loops
`submit` work, which a few worker threads run. Both wait in the same line. Deadlines are seconds of `time.monotonic()`.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, Final

from edge_runtime.inference.requests.accounting import CANCELLED, EXPIRED, QUEUE, REJECTED, Accounting
from edge_runtime.inference.requests.refusals import Cancelled, Closed, DeadlinePassed, Overloaded, Refused
from edge_runtime.inference.requests.turns import Refuse, Ticket, Turn, Work
from edge_runtime.inference.requests.whole import whole

if TYPE_CHECKING:
    from queue import SimpleQueue

_LOOK_S: Final = 0.5
"""After which a waiter looks for a slot itself: Ctrl-C may have kept whoever gave it back from saying so."""
_FIRST_PACE_S: Final = 0.05
"""How long a turn is taken to last before one was measured."""


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
        self._free: deque[None] = deque([None] * slots)
        """One element for each free slot: taking and giving one is atomic, so the usual way needs no lock."""
        self._take = self._free.pop
        """Replaced when the line is closed."""
        self.give_back: Callable[[None], None] = self._free.append
        """What `leave` does first. In C: where it is called by itself no Ctrl-C comes before or into it."""
        self.is_awaited = False
        """Whether somebody waits. Set before a waiter looks for a slot once more, and read after one was given back:
        one of the two always sees the other."""
        self._lock = threading.Lock()
        """Guards everything below."""
        self._is_open = True
        self._line: list[tuple[int, int, Turn]] = []
        """Heap of priority, order of arrival, turn; some turns may be gone."""
        self._waiting = 0
        self._soonest: float | None = None
        """No waiting turn has an earlier deadline."""
        self._numbers = itertools.count()
        self._idle_workers = 0
        self._when_idle: list[Callable[[], None]] = []
        self._pace_s = _FIRST_PACE_S
        self._last_turn: float | None = None

    @cached_property
    def _ready(self) -> SimpleQueue[Turn | None]:
        """Where workers find their turns; first asked for with the lock held, by whoever starts the first worker."""
        from queue import SimpleQueue

        return SimpleQueue()

    @property
    def running(self) -> int:
        """Calls that hold a slot."""
        return self.slots - len(self._free)

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
        if deadline is not None and not monotonic() < deadline:  # no number has passed as well
            raise self._counted(DeadlinePassed())
        try:
            self._take()
        except IndexError:
            self._wait(deadline, priority)
        except BaseException:  # Ctrl-C is raised when the step has been done
            self.give_back(None)
            raise

    @whole
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
        turn = Turn(deadline, monotonic())
        turn.work, turn.refuse = work, refuse
        if turn.is_late(turn.joined):
            raise self._counted(DeadlinePassed())
        if self._take_or_join(turn, priority) and not self._hand_to_worker(turn):
            self.leave()
            raise self._counted(self._without_worker())
        return Ticket(turn, self._withdraw)

    def on_idle(self, call: Callable[[], None]) -> None:
        """Call once, as soon as nothing runs or waits: at once, or in the thread of the last call."""
        with self._lock:
            self._when_idle.append(call)
            self.is_awaited = True
        self.settle()

    def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing runs or waits; False when that took longer."""
        ended = threading.Event()
        self.on_idle(ended.set)
        return ended.wait(timeout_s)

    @whole
    def close(self) -> None:
        """Refuse whoever waits and whoever comes; calls that run go on to their end."""
        with self._lock:
            self._is_open = False
            self._take = deque[None]().pop
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
        turn = Turn(deadline, monotonic())
        turn.wake = threading.Lock()
        turn.wake.acquire()
        try:
            if self._take_or_join(turn, priority):
                return
            self._sleep(turn, turn.wake)
            now = monotonic()
            if turn.refusal is None and not turn.is_late(now):
                self._accounting.record().time(QUEUE, int((now - turn.joined) * 1e9))
                return
        except BaseException:  # Ctrl-C reaches the main thread while it waits
            if not self._withdraw(turn, Cancelled()) and turn.state == "granted":
                self.leave()
            raise
        if turn.refusal is not None:
            refusal, turn.refusal = turn.refusal, None
            try:
                raise refusal
            finally:
                del refusal  # else the traceback and this frame hold each other, and the model's callers with them
        self.leave()
        raise self._counted(DeadlinePassed())

    def _sleep(self, turn: Turn, wake: threading.Lock) -> None:
        """Until the turn has a slot or a refusal."""
        now = turn.joined
        until = threading.TIMEOUT_MAX if turn.deadline is None else turn.deadline
        while not wake.acquire(timeout=min(max(until - now, 0.0), _LOOK_S)):
            now = monotonic()
            if turn.is_late(now):
                self._withdraw(turn, DeadlinePassed())
                return
            self.settle()

    def leave(self) -> None:
        """Give a slot back, or on to whoever is next."""
        self.give_back(None)
        if self.is_awaited:
            self.settle()

    @whole
    def _take_or_join(self, turn: Turn, priority: int) -> bool:
        """Whether the turn has a slot at once; else it stands in the line. Raises: Refused."""
        late: list[Turn] = []
        refusal, has_slot = None, True
        with self._lock:
            self.is_awaited = True
            turn.state = "granted"  # first: what another signal does may raise as soon as the slot is taken
            try:
                self._take()
            except IndexError:
                turn.state, has_slot = "new", False
                refusal = self._join(turn, priority, late)
            self.is_awaited = bool(self._line or self._when_idle)
        self._refuse_all(late)
        if refusal is None:
            return has_slot
        try:
            raise self._counted(refusal)
        finally:
            del refusal  # as in `_wait`

    def _join(self, turn: Turn, priority: int, late: list[Turn]) -> Refused | None:
        """Put a turn into the line, or say why not; the lock is held. Turns found late are added to `late`."""
        if not self._is_open:
            return Closed()
        is_late_likely = self._soonest is not None and turn.joined >= self._soonest
        if (self._waiting >= self.queue_limit and is_late_likely) or len(self._line) > 2 * self.queue_limit:
            self._clear_out(turn.joined, late)
        if self._waiting >= self.queue_limit:
            return Overloaded(self._waiting, self._pace_s * max(self._waiting, 1))
        from heapq import heappush  # here and below: who never waits does not wait for it either

        number = next(self._numbers)
        turn.state = "waiting"
        self._waiting += 1
        heappush(self._line, (-priority, number, turn))
        if turn.deadline is not None and (self._soonest is None or turn.deadline < self._soonest):
            self._soonest = turn.deadline
        return None

    def _clear_out(self, now: float, late: list[Turn]) -> None:
        """Drop the turns that are gone or late; the lock is held."""
        from heapq import heapify

        kept = []
        for entry in self._line:
            turn = entry[2]
            if turn.state == "waiting" and turn.is_late(now):
                self._drop(turn, late)
            elif turn.state == "waiting":
                kept.append(entry)
        heapify(kept)
        self._line[:] = kept
        self._soonest = min((turn.deadline for _, _, turn in kept if turn.deadline is not None), default=None)

    def _drop(self, turn: Turn, late: list[Turn]) -> None:
        turn.state = "gone"
        turn.refusal = DeadlinePassed()
        self._waiting -= 1
        late.append(turn)

    @whole
    def settle(self) -> None:
        """Hand free slots to whoever is next, and tell those who wait for the end."""
        while self._settle_once():
            pass

    def _settle_once(self) -> bool:
        """As `settle`; whether slots came back, because who was next could not be started."""
        granted: list[Turn] = []
        late: list[Turn] = []
        ended: list[Callable[[], None]] = []
        with self._lock:
            while self._line:
                try:
                    self._free.pop()
                except IndexError:
                    break
                turn = self._next(late)
                if turn is None:
                    self._free.append(None)
                else:
                    granted.append(turn)
            if self._when_idle and not self._waiting and len(self._free) == self.slots:
                ended, self._when_idle = self._when_idle, []
            self.is_awaited = bool(self._line or self._when_idle)
        self._refuse_all(late)
        came_back = [turn for turn in granted if not self._start(turn)]
        self._free.extend([None] * len(came_back))
        for call in ended:
            call()
        return bool(came_back)

    def _next(self, late: list[Turn]) -> Turn | None:
        """The next turn, granted; the lock is held."""
        from heapq import heappop

        now = monotonic()
        while self._line:
            turn = heappop(self._line)[2]
            if turn.state != "waiting":
                continue
            if turn.is_late(now):
                self._drop(turn, late)
                continue
            turn.state = "granted"
            self._waiting -= 1
            if self._last_turn is not None:
                self._pace_s += 0.2 * (now - self._last_turn - self._pace_s)
            self._last_turn = now
            return turn
        self._soonest = self._last_turn = None
        return None

    def _start(self, turn: Turn) -> bool:
        """Let a turn that has its slot begin; False when it cannot, and was refused: the slot is the caller's again."""
        if turn.wake is not None:
            turn.wake.release()
        elif not self._hand_to_worker(turn):
            self._withdraw(turn, self._without_worker())
            return False
        return True

    @whole
    def _withdraw(self, turn: Turn, refusal: Refused) -> bool:
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

    def _refuse_all(self, turns: list[Turn]) -> None:
        for turn in turns:
            assert turn.refusal is not None
            self._counted(turn.refusal)
            if turn.wake is not None:
                turn.wake.release()
            if turn.refuse is not None:
                turn.refuse(turn.refusal)

    def _counted(self, refusal: Refused) -> Refused:
        self._accounting.record().count({"deadline": EXPIRED, "cancelled": CANCELLED}.get(refusal.code, REJECTED))
        return refusal

    def _hand_to_worker(self, turn: Turn) -> bool:
        """False when nobody is there to take it, for the system gives no more threads."""
        with self._lock:
            is_one_idle = self._idle_workers > 0
            self._idle_workers -= is_one_idle
            ready = self._ready
        if not is_one_idle:
            try:
                threading.Thread(target=self._serve, name="inference", daemon=True).start()
            except RuntimeError:
                return False
        # Only now: what lies there without a worker would keep its slot for ever.
        ready.put(turn)
        return True

    def _without_worker(self) -> Overloaded:
        return Overloaded(self._waiting, self._pace_s * max(self._waiting, 1))

    def _serve(self) -> None:
        """A worker: there are never more of them than slots, because each runs work that holds one."""
        while (turn := self._ready.get()) is not None:
            following: Turn | None = turn
            rests = False
            while following is not None:
                self._run(following)
                following, rests = self._run_out()
            if not rests:
                return

    def _run_out(self) -> tuple[Turn | None, bool]:
        """What the worker runs next in the same slot, else None when it gave the slot away; whether it rests then.

        Who rests is counted, and is owed one turn or one word that the line is closed. It must wait for that even where
        the line was closed since: the word would else be taken by a worker that was started to run a turn.
        """
        late: list[Turn] = []
        with self._lock:
            following = self._next(late)
            is_over = following is None or following.work is None
            rests = is_over and self._is_open
            self._idle_workers += rests
        self._refuse_all(late)
        if not is_over:
            return following, False
        if following is None or not self._start(following):
            self.leave()
        return None, rests

    def _run(self, turn: Turn) -> None:
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
