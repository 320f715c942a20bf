"""What a JPEG file says about itself before its pixels: size, components, metadata; reads no further than it must."""

from __future__ import annotations

from typing import Final

import msgspec

_START: Final = b"\xff\xd8"
_END: Final = b"\xff\xd9"
_APP1: Final = 0xE1
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive frames with Huffman coding (ITU-T T.81, table B.1); others are rare."""
_SCAN: Final = 0xDA
_SEGMENTS: Final = frozenset({0xC4, 0xCC, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})
"""Tables, restarts, comments and applications: markers with a length behind them (ITU-T T.81, table B.1).

Others are uncommon here. Decoders pass over fill bytes and markers without a length: whoever took two bytes behind one
for a length would read another header than they do, and let a picture pass that is much larger.
"""


class JpegHeader(msgspec.Struct, frozen=True):
    """The outside of a complete file with 8-bit samples."""

    height: int
    width: int
    components: int
    metadata: tuple[bytes, ...]
    """What APP1 segments hold: EXIF, XMP."""


def read_jpeg_header(content: bytes) -> JpegHeader | None:
    """The header of a JPEG file; None when it is another file, an incomplete one, or of an uncommon kind."""
    if content[:2] != _START or content[-2:] != _END:
        return None
    metadata: list[bytes] = []
    place, frame = 2, b""
    while place + 4 <= len(content):
        if content[place] != 0xFF:
            return None
        marker, size = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if marker == _SCAN:
            return _header(frame, tuple(metadata))
        body = content[place + 4 : place + 2 + size]
        if marker in _FRAMES and not frame:
            frame = body
        elif marker not in _SEGMENTS or size < 2:
            return None
        if marker == _APP1:
            metadata.append(body)
        place += 2 + size
    return None


def _header(fields: bytes, metadata: tuple[bytes, ...]) -> JpegHeader | None:
    if len(fields) < 6 or fields[0] != 8:
        return None
    height, width = int.from_bytes(fields[1:3], "big"), int.from_bytes(fields[3:5], "big")
    return JpegHeader(height, width, fields[5], metadata) if height and width else None
