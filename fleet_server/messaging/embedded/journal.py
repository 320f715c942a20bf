"""What the broker's process says: one JSON line per event on stderr, which the server passes on to its own log.

Not structlog: it brings rich along, which would double this process's start time and memory.
"""

from __future__ import annotations

import sys

import msgspec


def say(event: str, **facts: str | int) -> None:
    """Write one event; never a payload, and control characters only escaped."""
    sys.stderr.write(msgspec.json.encode({"event": event, **facts}).decode() + "\n")
    sys.stderr.flush()


def say_of_client(event: str, *, client: str, detail: str = "") -> None:
    """Write one event of one client."""
    say(event, client=client, detail=detail)
