"""How much a client may send unasked over one HTTP/2 connection: flow control of what comes is ours (ADR 0023)."""

from __future__ import annotations

from typing import Final, final

from edge_runtime.doors.v2 import http2_cutter as frames
from edge_runtime.doors.v2.grpc_stream import Stream
from edge_runtime.doors.v2.http2_cutter import BrokenProtocol
from edge_runtime.doors.v2.http2_library import STREAM_WINDOW
from edge_runtime.doors.v2.http2_sender import Sender

_CONNECTION_WINDOW: Final = 1 << 30
"""So much that it stops nobody: what calls may take is bounded by their messages."""
_OWED_MAX: Final = 1 << 26
_FIRST_WINDOW: Final = 65_535
"""RFC 9113, 6.9.2: of a connection that nobody has said anything of."""


@final
class ReceiveWindows:
    """That of the connection, opened whatever becomes of what came, and those of its calls.

    Args:
        sender: tells the client how far they are open.
    """

    __slots__ = ("_left", "_owed", "_sender")

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._left = _CONNECTION_WINDOW
        self._owed = 0
        self._tell(0, _CONNECTION_WINDOW - _FIRST_WINDOW)

    def came(self, size: int) -> None:
        """So many bytes, of whichever call. Raises: BrokenProtocol: more than there was room for."""
        self._left -= size
        if self._left < 0:
            raise BrokenProtocol(frames.FLOW_CONTROL_ERROR)
        self._owed += size
        if self._owed > _OWED_MAX:
            self._tell(0, self._owed)
            self._left += self._owed
            self._owed = 0

    def open(self, stream: Stream) -> None:
        """Let the client go on with a call, unless a message of it waits already, or nothing more is wanted."""
        owed = STREAM_WINDOW - stream.window
        if owed >= STREAM_WINDOW // 2 and not stream.unread and not (stream.is_deaf or stream.has_ended):
            stream.window += owed
            self._tell(stream.number, owed)

    def _tell(self, number: int, count: int) -> None:
        self._sender.frame(frames.WINDOW_UPDATE, 0, number, count.to_bytes(4, "big"))
