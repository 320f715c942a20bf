"""Engine objects that take one caller each: made when first wanted, kept for the next caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar, final

_T = TypeVar("_T")
_LOOK_S: Final = 0.5
"""After which a waiter looks itself: Ctrl-C may have kept whoever gave one back from saying so."""


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
            # First, and by itself: no Ctrl-C comes before it (as `Admission.give_back`).
            self._free.append(one)
            with self._changed:
                self._changed.notify()

    def _take(self) -> _T:
        while True:
            try:
                return self._free.pop()
            except IndexError:
                pass
            except BaseException:
                # Ctrl-C, as soon as it was taken: that one is gone, and another may be made.
                self._left += 1
                raise
            with self._changed:
                if self._left > 0:
                    self._left -= 1
                    break
                if not self._free:
                    self._changed.wait(_LOOK_S)
        try:
            return self._make()
        except BaseException:
            with self._changed:
                self._left += 1
                self._changed.notify()
            raise
