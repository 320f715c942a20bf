"""Requests that were turned away without running; a door maps each to its protocol's own error by `code`."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final, TypeVar

from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import INTERNAL

DEADLINE: Final = "deadline"
CANCELLED: Final = "cancelled"
OVERLOADED: Final = "overloaded"
CLOSED: Final = "closed"

_T = TypeVar("_T")


def unforeseen(error: Exception) -> InferenceError:
    """What whoever waits for an answer hears of an error that nobody expected."""
    return InferenceError("answer", f"{type(error).__name__}: {shown(str(error))}", code=INTERNAL)


def outcome_of(work: Callable[[], _T]) -> _T | EdgeError:
    """What some work returns, or the error of which whoever waits for it hears, whatever it raised."""
    try:
        return work()
    except EdgeError as error:
        return error
    except Exception as error:  # noqa: BLE001 (nobody may wait for ever)
        return unforeseen(error)


class Refused(InferenceError):
    """A request that did not run; asking again later may succeed."""


class DeadlinePassed(Refused):
    """The answer would have come too late, so the model was not asked."""

    default_code: ClassVar[str] = DEADLINE

    def __init__(self, because: str = "its deadline has passed") -> None:
        super().__init__("answer the request", because, "allow it more time or send fewer requests")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.because,))


class Cancelled(Refused):
    """The caller withdrew the request before it ran."""

    default_code: ClassVar[str] = CANCELLED

    def __init__(self, because: str = "it was cancelled") -> None:
        super().__init__("answer the request", because)

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.because,))


class Overloaded(Refused):
    """More requests wait than the queue may hold."""

    default_code: ClassVar[str] = OVERLOADED

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        self.waiting = waiting
        self.retry_after_s = retry_after_s
        """Time until the queue will probably have room."""
        super().__init__(
            "answer the request",
            f"{waiting} requests wait already",
            f"ask again in about {retry_after_s:.3g} s",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.waiting, self.retry_after_s))


class Closed(Refused):
    """The model was closed before the request could run."""

    default_code: ClassVar[str] = CLOSED

    def __init__(self) -> None:
        super().__init__("answer the request", "the model was closed", "open it again")

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), ())
