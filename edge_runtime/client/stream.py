"""Messages over a connected stream socket: few system calls, every wait bounded."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_runtime.client.frames import ALIGNMENT, HEAD_MAX_BYTES, HEADER, Kind
from edge_runtime.contract.errors import ContractError, TransportError

SOCKET_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Wanted of the kernel, which may grant less: a picture then needs fewer changes between the two processes."""
_SMALL: Final = 4096
"""Bodies up to here travel with their head: copying them costs less than another system call."""
_TIMEVAL: Final = struct.Struct("@ll")


@dataclass(slots=True)
class Frame:
    """A header with its head; the body has not been read yet. Valid until the next one is received."""

    kind: int
    flags: int
    number: int
    priority: int
    time_left_us: int
    """0: no deadline."""
    body_bytes: int
    head: bytes


class Stalled(TransportError):
    """The peer did not go on in time."""


class FrameStream:
    """One end of a connection; one thread at a time.

    Args:
        peer: connected stream socket in blocking mode.
        step_s: how long the peer may stop in the middle of a message, and take to send it as a whole.
    """

    def __init__(self, peer: socket.socket, step_s: float) -> None:
        self._peer = peer
        self._step_s = step_s
        self._wait_s = -1.0
        self._buffer = memoryview(bytearray(HEADER.size + HEAD_MAX_BYTES + _SMALL))
        """Holds whatever is asked for at first."""
        self._filled = 0
        self._likely = HEADER.size
        """Bytes to ask for at first: what the last message had, less a large body; equal calls have equal messages."""
        self._frame = Frame(0, 0, 0, 0, 0, 0, b"")
        self._first, self._rest, self._whole = b"", b"", 0
        """Header and head of the last message: what stands before its number, what behind, and their length."""
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            peer.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER_BYTES)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(step_s))
        self.wait_at_most(step_s)

    @property
    def is_between_messages(self) -> bool:
        """Whether nothing of the next message has come yet."""
        return self._filled == 0

    def wait_at_most(self, seconds: float) -> None:
        """Bound each single wait for the peer; costs nothing where it is the same as before."""
        # The kernel's own timeout: Python's puts the socket into non-blocking mode and polls before every call.
        if seconds != self._wait_s:
            self._peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))
            self._wait_s = seconds

    def receive(self) -> Frame | None:
        """The next header and head; None when the peer closed between two messages.

        Returns:
            The very same frame as before, with another number, when nothing else in it differs.

        Raises:
            ContractError: what came is no message.
            Stalled: nothing came, or the message did not go on.
            TransportError: the connection broke inside a message.
        """
        if not self._filled:
            message = self._receive_first(0)
            if not message:
                return None
            if self._is_repeated(message):
                return self._frame
            self._keep(message)
        return self._receive_rest()

    def receive_repeated(self) -> Frame | None:
        """The next message if it lies there and is the one before with another number; never waits.

        Returns:
            The frame, or None when it is anything else, or nothing: `receive` goes on with it.
        """
        if self._filled:
            return None
        try:
            message = self._receive_first(socket.MSG_DONTWAIT)
        except TransportError:
            return None
        if self._is_repeated(message):
            return self._frame
        self._keep(message)
        return None

    def _is_repeated(self, message: bytes) -> bool:
        """Whether it begins as the last one did, but for its number; what follows is kept."""
        whole = self._whole
        if message[8:whole] != self._rest or message[:4] != self._first:
            return False
        self._frame.number = int.from_bytes(message[4:8], "little")
        if len(message) > whole:
            self._keep(message[whole:])
        return True

    def _keep(self, message: bytes) -> None:
        """What came and was not looked at yet."""
        self._buffer[: len(message)] = message
        self._filled = len(message)

    def _receive_rest(self) -> Frame:
        if self._filled < HEADER.size:
            self._fill(HEADER.size)
        kind, flags, zero, number, head_bytes, priority, left_us, body_bytes = HEADER.unpack_from(self._buffer)
        if zero or head_bytes > HEAD_MAX_BYTES:
            raise ContractError("read a message", f"its header says {head_bytes} bytes of head, reserved is {zero}")
        whole = HEADER.size + head_bytes
        if self._filled < whole:
            self._fill(whole)
        head = bytes(self._buffer[HEADER.size : whole])
        self._first, self._rest, self._whole = bytes(self._buffer[:4]), bytes(self._buffer[8:whole]), whole
        # What belongs to the body, or to the next message, moves to the front.
        self._filled -= whole
        if self._filled:
            self._buffer[: self._filled] = bytes(self._buffer[whole : whole + self._filled])
        self._likely = whole + body_bytes if body_bytes <= _SMALL else whole
        self._frame = Frame(kind, flags, number, priority, left_us, body_bytes, head)
        return self._frame

    def receive_body(self, into: memoryview) -> None:
        """Fill the memory with the next bytes of a body. Raises: Stalled, TransportError."""
        size = len(into)
        at = min(self._filled, size)
        if at:
            into[:at] = self._buffer[:at]
            self._filled -= at
            self._buffer[: self._filled] = bytes(self._buffer[at : at + self._filled])
        give_up = 0.0
        while at < size:
            count = self._receive_some(into[at:])
            if not count:
                raise _broken_off()
            at += count
            give_up = self._check_pace(give_up)

    def skip_body(self, size: int) -> None:
        """Read bytes of a body that nobody wants. Raises: Stalled, TransportError."""
        waste = memoryview(bytearray(min(size, 1 << 16)))
        while size:
            count = min(size, len(waste))
            self.receive_body(waste[:count])
            size -= count

    def send(
        self,
        kind: Kind,
        head: bytes = b"",
        body: Sequence[Any] = (),
        *,
        number: int = 0,
        flags: int = 0,
        priority: int = 0,
        time_left_us: int = 0,
    ) -> None:
        """Send one message; the parts of the body are buffers of bytes. Raises: Stalled, TransportError."""
        size = sum(map(len, body)) if body else 0
        start = HEADER.pack(kind, flags, 0, number, len(head), priority, time_left_us, size) + head
        try:
            if 0 < size <= _SMALL:
                self._peer.sendall(b"".join((start, *body)))
            elif size:
                self._send_parts([memoryview(part) for part in (start, *body)])
            else:
                self._peer.sendall(start)
        except BlockingIOError as error:
            raise Stalled("send a message", "the peer does not read") from error
        except OSError as error:
            raise TransportError("send a message", error.strerror or str(error)) from error

    def stop_reading(self) -> None:
        """Read the end of the connection instead of what may still come, from any thread; sending goes on."""
        with suppress(OSError):  # the peer was quicker
            self._peer.shutdown(socket.SHUT_RD)

    def hang_up(self) -> None:
        """Wake whoever waits in it, from any thread; the owner still closes it."""
        with suppress(OSError):  # the peer was quicker
            self._peer.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket up; safe to repeat."""
        self._peer.close()

    def _send_parts(self, parts: list[memoryview]) -> None:
        give_up = 0.0
        while parts:
            send_some(self._peer, parts)
            if parts:
                give_up = self._check_pace(give_up)

    def _fill(self, wanted: int) -> None:
        """Read until that many bytes of a message are there."""
        give_up = 0.0
        while self._filled < wanted:
            count = self._receive_some(self._buffer[self._filled : max(wanted, self._likely)])
            if not count:
                raise _broken_off()
            self._filled += count
            if self._filled < wanted:
                give_up = self._check_pace(give_up)

    def _receive_first(self, flags: int) -> bytes:
        try:
            return self._peer.recv(self._likely, flags)
        except BlockingIOError as error:
            raise Stalled("read a message", f"nothing came for {self._wait_s:g} s") from error
        except OSError as error:
            raise TransportError("read a message", error.strerror or str(error)) from error

    def _receive_some(self, into: memoryview) -> int:
        try:
            return self._peer.recv_into(into)
        except BlockingIOError as error:
            raise Stalled("read a message", f"nothing came for {self._wait_s:g} s") from error
        except OSError as error:
            raise TransportError("read a message", error.strerror or str(error)) from error

    def _check_pace(self, give_up: float) -> float:
        """The moment until which the message must be through; a peer that drips bytes does not get past it."""
        now = time.monotonic()
        if give_up and now > give_up:
            raise Stalled("move a message", f"it took more than {self._step_s:g} s")
        return give_up or now + self._step_s


def bytes_of(array: npt.NDArray[Any]) -> memoryview:
    """The bytes of a C-contiguous array, where they are."""
    return array.reshape(-1).view(np.uint8).data


def send_some(peer: socket.socket, parts: list[memoryview]) -> None:
    """Send as much as the socket takes at once, and leave the rest in `parts`."""
    sent = peer.sendmsg(parts[:64])
    while parts and sent >= len(parts[0]):
        sent -= len(parts.pop(0))
    if parts:
        parts[0] = parts[0][sent:]


def room_for(size: int) -> memoryview:
    """Fresh writable memory that begins where a tensor may; pages are taken when they are first written."""
    whole = np.empty(size + ALIGNMENT, np.uint8)
    start = -whole.__array_interface__["data"][0] % ALIGNMENT
    return whole[start : start + size].data


def _broken_off() -> TransportError:
    return TransportError("read a message", "the peer closed the connection inside one")


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return _TIMEVAL.pack(whole, int((seconds - whole) * 1e6))
