"""One slot's page in the journal: what a step writes before it acts, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edge_runtime.contract import reasons
from edge_runtime.contract.device_state import Reason
from edge_runtime.contract.errors import UpdateError
from edge_runtime.contract.ids import SlotId
from edge_runtime.update.home import Home
from edge_runtime.update.journal import SlotRecord
from edge_runtime.update.planner import Waiting, back_off_s
from edge_runtime.update.states import Attempt, Failed, RolledBack, SlotStatus, UpdateEvent

_RETRY_ATTEMPTS: Final = 6
"""An attempt that ended is not begun again before the pause after so many failures (16 to 32 s)."""


class SlotLedger:
    """The record that the present step works on; every write is checked against it, so a stale worker cannot act.

    Args:
        slot: the slot's name.
        home: journal, store and pointers.
        jitter: a number in [0, 1) for back-offs.
    """

    def __init__(self, slot: SlotId, home: Home, jitter: Callable[[], float]) -> None:
        self.slot = slot
        self._home = home
        self._jitter = jitter
        self.record: SlotRecord = home.journal.read(slot)

    def reload(self) -> SlotRecord:
        """Work on what the journal says now. Raises: UpdateError."""
        self.record = self._home.journal.read(self.slot)
        return self.record

    def advance(self, event: UpdateEvent, status: SlotStatus, now: float, *, taken_up: bool = False) -> None:
        """Move to the next state. Raises: as `Journal.advance`."""
        self.record = self._home.journal.advance(self.record, event, status, now, taken_up=taken_up)

    def note(self, status: SlotStatus, now: float) -> None:
        """Write new data in the same state. Raises: as `Journal.note`."""
        self.record = self._home.journal.note(self.record, status, now)

    def fail(self, attempt: Attempt, cause: Reason, now: float) -> None:
        """End an attempt that never touched the live model. Raises: as `Journal.advance`."""
        self.conclude(UpdateEvent.FAIL, Failed(attempt, cause), now)

    def conclude(self, event: UpdateEvent, status: Failed | RolledBack, now: float) -> None:
        """End an attempt badly; quarantined unless it was only superseded. Raises: as `Journal.advance`."""
        cause = status.reason
        quarantine = cause.code != reasons.SUPERSEDED
        self.record = self._home.journal.conclude(self.record, event, status, now, quarantine=quarantine)
        if cause.retryable:
            self.pause(cause.code, _RETRY_ATTEMPTS, now)
        if cause.code == reasons.DISK_FULL or not cause.retryable:
            self.collect_garbage()

    def pause(self, code: str, attempts: int, now: float) -> float:
        """Begin a back-off; returns its end. Raises: UpdateError."""
        until = now + back_off_s(attempts, self._jitter())
        self._home.journal.wait(self.slot, Waiting(code, until, attempts), now)
        return until

    def collect_garbage(self) -> None:
        """Remove what nothing can reach; a disk that refuses is no reason to change the outcome."""
        try:
            self._home.collect_garbage()
        except UpdateError:
            return
