"""How long to wait before something that failed is tried again (pure)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that double up to a cap, each shortened by up to a third so that devices do not act in step."""

    first_s: float = 1.0
    cap_s: float = 300.0

    def delay_s(self, failures: int, jitter: float) -> float:
        """The wait after so many failures in a row (at least one).

        Args:
            failures: how often it failed.
            jitter: 0 ≤ jitter < 1, drawn for this wait.
        """
        # 2 to the 40th first waits exceed any cap, and a float cannot overflow on the way there.
        longest = min(self.cap_s, self.first_s * 2.0 ** min(failures - 1, 40))
        return longest * (1 - jitter / 3)
