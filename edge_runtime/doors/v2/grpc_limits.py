"""What a stranger may take of the gRPC door."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RPCS_MAX: Final = 128
"""Calls under way, waiting ones included: each may hold a message. One more is refused."""

STREAMS_MAX: Final = 64
"""Streams among them: an idle one keeps its thread."""


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """Bounds of one door and of each of its clients."""

    message_max_bytes: int = 64 * 1024 * 1024
    """Longest message, in and out: each call under way may hold one."""
    patience_s: float = 60.0
    """For a message to come whole once it is due: one that never does would keep its place for ever."""
    connections: int = 256
    """Each holds two file descriptors, of which a process often may have 1024."""
    handshake_s: float = 10.0
    """For TLS and HTTP/2 to shake hands."""
    send_s: float = 60.0
    """For an answer that the client does not fetch: in which something of it moves, and as much more for all of it as
    that takes at `send_bytes_per_s`."""
    send_bytes_per_s: float = 64 * 1024.0
    linger_s: float = 2.0
    """In which a client can read why its connection ends, and hang up."""
    keep_body_s: float = 5.0
    """After which an idle connection gives its buffer back."""
