"""Connections that threads share: each call has one for itself, and leaves it to the next."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from edge_runtime.client.errors import ServerGone


class Closable(Protocol):
    """What can be closed."""

    def close(self) -> None:
        """Give it up; safe to repeat."""


C = TypeVar("C", bound=Closable)


class Pool(Generic[C]):
    """As many connections as calls were ever under way at once; the last one used is the first to be used again.

    Args:
        open_one: makes a new connection.
    """

    def __init__(self, open_one: Callable[[], C]) -> None:
        self._open_one = open_one
        self._free: list[C] = []
        self._is_open = True
        self._lock = threading.Lock()

    def take(self) -> tuple[C, bool]:
        """A connection, and whether it was used before. Raises: what opening one raises."""
        try:
            # One operation of the interpreter: no lock is needed.
            return self._free.pop(), True
        except IndexError:
            pass
        return self.open(), False

    def open(self) -> C:
        """A new connection. Raises: ServerGone: the pool was closed; and what opening one raises."""
        if not self._is_open:
            raise ServerGone("ask a model", "this client was closed", "connect again")
        return self._open_one()

    def give_back(self, connection: C) -> None:
        """Leave a sound connection to the next call."""
        if self._is_open:
            self._free.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close those that nobody uses, and the others when they come back."""
        with self._lock:
            self._is_open = False
            while self._free:
                self._free.pop().close()
