"""What a door counts whose requests are answered on many threads."""

from __future__ import annotations

import threading
from typing import final

from edge_runtime.doors.door import DoorStatistics


@final
class Tally:
    """Requests and clients of one door, by what became of them; any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered = self._refused = self._turned_away = 0

    def answered(self) -> None:
        """A request got what it asked for."""
        with self._lock:
            self._answered += 1

    def refused(self) -> None:
        """A request got an error."""
        with self._lock:
            self._refused += 1

    def turned_away(self) -> None:
        """A client was not let in."""
        with self._lock:
            self._turned_away += 1

    def read(self, connections: int) -> DoorStatistics:
        """Everything so far; so many are connected now."""
        with self._lock:
            return DoorStatistics(self._answered, self._refused, self._turned_away, connections)
