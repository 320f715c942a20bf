"""HTTP/1.1 on one kept connection: one system call to send, a few to receive; one thread at a time."""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edge_runtime.client.errors import NoAnswerInTime, NotUnderstood, ServerGone
from edge_runtime.client.frames import ALIGNMENT
from edge_runtime.client.stream import SOCKET_BUFFER_BYTES, room_for, send_some

_SCRATCH_BYTES: Final = 64 * 1024
_ANSWER_MAX_BYTES: Final = 4 * 1024 * 1024 * 1024
_END: Final = b"\r\n\r\n"
_STATUS: Final = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\Z)")
_TIMEVAL: Final = struct.Struct("@ll")


@dataclass(frozen=True, slots=True)
class Reply:
    """One response."""

    status: int
    headers: Mapping[bytes, bytes]
    """By lower-case name."""
    json: bytes
    """The whole body, or as much of it as is JSON where binary tensors follow."""
    binary: memoryview
    """What follows; the reader owns it."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where requests go."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    patience_s: float


class HttpConnection:
    """Connected to a server. Raises: ServerGone: nobody listens there."""

    def __init__(self, server: Server) -> None:
        self._name = f"{server.host}:{server.port}"
        self._patience_s = server.patience_s
        self._scratch = bytearray(_SCRATCH_BYTES)
        self._filled = 0
        self._has_answered = False
        self.is_usable = True
        """Whether another request may follow."""
        try:
            plain = socket.create_connection((server.host, server.port), timeout=server.patience_s)
            plain.settimeout(None)
            # The kernel's own timeout: Python's polls before every call.
            wait = _TIMEVAL.pack(int(server.patience_s), int(server.patience_s % 1 * 1e6))
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
            self._peer = server.tls.wrap_socket(plain, server_hostname=server.host) if server.tls else plain
        except OSError as error:
            raise ServerGone(f"connect to {self._name}", *_why(error)) from error

    @property
    def has_begun_to_answer(self) -> bool:
        """Whether something of an answer came to the last request."""
        return self._filled > 0

    def request(self, head: bytes, parts: Sequence[Any] = ()) -> Reply:
        """Send a request, whose head is complete, with its body; return the response.

        Raises:
            ServerGone: the connection ended before an answer.
            NoAnswerInTime: the server took too long.
            NotUnderstood: what came is no response that this client can read.
        """
        self.is_usable = False
        self._filled = 0
        try:
            self._send([memoryview(part) for part in (head, *parts)])
            reply = self._receive()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError) as error:
            raise NoAnswerInTime(f"ask {self._name}", f"nothing came for {self._patience_s:g} s") from error
        except OSError as error:
            raise ServerGone(f"ask {self._name}", error.strerror or str(error)) from error
        self.is_usable = reply.headers.get(b"connection", b"").lower() != b"close"
        return reply

    def close(self) -> None:
        """Hang up; safe to repeat."""
        self._peer.close()

    def _send(self, parts: list[memoryview]) -> None:
        if isinstance(self._peer, ssl.SSLSocket):
            for part in parts:
                self._peer.sendall(part)
            return
        while parts:
            send_some(self._peer, parts)

    def _receive(self) -> Reply:
        scratch = memoryview(self._scratch)
        while (at := self._scratch.find(_END, 0, self._filled)) < 0:
            if self._filled == len(scratch):
                raise self._strange(f"its head has more than {len(scratch)} bytes")
            self._filled += self._some(scratch[self._filled :], "the server closed the connection")
        self._has_answered = True
        status, headers = self._read_head(bytes(scratch[:at]))
        start, length = at + len(_END), self._length(headers)
        text = self._text_length(headers, length)
        have = self._filled - start
        if have > length:
            raise self._strange("more bytes came than it announced")
        # The binary part begins where vector units like it.
        room = room_for(length + ALIGNMENT)[-text % ALIGNMENT :][:length]
        room[:have] = scratch[start : self._filled]
        while have < length:
            have += self._some(room[have:], "the server closed the connection inside an answer")
        return Reply(status, headers, bytes(room[:text]), room[text:])

    def _some(self, into: memoryview, because: str) -> int:
        count = self._peer.recv_into(into)
        if not count:
            # What hangs up on the very first words may have expected others.
            is_deaf = not self._has_answered and not isinstance(self._peer, ssl.SSLSocket)
            raise ServerGone(f"ask {self._name}", because, "if it speaks TLS, use https://" if is_deaf else "")
        return count

    def _read_head(self, head: bytes) -> tuple[int, dict[bytes, bytes]]:
        first, *lines = head.split(b"\r\n")
        found = _STATUS.match(first)
        if not found:
            raise self._strange("it does not begin like an HTTP response")
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        return int(found[1]), headers

    def _length(self, headers: Mapping[bytes, bytes]) -> int:
        told = headers.get(b"content-length", b"")
        if b"transfer-encoding" in headers or not told.isdigit() or len(told) > 12:
            raise self._strange("it does not say how long it is")
        length = int(told)
        if length > _ANSWER_MAX_BYTES:
            raise self._strange(f"it has {length} bytes")
        return length

    def _text_length(self, headers: Mapping[bytes, bytes], length: int) -> int:
        told = headers.get(b"inference-header-content-length")
        if told is None:
            return length
        if not told.isdigit() or len(told) > 12 or int(told) > length:
            raise self._strange("its JSON is longer than it is")
        return int(told)

    def _strange(self, because: str) -> NotUnderstood:
        return NotUnderstood(f"understand {self._name}", because, "does a server of the v2 protocol listen there?")


def _why(error: OSError) -> tuple[str, str]:
    """Why there is no connection, and what to do about it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        because = f"its certificate is not trusted ({error.verify_message})"
        return because, "give its authority: tls=ssl.create_default_context(cafile=…)"
    if isinstance(error, ssl.SSLError):
        because = f"TLS was not agreed on ({error.reason or error.strerror or error})"
        return because, "if it serves without a certificate, use http://"
    return error.strerror or str(error), "is `edge-runtime serve --http` running?"
