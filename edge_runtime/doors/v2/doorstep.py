"""Clients whose TLS handshake is under way: no connection yet, and bounded in number and time like one."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_PAUSE_S: Final = 1.0
"""Before another try when this process is out of file descriptors."""


class Doorstep:
    """Accepts, and has a connection made of whoever finishes its handshake; lives on the event loop's thread.

    Args:
        listener: listens already.
        context: certificate and key.
        make: a connection, for a client that has shaken hands.
        turned_away: is told of each that was ended.
    """

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.BufferedProtocol],
        turned_away: Callable[[], None],
    ) -> None:
        self._listener = listener
        self._context = context
        self._make = make
        self._turned_away = turned_away
        self._shaking: dict[asyncio.Task[None], None] = {}
        """In the order in which they came."""

    async def accept_all(self, most: int, handshake_s: float) -> None:
        """Let clients in until cancelled.

        Args:
            most: may be at it. One more ends the oldest: whoever only opens sockets keeps nobody out for longer than
                that takes.
            handshake_s: for how long each may be at it.
        """
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    peer, _ = await loop.sock_accept(self._listener)
                except OSError:
                    await asyncio.sleep(_PAUSE_S)
                    continue
                if len(self._shaking) >= most:
                    oldest = next(iter(self._shaking))
                    # Now, not when it has ended: several may come before the loop gets round to that.
                    del self._shaking[oldest]
                    oldest.cancel()
                    self._turned_away()
                task = loop.create_task(self._shake_hands(loop, peer, handshake_s))
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

    async def _shake_hands(self, loop: asyncio.AbstractEventLoop, peer: socket.socket, handshake_s: float) -> None:
        with suppress(OSError):  # among them ssl.SSLError and TimeoutError
            await loop.connect_accepted_socket(self._make, peer, ssl=self._context, ssl_handshake_timeout=handshake_s)
