"""Whether a client of an event loop is lent to the round: where its questions come and are answered by one thread."""

from __future__ import annotations

import time
from typing import Final, final

from edge_runtime.doors.pace import Pace

SHORT_S: Final = 2e-3
"""From a question to its answer by a worker: up to here it may be one that is quicker answered where it was read."""
SHORT_HERE_S: Final = 250e-6
"""What the model may take of that there: as much as two changes of threads cost, and so long others wait for it."""
_STAYS_S: Final = 10.0
"""For which a client is not lent that was given back because it kept the others."""


@final
class Loan:
    """Of one client; what is noted at home, and what in the round, comes from one thread each."""

    __slots__ = ("_at_home", "_in_round", "_stays_until")

    def __init__(self) -> None:
        self._at_home = Pace(SHORT_S)
        self._in_round = self._at_home
        self._stays_until = 0.0

    @property
    def is_due(self) -> bool:
        """Whether the client asks so that it should be lent."""
        return self._at_home.is_brisk and time.monotonic() >= self._stays_until

    def note(self, began: float, ended: float, left_us: int = 0) -> None:
        """One answer at home, as `Pace.note`."""
        self._at_home.note(began, ended, left_us)

    def begin(self) -> None:
        """It is lent from now on."""
        self._in_round = Pace(SHORT_HERE_S)
        self._in_round.is_brisk = True

    def goes_on(self, began: float, took_s: float, left_us: int = 0) -> bool:
        """One answer in the round, for which the model took so long: whether the client may stay there."""
        self._in_round.note(began, began + took_s, left_us)
        if not self._in_round.is_brisk:
            self.stay()
        return self._in_round.is_brisk

    def stay(self) -> None:
        """It is not to be lent for a while."""
        self._stays_until = time.monotonic() + _STAYS_S

    def end(self) -> None:
        """It is back."""
        self._at_home = Pace(SHORT_S)
