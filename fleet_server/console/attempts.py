"""How often somebody may try to log in: failures are counted per source and over all sources."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class AttemptLimits:
    """Failed attempts that are answered within one window; the next one waits."""

    per_source: int = 10
    overall: int = 100
    window_s: float = 60.0


DEFAULT_LIMITS: Final = AttemptLimits()


class Attempts:
    """Remembers recent failures; its memory is bounded by the overall limit."""

    def __init__(self, limits: AttemptLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._failures: deque[tuple[float, str]] = deque()
        self._guard = threading.Lock()

    def wait_s(self, source: str, now: float) -> float:
        """Seconds until this source may try again; 0 when it may try now."""
        with self._guard:
            self._forget(now)
            own = [at for at, who in self._failures if who == source]
            blocking = []
            if len(own) >= self._limits.per_source:
                blocking.append(own[-self._limits.per_source])
            if len(self._failures) >= self._limits.overall:
                blocking.append(self._failures[-self._limits.overall][0])
            return max((at + self._limits.window_s - now for at in blocking), default=0.0)

    def failed(self, source: str, now: float) -> None:
        """Count a failure."""
        with self._guard:
            self._forget(now)
            self._failures.append((now, source))

    def _forget(self, now: float) -> None:
        while self._failures and self._failures[0][0] <= now - self._limits.window_s:
            self._failures.popleft()
