"""Sending in parts, past a transport that would join them first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

PARTS_MAX: Final = 64
"""Buffers in one system call; Linux takes 1024."""

Buffer = bytes | bytearray | memoryview
"""A part of what is sent."""


def rest_of(parts: Sequence[Buffer], sent: int) -> list[Buffer]:
    """What is left of them when so many bytes are gone."""
    for place, part in enumerate(parts):
        if sent < len(part):
            return [memoryview(part)[sent:], *parts[place + 1 :]]
        sent -= len(part)
    return []
