"""What a server sends over HTTP/2: headers that need no table, and tensors that are not copied.

Of the header compression only what stands for itself is used, so that the same headers are the same bytes to every
client at every time (HPACK: RFC 7541, 6.2.2 and 6.3).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, final

import h2.connection

from edge_runtime.doors.v2 import http2_cutter as frames
from edge_runtime.doors.v2.grpc_head import HEAD, SUCCESS, Header
from edge_runtime.doors.v2.grpc_stream import Stream
from edge_runtime.doors.v2.sending import Buffer

_FRAME: Final = struct.Struct(">HBBBI")
"""Length in 16 + 8 bits, kind, flags, stream."""
_NO_TABLE: Final = b"\x20"
"""Size of the table in which headers are remembered: none. It is told once, before the first headers."""


@final
class Sender:
    """Frames of one connection that are to be sent.

    Args:
        wire: knows the windows that the client has opened.
    """

    def __init__(self, wire: h2.connection.H2Connection) -> None:
        self._wire = wire
        self._out: list[Buffer] = []
        self._before_headers = _NO_TABLE
        self.is_held = False
        """Nobody fetches what is sent: no more of it for now."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be sent."""
        return not self._out

    def take(self) -> list[Buffer]:
        """What is to be sent now."""
        out, self._out = self._out, []
        return out

    def collect(self) -> None:
        """Add what the library has to say."""
        if said := self._wire.data_to_send():
            self._out.append(said)

    def frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Add a frame."""
        self._out.append(_FRAME.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, number) + payload)

    def begin(self, stream: Stream) -> None:
        """Say that an answer begins, unless that has been said."""
        if not stream.has_begun:
            stream.has_begun = True
            self._block(stream.number, _HEAD_BLOCK, frames.END_HEADERS)

    def end(self, number: int, headers: tuple[Header, ...]) -> None:
        """Say how a call ended."""
        block = _SUCCESS_BLOCK if headers is SUCCESS else _block(headers)
        self._block(number, block, frames.END_HEADERS | frames.END_STREAM)

    def pump(self, stream: Stream, now: float) -> None:
        """Add what the client's windows let through of its queue."""
        wire = self._wire
        while stream.pending and not self.is_held:
            flow = wire.streams[stream.number]
            size = min(
                stream.pending,
                wire.max_outbound_frame_size,
                flow.outbound_flow_control_window,
                wire.outbound_flow_control_window,
            )
            if size <= 0:
                return
            wire.outbound_flow_control_window -= size
            flow.outbound_flow_control_window -= size
            stream.pending -= size
            stream.sent += size
            stream.moved_at = now
            self._out.append(_FRAME.pack(size >> 8, size & 0xFF, frames.DATA, 0, stream.number))
            self._move(stream, size)

    def _move(self, stream: Stream, size: int) -> None:
        queue = stream.queue
        while size:
            part = queue.popleft()
            if len(part) > size:
                queue.appendleft(part[size:])
                part = part[:size]
            self._out.append(part)
            size -= len(part)

    def _block(self, number: int, block: bytes, flags: int) -> None:
        self.frame(frames.HEADERS, flags, number, self._before_headers + block)
        self._before_headers = b""


def _block(headers: Iterable[Header]) -> bytes:
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def _text(text: bytes) -> bytes:
    """A string with its length, in groups of seven bits behind the first 127 (RFC 7541, 5.1 and 5.2)."""
    size = len(text)
    if size < 0x7F:
        return bytes((size,)) + text
    length, size = bytearray(b"\x7f"), size - 0x7F
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes(length) + text


_HEAD_BLOCK: Final = _block(HEAD)
_SUCCESS_BLOCK: Final = _block(SUCCESS)
