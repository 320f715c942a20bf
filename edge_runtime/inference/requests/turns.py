"""A place in the waiting line of a model, and the ticket by which its owner withdraws it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import Literal

from edge_runtime.inference.requests.refusals import Cancelled, DeadlinePassed, Refused

Work = Callable[[], None]
Refuse = Callable[[Refused], None]


class Turn:
    """A place in the line."""

    __slots__ = ("deadline", "joined", "refusal", "refuse", "state", "wake", "work")

    def __init__(self, deadline: float | None, joined: float) -> None:
        self.deadline = deadline
        self.joined = joined
        self.state: Literal["new", "waiting", "granted", "running", "gone"] = "new"
        self.work: Work | None = None
        self.refuse: Refuse | None = None
        self.wake: threading.Lock | None = None
        self.refusal: Refused | None = None

    def is_late(self, now: float) -> bool:
        """Whether it may no longer begin, at that second of `time.monotonic()`."""
        # Written so that a deadline that is no number has passed: nobody could wait for it.
        return self.deadline is not None and not now < self.deadline


class Ticket:
    """Submitted work, as its owner holds it."""

    __slots__ = ("_turn", "_withdraw")

    def __init__(self, turn: Turn, withdraw: Callable[[Turn, Refused], bool]) -> None:
        self._turn = turn
        self._withdraw = withdraw

    def cancel(self) -> bool:
        """Withdraw the work; True when it will not run (its `refuse` was called), False when it began or ended.

        Work whose deadline has passed counts as expired, any other as cancelled.
        """
        refusal = DeadlinePassed() if self._turn.is_late(monotonic()) else Cancelled()
        return self._withdraw(self._turn, refusal)
