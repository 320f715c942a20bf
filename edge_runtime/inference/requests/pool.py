"""Engine objects that take one caller each: made when first wanted, kept for the next caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar, final

_T = TypeVar("_T")


@final
class Pool(Generic[_T]):
    """At most so many objects; who wants one more waits until one is given back.

    Args:
        make: makes one; may raise.
        most: how many there may be.
        first: one that was made already.
    """

    def __init__(self, make: Callable[[], _T], most: int, first: _T) -> None:
        self._make = make
        self._left = most - 1
        self._free = [first]
        self._changed = threading.Condition()

    @contextmanager
    def borrowed(self) -> Iterator[_T]:
        """One object, for as long as the context lasts."""
        one = self._take()
        try:
            yield one
        finally:
            with self._changed:
                self._free.append(one)
                self._changed.notify()

    def _take(self) -> _T:
        with self._changed:
            while not self._free and self._left < 1:
                self._changed.wait()
            if self._free:
                return self._free.pop()
            self._left -= 1
        try:
            return self._make()
        except BaseException:
            with self._changed:
                self._left += 1
                self._changed.notify()
            raise
