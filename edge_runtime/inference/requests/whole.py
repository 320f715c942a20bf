"""Steps of a waiting line that Ctrl-C must not split: it comes when they have ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from types import FrameType, TracebackType
from typing import Final, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MAIN: Final = threading.main_thread().ident
"""The only thread in which a signal raises."""


def whole(step: Callable[_P, _T]) -> Callable[_P, _T]:
    """The same step, which Ctrl-C meets before it or after it."""

    @wraps(step)
    def in_one_piece(*args: _P.args, **named: _P.kwargs) -> _T:
        if threading.get_ident() != _MAIN:
            return step(*args, **named)
        from signal import SIGINT, default_int_handler, getsignal  # not for a first answer, which needs none of this

        # Other answers to the signal than Python's own do not raise where they like, or their owner wants them to.
        if getsignal(SIGINT) is not default_int_handler:
            return step(*args, **named)
        with _Held():
            return step(*args, **named)

    return in_one_piece


class _Held:
    """Keeps SIGINT back, in the main thread."""

    __slots__ = ("_has_come",)

    def __enter__(self) -> None:
        from signal import SIGINT, default_int_handler, signal

        self._has_come = False
        try:
            signal(SIGINT, self._note)
        except BaseException:  # raised by what another signal does, maybe after the change
            signal(SIGINT, default_int_handler)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        from signal import SIGINT, default_int_handler, signal

        try:
            signal(SIGINT, default_int_handler)
        except BaseException:
            signal(SIGINT, default_int_handler)
            raise
        if self._has_come:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._has_come = True
