"""One request over HTTP while it is under way."""

from __future__ import annotations

import asyncio

from edge_runtime.doors.v2.http_parser import Head
from edge_runtime.serving.calls import Ticket


class Exchange:
    """One request under way, between event loop and workers."""

    __slots__ = ("alarm", "asked_at", "head", "is_direct", "is_gone", "left_us", "status", "ticket")

    def __init__(self, head: Head) -> None:
        self.head = head
        self.is_gone = False
        """Nobody waits for the answer any more."""
        self.is_direct = False
        """Nothing waits to be sent before its answer: a worker may send it."""
        self.status = 0
        """Of its answer."""
        self.asked_at = 0.0
        """When a model was asked, `time.monotonic()` seconds; 0: none was."""
        self.left_us = 0
        """Microseconds until its deadline then; 0: it has none."""
        self.ticket: Ticket | None = None
        self.alarm: asyncio.TimerHandle | None = None

    def withdraw(self) -> bool:
        """Cancel it if it waits; True when it will not run."""
        return self.ticket is not None and self.ticket.cancel()

    def end(self) -> None:
        """It is over: nothing may keep its tensors, whose memory the next request takes."""
        self.is_gone = True
        if self.alarm is not None:
            self.alarm.cancel()
        self.ticket = self.alarm = None
