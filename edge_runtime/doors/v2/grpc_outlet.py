"""Who sends over a gRPC client's socket: whoever has something to say while nothing waits, else the event loop."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from contextlib import suppress
from typing import final

from edge_runtime.doors.v2.sending import PARTS_MAX, Buffer, rest_of


@final
class Outlet:
    """The socket of one connection, beside the transport that the event loop has for it.

    Args:
        loop: sends what the socket does not take.
        lock: the connection's: what is sent first leaves first. Held by whoever calls `send`, `look_again` and `lose`.
    """

    __slots__ = ("_left", "_lock", "_loop", "_transport", "is_direct", "peer")

    def __init__(self, loop: asyncio.AbstractEventLoop, lock: threading.Lock) -> None:
        self._loop = loop
        self._lock = lock
        self._transport: asyncio.Transport | None = None
        self._left: list[Buffer] = []
        """What the socket did not take, for the transport."""
        self.peer: socket.socket | None = None
        """A second descriptor of the socket: no other can take its number while another thread reads or writes."""
        self.is_direct = False
        """Nothing waits to be sent: whoever has something may send it."""

    def open(self, transport: asyncio.Transport) -> None:
        """A client is here."""
        self._transport = transport
        theirs: socket.socket = transport.get_extra_info("socket")
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if transport.get_extra_info("sslcontext") is None:
            with suppress(OSError):  # no more descriptors: the event loop sends
                self.peer = socket.socket(fileno=os.dup(theirs.fileno()))
                self.is_direct = True

    def fileno(self) -> int:
        """The descriptor of the socket."""
        assert self.peer is not None
        return self.peer.fileno()

    def look_again(self) -> None:
        """See whether nothing waits any more, which only the event loop's thread can."""
        waits = self._left or self._transport is None or self._transport.get_write_buffer_size()
        self.is_direct = self.peer is not None and not waits

    def send(self, parts: list[Buffer]) -> None:
        """Send as much as the socket takes, and have the event loop send the rest."""
        if not parts:
            return
        sent = 0
        if self.is_direct and len(parts) <= PARTS_MAX:
            with suppress(OSError):
                # What is wrong with the socket, the loop will find.
                sent = os.writev(self.fileno(), parts)
        rest = rest_of(parts, sent)
        if rest:
            self.is_direct = False
            self._left += rest
            with suppress(RuntimeError):  # a loop that has ended has nobody to tell
                self._loop.call_soon_threadsafe(self.push)

    def push(self) -> None:
        """Leave to the transport what the socket did not take; on the event loop's thread, which holds no lock."""
        with self._lock:
            left, self._left = self._left, []
        if left and self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(left)

    def lose(self) -> None:
        """The client has gone: nothing is sent any more."""
        self.is_direct = False
        self._left.clear()

    def hang_up(self) -> None:
        """End the conversation, from any thread: whoever reads learns so at once."""
        peer = self.peer
        if peer is not None:
            with suppress(OSError):  # it has hung up itself
                peer.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor back: nobody reads from it any more."""
        with self._lock:
            if self.peer is not None:
                self.peer.close()
                self.peer = None
