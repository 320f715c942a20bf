"""What a JPEG file says about itself before its pixels: size, components, EXIF; reads no further than it must."""

from __future__ import annotations

from typing import Final

import msgspec

_START: Final = b"\xff\xd8"
_END: Final = b"\xff\xd9"
_EXIF: Final = b"Exif\x00\x00"
_APP1: Final = 0xE1
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive frames with Huffman coding (ITU-T T.81, table B.1); others are rare."""
_SCAN: Final = 0xDA


class JpegHeader(msgspec.Struct, frozen=True):
    """The outside of a complete file with 8-bit samples."""

    height: int
    width: int
    components: int
    exif: bytes | None


def read_jpeg_header(content: bytes) -> JpegHeader | None:
    """The header of a JPEG file; None when it is another file, an incomplete one, or of an uncommon kind."""
    if content[:2] != _START or content[-2:] != _END:
        return None
    place, exif = 2, None
    while place + 4 <= len(content):
        if content[place] != 0xFF:
            return None
        marker, size = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        body = place + 4
        if marker in _FRAMES:
            return _frame(content[body : body + 6], exif)
        if marker == _SCAN or size < 2:
            return None
        if marker == _APP1 and content.startswith(_EXIF, body):
            exif = content[body : place + 2 + size]
        place += 2 + size
    return None


def _frame(fields: bytes, exif: bytes | None) -> JpegHeader | None:
    if len(fields) < 6 or fields[0] != 8:
        return None
    height, width = int.from_bytes(fields[1:3], "big"), int.from_bytes(fields[3:5], "big")
    return JpegHeader(height, width, fields[5], exif) if height and width else None
