"""HTTP/1.1 requests from bytes, without a socket: strict about what is a request, and no memory before it is needed.

Whatever two servers could read differently is refused (RFC 9112, sections 5, 6.3 and 11.2). A body is received into one
buffer, which the connection keeps for its next request.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from edge_runtime.doors.v2.http_body import Body, ChunkDecoder, HttpError, MemoryBudget

STAGE_BYTES: Final = 16 * 1024
"""Room for a request's head, and for what a client sends ahead."""
_HEADERS_MAX: Final = 100
_LINE_END: Final = b"\r\n"
_HEAD_END: Final = b"\r\n\r\n"

_REQUEST_LINE: Final = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]+) HTTP/(\d)\.(\d)\r\n")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)\r\n")
_LENGTH: Final = re.compile(r"\d{1,18}\Z")
_ABSOLUTE: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_SINGLE: Final = frozenset(
    {"authorization", "content-encoding", "content-length", "expect", "host", "inference-header-content-length",
     "transfer-encoding"}
)  # fmt: skip
"""Headers of which a second one makes the request ambiguous."""


@dataclass(frozen=True, slots=True)
class Head:
    """Request line and headers."""

    method: str
    path: str
    """As sent, without query."""
    headers: dict[str, str]
    """By lower-case name; repeated ones joined with commas."""
    keeps_alive: bool
    length: int | None
    """Bytes of the body; None: it comes in chunks."""
    expects_continue: bool


class Request(NamedTuple):
    """A complete request; its body is valid until the next one is polled, longer where something still refers to it."""

    head: Head
    body: memoryview


class Admitted(NamedTuple):
    """What a gate says of a request whose head has come."""

    max_bytes: int
    """Largest body to take."""
    align_at: int = 0
    """Offset in the body that is to lie well for an engine: where its first tensor begins."""


Gate = Callable[[Head], Admitted]
"""Looks at a head before any memory is taken for its body, and says the same of the same one. Raises: HttpError."""


class RequestReader:
    """Requests of one connection, in order: `buffer`, fill it, `advance`, then `poll` until it returns None."""

    def __init__(self, gate: Gate, budget: MemoryBudget) -> None:
        self._gate = gate
        self._stage = bytearray(STAGE_BYTES)
        self._start = self._end = 0
        self._state: Literal["head", "body", "chunks"] = "head"
        self._head: Head | None = None
        self._known: tuple[bytes, Head, Admitted] | None = None
        self._body = Body(budget)
        self._chunks: ChunkDecoder | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing of a next request has come."""
        return self._state == "head" and self._start == self._end

    @property
    def is_full(self) -> bool:
        """Whether no more can be taken before the next poll."""
        return self._state != "body" and self._start == 0 and self._end == STAGE_BYTES

    @property
    def awaited(self) -> Head | None:
        """The head of the request whose body is under way."""
        return self._head if self._state != "head" else None

    def buffer(self) -> memoryview:
        """Where the next bytes of the connection go. Raises: HttpError when there is no memory for them."""
        if self._state == "body":
            return self._body.room()
        if self._start:
            rest = self._end - self._start
            self._stage[:rest] = self._stage[self._start : self._end]
            self._start, self._end = 0, rest
        return memoryview(self._stage)[self._end :]

    def advance(self, count: int) -> None:
        """So many bytes have been written to the buffer."""
        if self._state == "body":
            self._body.filled(count)
        else:
            self._end += count

    def poll(self) -> Request | None:
        """The next request when it is complete; whatever it needs of the buffer has then been taken.

        Raises:
            HttpError: what has come is no request that can be answered; the connection is of no further use.
        """
        if self._state == "head" and not self._read_head():
            return None
        if self._chunks is not None:
            self._start += self._chunks.feed(memoryview(self._stage)[self._start : self._end], self._body)
            if not self._chunks.is_done:
                return None
        elif not self._body.is_complete:
            return None
        assert self._head is not None
        request = Request(self._head, self._body.content())
        self._state, self._chunks = "head", None
        return request

    def release(self) -> None:
        """Give back the memory of the last body."""
        self._body.release()

    def _read_head(self) -> bool:
        stage = self._stage
        # Empty lines before a request are left over from old clients (RFC 9112, 2.2).
        while self._end - self._start >= 2 and stage[self._start : self._start + 2] == _LINE_END:
            self._start += 2
        end = stage.find(_HEAD_END, self._start, self._end)
        if end < 0:
            if self._end - self._start == STAGE_BYTES:
                raise HttpError(431, f"the request's head is larger than {STAGE_BYTES} bytes")
            return False
        raw = bytes(stage[self._start : end + len(_LINE_END)])
        # A client that asks again and again sends the same head.
        if self._known is None or self._known[0] != raw:
            parsed = parse_head(raw)
            self._known = (raw, parsed, self._gate(parsed))
        _, head, admitted = self._known
        self._head = head
        if head.length is not None and head.length > admitted.max_bytes:
            raise HttpError(413, f"the body has {head.length} bytes, at most {admitted.max_bytes} are taken")
        self._start = end + len(_HEAD_END)
        self._begin_body(head, admitted)
        return True

    def _begin_body(self, head: Head, admitted: Admitted) -> None:
        if head.length is None:
            self._state, self._chunks = "chunks", ChunkDecoder(admitted.max_bytes)
            self._body.begin(None, admitted.align_at)
            return
        self._state = "body"
        self._body.begin(head.length, admitted.align_at)
        here = min(head.length, self._end - self._start)
        self._body.append(memoryview(self._stage)[self._start : self._start + here])
        self._start += here


def parse_head(raw: bytes) -> Head:
    """Read request line and headers, each with its line end.

    Raises:
        HttpError: it is malformed, ambiguous, or of another protocol version.
    """
    line = _REQUEST_LINE.match(raw)
    if line is None:
        raise HttpError(400, "the request line is malformed")
    version = (int(line[3]), int(line[4]))
    if version not in {(1, 0), (1, 1)}:
        raise HttpError(505, f"HTTP {version[0]}.{version[1]} is not spoken here; use 1.1")
    headers = _parse_headers(raw, line.end())
    if version == (1, 1) and "host" not in headers:
        raise HttpError(400, "a Host header is missing")
    connection = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    expect = headers.get("expect", "").lower()
    if expect not in {"", "100-continue"}:
        raise HttpError(417, "only 100-continue can be expected")
    return Head(
        method=line[1].decode(),
        path=_path(line[2].decode()),
        headers=headers,
        # What keep-alive meant in 1.0 was never agreed upon (RFC 9112, C.2.2).
        keeps_alive=version == (1, 1) and "close" not in connection,
        length=_length(headers, version),
        expects_continue=bool(expect) and version == (1, 1),
    )


def _parse_headers(raw: bytes, start: int) -> dict[str, str]:
    headers: dict[str, str] = {}
    count = 0
    while start < len(raw):
        field = _FIELD.match(raw, start)
        if field is None:
            raise HttpError(400, "a header line is malformed")
        count += 1
        if count > _HEADERS_MAX:
            raise HttpError(431, f"there are more than {_HEADERS_MAX} headers")
        name, value = field[1].decode().lower(), field[2].decode("latin-1").strip(" \t")
        if name in headers:
            if name in _SINGLE:
                raise HttpError(400, f"there are two {name} headers")
            value = f"{headers[name]}, {value}"
        headers[name] = value
        start = field.end()
    return headers


def _path(target: str) -> str:
    # Absolute form: what a client sends to a proxy must be understood too (RFC 9112, 3.2.2).
    path = _ABSOLUTE.sub("", target, count=1) if not target.startswith("/") else target
    path = path.partition("?")[0]
    if not path.startswith("/") or "#" in path:
        raise HttpError(400, "the request target is no path")
    return path


def _length(headers: dict[str, str], version: tuple[int, int]) -> int | None:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        # Both together are how requests are smuggled past a proxy.
        if length is not None or version != (1, 1):
            raise HttpError(400, "Transfer-Encoding stands beside Content-Length, or in HTTP 1.0")
        if coding.lower() != "chunked":
            raise HttpError(501, "the only transfer coding understood is chunked")
        return None
    if length is None:
        return 0
    if not _LENGTH.match(length):
        raise HttpError(400, "Content-Length is no number")
    return int(length)
