"""Work that nobody waits for: freeing models, trying again later."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

Job = Callable[[], object]

_NO_THREAD_S: Final = 0.1
"""How long a job waits where the system has no thread to give, before it asks for one again."""


class Caretaker:
    """Runs each job in a thread of its own, so that one which hangs in an engine holds up no other.

    No call of it fails: a job for which there is no thread now gets one when there is.
    """

    def __init__(self) -> None:
        self.is_closed = False
        """Whether it takes on nothing more that has to wait for its time."""
        _CLOCK.wind_up()

    def soon(self, job: Job) -> None:
        """Run a job now, whether or not the host is closing."""
        _CLOCK.start(job)

    def after(self, delay_s: float, job: Job) -> None:
        """Run a job later; never once `close` was called."""
        _CLOCK.put(delay_s, job, self)

    def close(self) -> None:
        """Forget the jobs whose time has not come."""
        self.is_closed = True
        _CLOCK.forget(self)


class _Clock:
    """Starts jobs whose time has come. Its thread is taken before it is needed: later there may be none to be had."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Job, Caretaker | None]] = []
        """Heap of when, in `time.monotonic()` seconds, and what; the number keeps the order, the last is whose it is.
        """
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        """Guards all of this."""
        self._is_going = False

    def wind_up(self) -> None:
        """Begin, unless it goes already. Raises: RuntimeError: the system has no thread to give."""
        with self._changed:
            if not self._is_going:
                threading.Thread(target=self._run, name="serving-clock", daemon=True).start()
                self._is_going = True

    def start(self, job: Job, owner: Caretaker | None = None) -> None:
        """Run it in a thread of its own, as soon as there is one and unless its owner closes before."""
        try:
            threading.Thread(target=job, name="serving-job", daemon=True).start()
        except (RuntimeError, MemoryError):
            self.put(_NO_THREAD_S, job, owner)

    def put(self, delay_s: float, job: Job, owner: Caretaker | None = None) -> None:
        """Start it so much later, unless its owner closes before."""
        with self._changed:
            if owner is not None and owner.is_closed:
                return
            heapq.heappush(self._due, (monotonic() + delay_s, next(self._numbers), job, owner))
            self._changed.notify()

    def forget(self, owner: Caretaker) -> None:
        """Drop what waits for its time on behalf of one who has closed."""
        with self._changed:
            self._due = [one for one in self._due if one[3] is not owner]
            heapq.heapify(self._due)

    def _run(self) -> None:
        while True:
            # Kept nowhere here: until the next one comes, it would hold the model that it freed.
            self.start(*self._next())

    def _next(self) -> tuple[Job, Caretaker | None]:
        """The next job when its time has come, and whose it is."""
        with self._changed:
            while True:
                left_s = self._due[0][0] - monotonic() if self._due else threading.TIMEOUT_MAX
                if left_s <= 0:
                    return heapq.heappop(self._due)[2:]
                self._changed.wait(min(left_s, threading.TIMEOUT_MAX))


_CLOCK: Final = _Clock()
"""One for the process: hosts and slots come and go, and what they leave behind still has to be freed."""
