"""Who may use a model now: a bounded waiting line, ordered by priority, in which nothing runs after its deadline.

A slot is the right to one call of the engine. Callers with a thread of their own `enter` and `leave`; event loops
`submit` work, which a few worker threads run. Both wait in the same line. Deadlines are seconds of `time.monotonic()`.

The code of the line stands in `waiting_line`: a model's first answer, which waits for nobody, does not wait for it.
"""

from __future__ import annotations

import itertools
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, Final

from edge_runtime.inference.requests.accounting import Accounting

if TYPE_CHECKING:
    from queue import SimpleQueue

    from edge_runtime.inference.requests.turns import Refuse, Ticket, Turn, Work

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
        self.accounting = accounting or Accounting()
        self.free: deque[None] = deque([None] * slots)
        """One element for each free slot: taking and giving one is atomic, so the usual way needs no lock."""
        self.take = self.free.pop
        """Replaced when the line is closed."""
        self.give_back: Callable[[None], None] = self.free.append
        """What `leave` does first. In C: where it is called by itself no Ctrl-C comes before or into it."""
        self.is_awaited = False
        """Whether somebody waits. Set before a waiter looks for a slot once more, and read after one was given back:
        one of the two always sees the other."""
        self.lock = allocate_lock()  # not by `threading`, for which a first answer would wait
        """Guards everything below."""
        self.is_open = True
        self.line: list[tuple[int, int, Turn]] = []
        """Heap of priority, order of arrival, turn; some turns may be gone."""
        self.waiting = 0
        """Requests in the line."""
        self.soonest: float | None = None
        """No waiting turn has an earlier deadline."""
        self.numbers = itertools.count()
        self.idle_workers = 0
        self.when_idle: list[Callable[[], None]] = []
        self.pace_s = _FIRST_PACE_S
        self.last_turn: float | None = None

    @cached_property
    def ready(self) -> SimpleQueue[Turn | None]:
        """Where workers find their turns; first asked for with the lock held, by whoever starts the first worker."""
        from queue import SimpleQueue

        return SimpleQueue()

    @property
    def running(self) -> int:
        """Calls that hold a slot."""
        return self.slots - len(self.free)

    def enter(self, deadline: float | None = None, priority: int = 0) -> None:
        """Take a slot in the calling thread, waiting for it where none is free; `leave` must follow.

        Args:
            deadline: after it the request is refused instead.
            priority: a higher number is served first, equal ones in order of arrival.

        Raises:
            Refused: `DeadlinePassed`, `Overloaded` or `Closed`; no slot is taken.
        """
        if deadline is not None and not monotonic() < deadline:  # no number has passed as well
            from edge_runtime.inference.requests.waiting_line import refused_late

            raise refused_late(self)
        try:
            self.take()
        except IndexError:
            from edge_runtime.inference.requests.waiting_line import wait

            wait(self, deadline, priority)
        except BaseException:  # Ctrl-C is raised when the step has been done
            self.give_back(None)
            raise

    def leave(self) -> None:
        """Give a slot back, or on to whoever is next."""
        self.give_back(None)
        if self.is_awaited:
            self.settle()

    def settle(self) -> None:
        """Hand free slots to whoever is next, and tell those who wait for the end."""
        from edge_runtime.inference.requests.waiting_line import settle

        settle(self)

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
        from edge_runtime.inference.requests.waiting_line import submit

        return submit(self, work, refuse, deadline, priority)

    def on_idle(self, call: Callable[[], None]) -> None:
        """Call once, as soon as nothing runs or waits: at once, or in the thread of the last call."""
        from edge_runtime.inference.requests.waiting_line import on_idle

        on_idle(self, call)

    def wait_idle(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing runs or waits; False when that took longer."""
        from threading import Event

        ended = Event()
        self.on_idle(ended.set)
        return ended.wait(timeout_s)

    def close(self) -> None:
        """Refuse whoever waits and whoever comes; calls that run go on to their end."""
        from edge_runtime.inference.requests.waiting_line import close

        close(self)
