"""Which time to believe on a device whose clock may be dead (1970), wrong or lied to."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

PLAUSIBLE_AHEAD_S: Final = 2 * 365.25 * 86400.0
"""A system clock further than this beyond the last proven time is not believed."""

SIGNED_TOLERANCE_S: Final = 300.0
"""How far the system clock may run ahead of a time the server has just signed."""


@dataclass(frozen=True, slots=True)
class TimeFloor:
    """The latest times (seconds since 1970) that were proven: when this software was built, and what was signed since.

    The caller keeps `floor_s` in its durable store. It rises by signed time alone, never by the system clock: a
    clock that was wrong once would otherwise make every signature look expired until the real time caught up.
    """

    build_s: float
    floor_s: float = 0.0

    @property
    def proven_s(self) -> float:
        """A time that has certainly passed. Judge by it, not by `now`, the keys that sign the *first* time answer.

        A clock that runs a month ahead would otherwise make the timestamp look expired, and the signed time that
        corrects the clock could never be believed.
        """
        return max(self.build_s, self.floor_s)

    def now(self, system_s: float, signed_s: float | None = None) -> float:
        """The time to judge expiry by; see `trusted_now`."""
        return trusted_now(system_s, self.build_s, self.floor_s, signed_s)

    def raised(self, signed_s: float) -> TimeFloor:
        """The floor after a verified SignedTime (or an accepted assignment's `issued`); it never falls."""
        return TimeFloor(self.build_s, max(self.floor_s, signed_s)) if math.isfinite(signed_s) else self


def trusted_now(system_s: float, build_s: float, floor_s: float, signed_s: float | None = None) -> float:
    """The latest of the believable times, in seconds since 1970.

    Args:
        system_s: the system clock.
        build_s: when this software was built; nothing it meets happens earlier.
        floor_s: the highest time that was proven before (`TimeFloor.floor_s`).
        signed_s: time the director signed for this device's nonce, advanced by the monotonic clock since then.

    A system clock beyond floor + 2 years, or ahead of a signed time, is left out; one that is behind changes nothing.
    """
    proven_s = max(build_s, floor_s)
    ahead_s = PLAUSIBLE_AHEAD_S
    if signed_s is not None and math.isfinite(signed_s):
        # Fresh and bound to our nonce: it outranks a clock that anyone on the network may have set.
        proven_s = max(proven_s, signed_s)
        ahead_s = SIGNED_TOLERANCE_S
    believable = math.isfinite(system_s) and system_s <= proven_s + ahead_s
    return max(system_s, proven_s) if believable else proven_s
