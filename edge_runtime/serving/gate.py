"""Counts who is inside, so that whoever wants to tear a model down waits for them and lets nobody else in."""

from __future__ import annotations

import threading


class Gate:
    """Open until closed for good; entering and leaving cost a fraction of a microsecond."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._is_open = True

    @property
    def inside(self) -> int:
        """How many have entered and not left."""
        return self._inside

    def enter(self) -> bool:
        """Whether one may come in; who came in must leave."""
        with self._changed:
            if self._is_open:
                self._inside += 1
            return self._is_open

    def leave(self) -> None:
        """One goes out."""
        with self._changed:
            self._inside -= 1
            if not self._is_open and self._inside == 0:
                self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more; who is inside stays."""
        with self._changed:
            self._is_open = False

    def drain(self, timeout_s: float | None = None) -> bool:
        """Close and wait until everybody has left; False when somebody is still inside after `timeout_s`."""
        with self._changed:
            self._is_open = False
            return self._changed.wait_for(lambda: self._inside == 0, timeout_s)
