"""A PNG file of the plain kind gives the pixels that Pillow's own reader gives; all others are left to it."""

from __future__ import annotations

import io
import struct
import zlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.image_steps import Decode
from edge_runtime.inference.preprocessing.images import decode_image
from edge_runtime.inference.preprocessing.png_file import read_plain_png

DECODE = Decode(id="decode", color="rgb", exif="apply", reduced="never")


def saved(image: Image.Image, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, "PNG", **options)
    return target.getvalue()


def noise(shape: tuple[int, ...], seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def written(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def header(width: int, height: int, depth: int = 8, colour: int = 0, interlace: int = 0) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)


def by_pillow(content: bytes) -> np.ndarray | None:
    """What Pillow's reader gives in colour; None where it refuses."""
    try:
        with PngImagePlugin.PngImageFile(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:  # noqa: BLE001 (it fails in many ways)
        return None


def by_us(content: bytes) -> np.ndarray | None:
    try:
        pixels: np.ndarray = decode_image(content, DECODE, ["png"])[0]
    except InferenceError:
        return None
    return pixels


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    is_grey=st.booleans(),
    level=st.integers(0, 9),
    cuts=st.lists(st.integers(0, 5000), max_size=4),
)
def test_a_plain_file_is_read_without_the_reader_and_gives_its_pixels(
    size: tuple[int, int], is_grey: bool, level: int, cuts: list[int]
) -> None:
    image = noise(size if is_grey else (*size, 3))
    plain = read_plain_png(saved(image, compress_level=level))
    assert plain is not None
    places = [0, *sorted(cuts), len(plain.packed)]
    pieces = [(b"IDAT", plain.packed[start:end]) for start, end in pairwise(places)]
    whole = written(header(*image.size, colour=0 if is_grey else 2), *pieces, (b"IEND", b""))

    again = read_plain_png(whole)

    assert again == plain
    assert np.array_equal(by_us(whole), np.asarray(image.convert("RGB")))


def test_what_changes_no_pixel_is_passed_over() -> None:
    image = noise((5, 4))
    packed = zlib.compress(b"".join(b"\x00" + bytes(row) for row in np.asarray(image)))
    content = written(
        header(4, 5), (b"gAMA", struct.pack(">I", 45455)), (b"sRGB", b"\x00"), (b"pHYs", bytes(9)),
        (b"IDAT", packed), (b"tIME", bytes(7)), (b"IEND", b""),
    )  # fmt: skip

    assert read_plain_png(content) is not None
    assert np.array_equal(by_us(content), by_pillow(content))


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(noise((4, 6)), exif=exif)


def commented() -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Software", "a camera")
    return saved(noise((4, 6)), pnginfo=text)


OTHERS = {
    "palette": saved(noise((4, 6, 3)).quantize(8)),
    "alpha": saved(noise((4, 6, 4))),
    "one bit": saved(noise((4, 6)).convert("1")),
    "sixteen bits": saved(Image.fromarray(np.arange(24, dtype=np.uint16).reshape(4, 6))),
    "transparency": saved(noise((4, 6)), transparency=7),
    "turned": turned(),
    "text": commented(),
    "interlaced": written(header(1, 1, interlace=1), (b"IDAT", zlib.compress(b"\x00\x07")), (b"IEND", b"")),
    "cut": saved(noise((4, 6)))[:-12],
    "followed": saved(noise((4, 6))) + b"\x00",
    "pixels apart": written(header(1, 1), (b"IDAT", b"\x78"), (b"tIME", bytes(7)), (b"IDAT", b"\x9c"), (b"IEND", b"")),
    "two headers": written(header(1, 1), header(1, 1), (b"IDAT", zlib.compress(b"\x00\x07")), (b"IEND", b"")),
    "late header": written((b"IDAT", zlib.compress(b"\x00\x07")), header(1, 1), (b"IEND", b"")),
    "no width": written(header(0, 1), (b"IDAT", zlib.compress(b"\x00\x07")), (b"IEND", b"")),
    "another file": b"\xff\xd8\xff\xe0",
    "more chunks than any": written(header(1, 1), *[(b"tIME", bytes(7))] * 5000, (b"IEND", b"")),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_any_other_file_is_left_to_the_reader(kind: str) -> None:
    assert read_plain_png(OTHERS[kind]) is None


@pytest.mark.parametrize("is_grey", [True, False])
def test_a_damaged_file_gives_what_the_reader_makes_of_it(is_grey: bool) -> None:
    whole = saved(noise((5, 4) if is_grey else (5, 4, 3)))
    told = 0

    for place in range(8, len(whole)):
        for mask in (1, 0x20, 0xFF):
            damaged = bytes([*whole[:place], whole[place] ^ mask, *whole[place + 1 :]])
            ours, theirs = by_us(damaged), by_pillow(damaged)
            assert (ours is None) == (theirs is None), (place, mask)
            assert ours is None or np.array_equal(ours, theirs), (place, mask)
            told += ours is not None

    assert told > 0, "a checksum of pixels that is wrong is no reason to refuse"


def test_pixels_that_are_missing_are_told_as_the_reader_tells_them() -> None:
    content = written(header(4, 5), (b"IDAT", zlib.compress(b"\x00" * 7)), (b"IEND", b""))

    assert read_plain_png(content) is not None
    with pytest.raises(InferenceError, match="PNG"):
        decode_image(content, DECODE, ["png"])


def test_a_size_that_nobody_has_memory_for_is_refused_before_it_is_taken() -> None:
    content = written(header(1 << 30, 1 << 30), (b"IDAT", zlib.compress(b"\x00")), (b"IEND", b""))

    with pytest.raises(InferenceError, match="pixels"):
        decode_image(content, DECODE, ["png"])
