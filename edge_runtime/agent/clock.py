"""The one place where the agent reads a clock: wall time with the device's offset, and trusted time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edge_runtime.trust.trusted_time import TimeFloor


class AgentClock:
    """Wall clock, monotonic clock and what was proven about time. Thread-safe.

    Args:
        offset_s: added to the system clock.
        floor: what was proven before this start.
        keep_floor: stores a risen floor durably before it is relied on.
    """

    def __init__(self, offset_s: float, floor: TimeFloor, keep_floor: Callable[[float], None]) -> None:
        self._offset_s = offset_s
        self._floor = floor
        self._keep_floor = keep_floor
        self._signed: tuple[float, float] | None = None
        self._lock = threading.Lock()

    def system(self) -> float:
        """What this device's clock says, believable or not, seconds since 1970."""
        return time.time() + self._offset_s

    def monotonic(self) -> float:
        """Seconds that never jump; for time-outs and rates only."""
        return time.monotonic()

    def now(self) -> float:
        """Trusted time, seconds since 1970: for expiry, deadlines and everything that is reported."""
        with self._lock:
            signed_s = None
            if self._signed is not None:
                time_s, at_monotonic = self._signed
                signed_s = time_s + (time.monotonic() - at_monotonic)
            return self._floor.now(self.system(), signed_s)

    def certain(self) -> float:
        """A time that has certainly passed: for judging whoever could tell this device the time.

        A clock that runs ahead would otherwise make every certificate and timestamp look expired, and the signed
        time that corrects it could never be believed.
        """
        with self._lock:
            known = self._signed is not None
            certain_s = self._floor.proven_s
        return self.now() if known else certain_s

    def learn(self, signed_s: float) -> None:
        """Take over a time that the director has just signed for our nonce.

        Raises:
            UpdateError: the floor could not be stored.
        """
        with self._lock:
            raised = self._floor.raised(signed_s)
            # Written at most hourly: each write is an fsync, and an hour of floor is an hour of replay at worst.
            if raised.floor_s - self._floor.floor_s >= 3600.0:
                self._keep_floor(raised.floor_s)
                self._floor = raised
            self._signed = (signed_s, time.monotonic())
