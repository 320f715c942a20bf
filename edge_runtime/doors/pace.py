"""How a client asks: whether its questions are so short and so many that it should share a thread with others."""

from __future__ import annotations

from typing import Final

SHORT_S: Final = 100e-6
"""Up to here an answer costs less than what threads cost that fight for the interpreter; longer ones gain from them."""
WINDOW: Final = 32
"""Questions after which the pace is judged anew."""
OFTEN_S: Final = 0.4
"""Within which so many questions must come: who waits for every frame of a camera leaves a thread idle and no more."""
HURRIED_US: Final = 100_000
"""Whose deadline is nearer has no time to wait for another's slow answer, which nobody would count as waiting."""


def left_us(deadline: float | None, now: float) -> int:
    """Microseconds until a deadline, at least one, as `Pace.note` takes them; 0: there is none."""
    return 0 if deadline is None else max(1, int((deadline - now) * 1e6))


class Pace:
    """The pace of one client.

    The shortest answer counts, because others are interrupted by whatever else the machine does. Who is brisk may
    become half as fast before it no longer is.

    Args:
        short_s: up to where an answer is short; None: where nothing but the model takes time.
    """

    __slots__ = ("_count", "_short_s", "_shortest_s", "_since", "is_brisk")

    def __init__(self, short_s: float | None = None) -> None:
        self.is_brisk = False
        self._count = 0
        self._since = 0.0
        self._short_s = SHORT_S if short_s is None else short_s
        self._shortest_s = self._short_s

    def note(self, began: float, ended: float, left_us: int = 0) -> None:
        """One answer, from the question to the end.

        Args:
            began: `time.monotonic()` seconds.
            ended: likewise.
            left_us: microseconds until its deadline; 0: none.
        """
        if 0 < left_us < HURRIED_US:
            return
        if not self._count:
            self._since = began
            self._shortest_s = ended - began
        elif ended - began < self._shortest_s:
            self._shortest_s = ended - began
        self._count += 1
        if self._count == WINDOW:
            slack = 2 if self.is_brisk else 1
            self.is_brisk = self._shortest_s <= slack * self._short_s and ended - self._since <= slack * OFTEN_S
            self._count = 0
