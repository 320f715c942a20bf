"""Bodies of requests: one buffer that grows with what comes, chunks taken apart, codings unfolded with a bound."""

from __future__ import annotations

import re
import zlib
from typing import Final, Literal, Protocol

from edge_runtime.contract.errors import InferenceError
from edge_runtime.doors.budget import Budget

FIRST_BYTES: Final = 1024 * 1024
"""Taken for a body at once, at most; only bytes that really came make it more."""
_CHUNKED_FIRST_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 256 * 1024
"""Unfolded at a time."""
_ALIGNMENT: Final = 16
"""Where memory allocators let large objects begin, and what vector instructions like."""

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\Z")
_LINE_MAX: Final = 256
_TRAILERS_MAX: Final = 4096
_WINDOWS: Final = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""RFC 9110, 8.4.1: `deflate` is zlib's format."""


class HttpError(Exception):
    """A request that is answered with a status of HTTP's own; the connection ends with it."""

    def __init__(self, status: int, because: str) -> None:
        super().__init__(because)
        self.status = status
        self.because = because


class Room(Protocol):
    """Memory that bodies are counted against."""

    def take(self, amount: int) -> None:
        """Reserve memory; raises what whoever asks for the body is to hear when it would be too much."""

    def give_back(self, amount: int) -> None:
        """Give reserved memory back."""


class MemoryBudget(Budget):
    """What all bodies of one server may hold together, as HTTP tells it."""

    def __init__(self, total_bytes: int) -> None:
        super().__init__(total_bytes, "memory for bodies")

    def take(self, amount: int) -> None:
        """Reserve memory. Raises: HttpError 503 when it would be too much."""
        try:
            super().take(amount)
        except InferenceError:
            because = "other requests hold the memory set aside for bodies; come again"
            raise HttpError(503, because) from None


class _Store(bytearray):
    """Memory of a body; it counts until the last one lets go who looks at it, which may be long after its client."""

    __slots__ = ("_budget", "_counted")

    def __init__(self, budget: Room, size: int = 0) -> None:
        self._budget = budget
        self._counted = 0
        budget.take(size)
        self._counted = size
        super().__init__(size)

    def __del__(self) -> None:
        self._budget.give_back(self._counted)


class Body:
    """The buffer of one connection's bodies, one after another."""

    def __init__(self, budget: Room) -> None:
        self._budget = budget
        self._store = _Store(budget)
        self._start = self._end = 0
        self._length: int | None = 0

    @property
    def is_complete(self) -> bool:
        """Whether as many bytes came as were announced."""
        return self._end - self._start == self._length

    @property
    def size(self) -> int:
        """Bytes that came."""
        return self._end - self._start

    @property
    def capacity(self) -> int:
        """Bytes that it has memory for."""
        return len(self._store)

    def count_against(self, budget: Room) -> None:
        """Count its memory, and what it may need besides, against this budget from now on. Raises: what that does."""
        budget.take(len(self._store))
        self._budget = budget

    def begin(self, length: int | None, align_at: int) -> None:
        """A new body of that length (None: unknown) begins; nothing is taken for it yet."""
        self._length = length
        self._start = self._end = -align_at % _ALIGNMENT
        if not self.is_unused():
            # Somebody still looks at the last body: it is theirs now.
            self._store = _Store(self._budget)

    def room(self) -> memoryview:
        """Where the next bytes go, never more than the body still lacks. Raises: what the budget does."""
        assert self._length is not None
        if self._end >= len(self._store):
            self._grow()
        return memoryview(self._store)[self._end : self._start + self._length]

    def filled(self, count: int) -> None:
        """So many bytes were written to `room()`."""
        self._end += count

    def append(self, piece: memoryview) -> None:
        """Add bytes. Raises: what the budget does."""
        end = self._end + len(piece)
        while len(self._store) < end:
            self._grow()
        self._store[self._end : end] = piece
        self._end = end

    def content(self) -> memoryview:
        """The whole body."""
        return memoryview(self._store)[self._start : self._end]

    def release(self) -> None:
        """Let go of the memory."""
        self._store = _Store(self._budget)
        self._start = self._end = 0

    def is_unused(self) -> bool:
        """Whether nobody looks at the last body any more."""
        if not self._store:
            return True
        try:
            # A bytearray changes its length only while nobody holds a view of it.
            self._store.append(self._store.pop())
        except BufferError:
            return False
        return True

    def _grow(self) -> None:
        had = len(self._store)
        if self._length is None:
            size = max(2 * had, _CHUNKED_FIRST_BYTES)
        else:
            size = min(max(2 * had, FIRST_BYTES), self._start + self._length)
        grown = _Store(self._budget, size)
        grown[: self._end] = memoryview(self._store)[: self._end]
        self._store = grown


class ChunkDecoder:
    """Takes a chunked body apart (RFC 9112, section 7.1); extensions and trailers are read over."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._state: Literal["size", "data", "data_end", "trailers", "done"] = "size"
        self._left = 0
        self._trailer_bytes = 0

    @property
    def is_done(self) -> bool:
        """Whether the last chunk has been read."""
        return self._state == "done"

    def feed(self, view: memoryview, body: Body) -> int:
        """Take what can be taken; returns how many bytes that were. Raises: HttpError."""
        at = 0
        while at < len(view) and self._state != "done":
            if self._state == "data":
                count = min(self._left, len(view) - at)
                body.append(view[at : at + count])
                at += count
                self._left -= count
                if self._left == 0:
                    self._state = "data_end"
                continue
            line = _line(view[at : at + _LINE_MAX])
            if line is None:
                if len(view) - at >= _LINE_MAX:
                    raise HttpError(400, "a line of the chunked body is too long")
                break
            at += len(line) + 2
            self._read_line(line, body)
        return at

    def _read_line(self, line: bytes, body: Body) -> None:
        if self._state == "size":
            found = _SIZE_LINE.match(line)
            if found is None:
                raise HttpError(400, "a chunk's size is malformed")
            self._left = int(found[1], 16)
            if body.size + self._left > self._max_bytes:
                raise HttpError(413, f"the body has more than the {self._max_bytes} bytes that are taken")
            self._state = "data" if self._left else "trailers"
        elif self._state == "data_end":
            if line:
                raise HttpError(400, "a chunk is longer than it says")
            self._state = "size"
        elif line:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _TRAILERS_MAX:
                raise HttpError(431, f"the trailers are larger than {_TRAILERS_MAX} bytes")
        else:
            self._state = "done"


def unfold(body: memoryview, coding: str, max_bytes: int, budget: Room) -> memoryview:
    """A body without its content coding.

    Args:
        body: as it came.
        coding: the `Content-Encoding`.
        max_bytes: size up to which it is unfolded.
        budget: what that memory is taken from: it may wait as long as any other body for its model.

    Raises:
        HttpError: an unknown coding, damaged data, too much of it, or no memory for it.
    """
    coding = coding.strip().lower()
    if coding in {"", "identity"}:
        return body
    window = _WINDOWS.get(coding)
    if window is None:
        raise HttpError(415, "the only content codings understood are gzip and deflate")
    unfolded = Body(budget)
    unfolded.begin(None, 0)
    try:
        is_whole = _unfold_into(unfolded, body, zlib.decompressobj(window), max_bytes)
    except zlib.error as error:
        raise HttpError(400, f"the body is no {coding} data ({error})") from None
    if not is_whole:
        raise HttpError(400, f"the body's {coding} data is cut off, or something follows it")
    return unfolded.content()


def _unfold_into(unfolded: Body, body: memoryview, decoder: zlib._Decompress, max_bytes: int) -> bool:
    """Unfold piece by piece; whether the data ended where the body does. Raises: HttpError, zlib.error."""
    for start in range(0, len(body), _PIECE_BYTES):
        rest: memoryview | bytes = body[start : start + _PIECE_BYTES]
        is_full = True
        while rest or is_full:
            # One byte more than is allowed tells a body that is just as large from a larger one.
            room = min(_PIECE_BYTES, max_bytes - unfolded.size + 1)
            piece = decoder.decompress(rest, room)
            if unfolded.size + len(piece) > max_bytes:
                raise HttpError(413, f"the body unfolds to more than the {max_bytes} bytes that are taken")
            unfolded.append(memoryview(piece))
            rest, is_full = decoder.unconsumed_tail, len(piece) == room
        if decoder.eof:
            return not decoder.unused_data and start + _PIECE_BYTES >= len(body)
    return False


def fold(parts: list[memoryview | bytes], coding: str) -> bytes:
    """An answer's parts as one body in a content coding, quick rather than small."""
    encoder = zlib.compressobj(1, zlib.DEFLATED, _WINDOWS[coding])
    return b"".join([*(encoder.compress(part) for part in parts), encoder.flush()])


def wanted_coding(accepted: str) -> str | None:
    """The coding an answer is folded in: the one that `Accept-Encoding` names, when it names exactly one.

    Libraries that list all they could unfold are better served with plain bytes on a fast link.
    """
    if not accepted:
        return None
    named = [token.partition(";") for token in accepted.lower().replace(" ", "").split(",")]
    codings = [coding for coding, _, weight in named if coding in _WINDOWS and not re.fullmatch(r"q=0(\.0*)?", weight)]
    return codings[0] if len(codings) == 1 and len(named) == 1 else None


def _line(view: memoryview) -> bytes | None:
    raw = bytes(view)
    end = raw.find(b"\r\n")
    return None if end < 0 else raw[:end]
