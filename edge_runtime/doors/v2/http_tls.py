"""Clients whose TLS handshake is under way: no connection yet, and bounded in number and time like one."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from edge_runtime.doors.v2.http_connection import HttpLimits

_PAUSE_S: Final = 1.0
"""Before another try when this process is out of file descriptors."""


class Doorstep:
    """Accepts, and has a connection made of whoever finishes its handshake; lives on the event loop's thread.

    Args:
        listener: listens already.
        context: certificate and key.
        make: a connection, for a client that has shaken hands.
        limits: as many may be at it as may be connected, for as long as a request's head may take. One more ends the
            oldest: whoever only opens sockets keeps nobody out for longer than that takes.
        turned_away: is told of each that was ended.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.BufferedProtocol],
        limits: HttpLimits,
        turned_away: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._context = context
        self._make = make
        self._limits = limits
        self._turned_away = turned_away
        self._shaking: dict[asyncio.Task[None], None] = {}
        """In the order in which they came."""

    async def accept_all(self) -> None:
        """Let clients in until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    peer, _ = await loop.sock_accept(self._listener)
                except OSError:
                    await asyncio.sleep(_PAUSE_S)
                    continue
                if len(self._shaking) >= self._limits.connections:
                    oldest = next(iter(self._shaking))
                    # Now, not when it has ended: several may come before the loop gets round to that.
                    del self._shaking[oldest]
                    oldest.cancel()
                    self._turned_away()
                task = loop.create_task(self._shake_hands(loop, peer))
                self._shaking[task] = None
                task.add_done_callback(lambda task: self._shaking.pop(task, None))
                # Its turn: accepting does not wait where somebody is there, and one that never began would not close.
                await asyncio.sleep(0)
        finally:
            self._listener.close()
            for task in self._shaking:
                task.cancel()
            if self._shaking:
                await asyncio.wait(self._shaking)

    async def _shake_hands(self, loop: asyncio.AbstractEventLoop, peer: socket.socket) -> None:
        with suppress(OSError):  # among them ssl.SSLError and TimeoutError
            await loop.connect_accepted_socket(
                self._make, peer, ssl=self._context, ssl_handshake_timeout=self._limits.head_s
            )
