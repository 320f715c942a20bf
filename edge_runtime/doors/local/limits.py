"""What the local door grants to one connection, and to all together."""

from __future__ import annotations

from dataclasses import dataclass

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one local door."""

    connections: int = 64
    """Each may have a thread of its own, and one call under way."""
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
