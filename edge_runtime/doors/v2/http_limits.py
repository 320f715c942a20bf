"""What a stranger may take of a server over HTTP."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one door and of each of its clients."""

    body_bytes: int = 256 * 1024 * 1024
    """Of one request, as sent and unfolded."""
    bodies_bytes: int = 512 * 1024 * 1024
    """Of all requests at once."""
    connections: int = 256
    """Each holds two file descriptors, of which a process often may have 1024."""
    head_s: float = 10.0
    """From the first byte of a request to the end of its headers."""
    body_s: float = 20.0
    """For the body, and as much more as it takes at `body_bytes_per_s`."""
    body_bytes_per_s: float = 64 * 1024.0
    idle_s: float = 3600.0
    """Between requests; who comes once an hour need not connect again."""
    send_s: float = 60.0
    """For an answer that the client does not fetch."""
    linger_s: float = 2.0
    """In which a client that was refused while it still sends can read why."""
    keep_body_s: float = 5.0
    """After which an idle connection gives its buffer back."""
