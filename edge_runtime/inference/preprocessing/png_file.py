"""PNG files of the plain kind, whose pixels need no more of Pillow than its decoder: others are left to its reader."""

from __future__ import annotations

from binascii import crc32
from typing import Final, Literal

import msgspec

_START: Final = b"\x89PNG\r\n\x1a\n"
_HEADER: Final = b"IHDR"
_PIXELS: Final = b"IDAT"
_END: Final = b"IEND"
_MODES: Final[dict[bytes, Literal["L", "RGB"]]] = {b"\x08\x00\x00\x00\x00": "L", b"\x08\x02\x00\x00\x00": "RGB"}
"""Pillow's mode by bit depth, colour type, compression, filter and interlace (PNG specification, 11.2.1).

Grey and colour of 8 bits, not interlaced.
"""
_HARMLESS: Final = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7}
"""Chunks that change nothing in the pixels that Pillow gives, and their lengths (PNG specification, 11.3).

All others may: transparency, palettes, profiles, and text or EXIF that says how the picture is turned.
"""
_MOST_CHUNKS: Final = 4096


class PlainPng(msgspec.Struct, frozen=True):
    """The pixels of a file, still packed."""

    mode: Literal["L", "RGB"]
    width: int
    height: int
    packed: bytes
    """What all of its `IDAT` chunks hold together: a zlib stream of filtered rows."""


def read_plain_png(content: bytes) -> PlainPng | None:
    """The inside of a PNG file; None when it is another file, an incomplete one, or not of the plain kind."""
    if content[:8] != _START:
        return None
    parts: list[bytes] = []
    header, before, place = b"", b"", 8
    for _ in range(_MOST_CHUNKS):
        size, kind = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8]
        body, place = content[place + 8 : place + 8 + size], place + 12 + size
        if place > len(content):
            return None
        if kind == _PIXELS and (not parts or before == _PIXELS):
            parts.append(body)  # not compared with its checksum, as by Pillow
        elif crc32(body, crc32(kind)) != int.from_bytes(content[place - 4 : place], "big"):
            return None
        elif kind == _HEADER and not before:
            header = body
        elif kind == _END:
            return _plain(header, b"".join(parts)) if place == len(content) and not size else None
        elif _HARMLESS.get(kind) != size:
            return None
        before = kind
    return None


def _plain(header: bytes, packed: bytes) -> PlainPng | None:
    mode = _MODES.get(header[8:])
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    return PlainPng(mode, width, height, packed) if mode and width and height else None
