"""What the local door grants: bounds for one connection, and budgets that all connections share."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from edge_runtime.contract.errors import InferenceError

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one local door."""

    connections: int = 64
    """Each has a thread of its own, and one call under way."""
    regions: int = 16
    """Mapped at once, of one connection; 0: no shared memory."""
    region_max_bytes: int = 1024 * _MIB
    mapped_max_bytes: int = 4096 * _MIB
    """Of all connections together."""
    body_max_bytes: int = 256 * _MIB
    """Of one call's tensors in the stream."""
    bodies_max_bytes: int = 1024 * _MIB
    """Memory for tensors from the streams of all connections together."""
    step_s: float = 10.0
    """How long a peer may need for one message once it has begun, and to take its answer."""
    remembered: int = 32
    """Heads of calls of one connection whose meaning is kept."""


class Budget:
    """An amount that many take from and give back to."""

    def __init__(self, total: int, what: str) -> None:
        self._left = total
        self._what = what
        self._lock = threading.Lock()

    def take(self, amount: int) -> None:
        """Take a part of it. Raises: InferenceError, code `overloaded`: the rest is smaller."""
        with self._lock:
            if amount > self._left:
                raise InferenceError(
                    f"take {amount} bytes of {self._what}",
                    f"{self._left} are left for all callers",
                    "try again later, or send less at once",
                    code="overloaded",
                )
            self._left -= amount

    def give_back(self, amount: int) -> None:
        """Return what was taken."""
        with self._lock:
            self._left += amount
