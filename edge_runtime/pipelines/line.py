"""The waiting line between two threads: bounded; files wait for room, live frames push out the oldest."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Line(Generic[_T]):
    """A bounded queue with an end.

    Args:
        limit: how many may wait.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[tuple[_T, bool]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many live items were pushed out by newer ones."""
        with self._changed:
            return self._dropped

    def put(self, item: _T, *, is_live: bool) -> None:
        """Wait in line. When it is full, a live item takes the place of the oldest live one; others wait for room."""
        with self._changed:
            while len(self._waiting) >= self._limit and not self._ended:
                if is_live and self._drop_oldest_live():
                    break
                self._changed.wait()
            if not self._ended:
                self._waiting.append((item, is_live))
                self._changed.notify_all()

    def take(self) -> _T | None:
        """The oldest item, waited for; None after the last one."""
        return next(iter(self.take_some(1)), None)

    def take_some(self, most: int) -> list[_T]:
        """The oldest items, as many as there are up to a number, the first waited for; empty after the last one."""
        with self._changed:
            while not self._waiting and not self._ended:
                self._changed.wait()
            items = [self._waiting.popleft()[0] for _ in range(min(most, len(self._waiting)))]
            self._changed.notify_all()
            return items

    def end(self) -> None:
        """Nothing more comes; what waits is still handed out."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _drop_oldest_live(self) -> bool:
        for place, (_, is_live) in enumerate(self._waiting):
            if is_live:
                del self._waiting[place]
                self._dropped += 1
                return True
        return False
