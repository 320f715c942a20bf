"""Cuts what a client sends into HTTP/2 frames; what DATA frames carry is received where it stays.

Frames: RFC 9113, section 4.1.
"""

from __future__ import annotations

from typing import Final, Protocol, final

from edge_runtime.doors.v2.grpc_stream import Assembly

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
"""Kinds of frames."""
ACK = END_STREAM = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
FLOW_CONTROL_ERROR: Final = 0x3
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
ENHANCE_YOUR_CALM: Final = 0xB

FRAME_MAX_BYTES: Final = 1024 * 1024
"""Longest frame that clients may send. The protocol's default, 16 KiB, makes 37 frames of a picture's tensor, which
cost either side a tenth of its time."""
CONTROL_MAX_BYTES: Final = 32 * 1024
"""Longest frame besides DATA, of which every one that is needed is much shorter."""

_HEAD_BYTES: Final = 9
_PREFACE_BYTES: Final = 24
_SCRATCH_BYTES: Final = 64 * 1024


class BrokenProtocol(Exception):
    """The peer does not keep to HTTP/2, or takes more than its share: the connection ends."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Frames(Protocol):
    """What takes the frames; each method may raise BrokenProtocol."""

    def preface(self, part: memoryview) -> None:
        """What comes before the first frame."""

    def control(self, kind: int, flags: int, frame: memoryview) -> None:
        """A whole frame other than DATA."""

    def data_began(self, number: int, flags: int, size: int) -> Assembly | None:
        """A DATA frame of so many bytes begins; None: nobody wants what it carries."""

    def data_ended(self, number: int, flags: int) -> None:
        """It is whole."""


@final
class FrameCutter:
    """Where bytes are received, and what they are."""

    def __init__(self, frames: Frames) -> None:
        self._frames = frames
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._fill = 0
        self._preface_left = _PREFACE_BYTES
        self._target: memoryview | None = None
        """The rest of a frame's payload may be received here."""
        self._is_in_data = False
        self._into: Assembly | None = None
        self._left = self._padding = 0
        """Of the DATA frame under way."""
        self._number = self._flags = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether nothing of a frame has come that is not whole."""
        return not self._is_in_data and not self._fill

    def buffer(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return self._scratch[self._fill :] if self._target is None else self._target

    def advance(self, count: int) -> None:
        """So many bytes were written to `buffer()`. Raises: BrokenProtocol."""
        if self._target is not None:
            self._target = None
            self._left -= count
            assert self._into is not None
            self._into.filled(count)
            self._payload(0, 0)
            return
        end = self._fill + count
        self._fill = 0
        at = self._cut(end)
        if at < end:
            self._fill = end - at
            self._scratch[: self._fill] = self._scratch[at:end]

    def shed(self) -> None:
        """Let go of a message that nobody wants, in the middle of a frame; never between `buffer` and `advance`."""
        if self._into is not None and self._into.is_unwanted:
            self._into = self._target = None

    def _cut(self, end: int) -> int:
        """Take what can be taken; returns where the rest begins."""
        at = 0
        if self._preface_left:
            at = min(self._preface_left, end)
            self._frames.preface(self._scratch[:at])
            self._preface_left -= at
        if self._is_in_data:
            at = self._payload(at, end)
        scratch = self._scratch
        while end - at >= _HEAD_BYTES and not self._is_in_data:
            size = scratch[at] << 16 | scratch[at + 1] << 8 | scratch[at + 2]
            kind, flags = scratch[at + 3], scratch[at + 4]
            number = int.from_bytes(scratch[at + 5 : at + 9], "big") & 0x7FFF_FFFF
            if kind == DATA:
                begins = at + _HEAD_BYTES + (1 if flags & PADDED else 0)
                if begins > end:
                    break
                self._begin(number, flags, size, scratch[begins - 1])
                at = self._payload(begins, end)
                continue
            if size > CONTROL_MAX_BYTES:
                raise BrokenProtocol(ENHANCE_YOUR_CALM)
            whole = at + _HEAD_BYTES + size
            if whole > end:
                break
            self._frames.control(kind, flags, scratch[at:whole])
            at = whole
        return at

    def _begin(self, number: int, flags: int, size: int, padding: int) -> None:
        if size > FRAME_MAX_BYTES:
            raise BrokenProtocol(FRAME_SIZE_ERROR)
        is_padded = bool(flags & PADDED)
        if is_padded and padding >= size:
            raise BrokenProtocol(PROTOCOL_ERROR)
        self._number, self._flags = number, flags
        self._padding = padding if is_padded else 0
        self._left = size - padding - 1 if is_padded else size
        self._into = self._frames.data_began(number, flags, size)
        self._is_in_data = True

    def _payload(self, at: int, end: int) -> int:
        """Take what came of the DATA frame under way, and choose where the rest of it goes."""
        into = self._into
        if self._left and at < end:
            count = min(self._left, end - at)
            self._left -= count
            if into is not None:
                into.feed(self._scratch[at : at + count])
            at += count
        if self._left:
            room = None if into is None else into.room()
            if room is not None:
                self._target = room[: self._left]
            return at
        skipped = min(self._padding, end - at)
        self._padding -= skipped
        if not self._padding:
            self._is_in_data, self._into = False, None
            self._frames.data_ended(self._number, self._flags)
        return at + skipped
