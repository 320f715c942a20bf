"""Memory that all clients of a door share: whoever comes when it is gone is told to come again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from edge_runtime.contract.errors import InferenceError


class Budget:
    """An amount that many take from and give back to."""

    def __init__(self, total: int, what: str) -> None:
        self._left = total
        self._what = what
        self._lock = threading.RLock()
        """What is collected while it is held may give back."""

    def take(self, amount: int) -> None:
        """Take a part of it. Raises: InferenceError, code `overloaded`: the rest is smaller."""
        with self._lock:
            if amount > self._left:
                raise InferenceError(
                    f"take {amount} bytes of {self._what}",
                    f"{self._left} are left for all callers",
                    "try again later, or send less at once",
                    code="overloaded",
                )
            self._left -= amount

    def give_back(self, amount: int) -> None:
        """Return what was taken."""
        with self._lock:
            self._left += amount

    @contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        """A part of it for as long as the `with` block lasts. Raises: as `take`."""
        self.take(amount)
        try:
            yield
        finally:
            self.give_back(amount)
