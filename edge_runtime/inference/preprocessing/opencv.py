"""OpenCV, where it is installed and gives exactly the bytes that this runtime promises: the same pixels, only sooner.

Builds of OpenCV differ (in the vendor's kernels they contain, in the JPEG library), so each use is tried once on a
small picture whose right answer is known; a build that answers otherwise is not used for it.
"""

from __future__ import annotations

import binascii
from functools import cache
from typing import Any, Final

import numpy as np

from edge_runtime.contract.steps import Color
from edge_runtime.inference.backend import Array
from edge_runtime.inference.preprocessing.scaling import scale_bilinear, scale_nearest

_JPEG: Final = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeXBk"
    "eFxlZ2P/2wBDARESEhgVGC8aGi9jQjhCY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2NjY2P/wAARCAAUABwD"
    "ASIAAhEBAxEB/8QAGQABAQADAQAAAAAAAAAAAAAABAABAgUG/8QAJBAAAQMEAQMFAAAAAAAAAAAAAQACAwQREmEFFSIxQVGBkbH/xAAWAQEBAQAA"
    "AAAAAAAAAAAAAAAFBgT/xAAdEQACAgIDAQAAAAAAAAAAAAABAgAEAxEFISJh/9oADAMBAAIRAxEAPwDgw0mk+Gk0nQ0mk+Gk0lLV37MGC1BQ0mk1"
    "lJ2+EwRxQNDppGRtJsC9wAv8rHU+MYS01IuDY2Y4j7AU9msux8jcer5nceQTPP8ALctNxtYyGGOJzXRh13gk3uR6HS5/VK+fHOqkGPjA4flrqUmV"
    "RSuyILxGNCmyO5tDG32TWRtx8KUi7BO5X4SdT//Z"
)
"""In base64, a coloured gradient, 28 by 20, with halved chroma: what decoders differ in shows in it."""
_JPEG_PIXELS: Final = {1: 1703573622, 2: 941209886, 4: 687590721, 8: 3329462735}
"""CRC-32 of its RGB pixels by the factor that divides both sides, as libjpeg-turbo decodes it by default (accurate
DCT, smooth chroma), as Pillow does."""


def decode_jpeg(content: bytes, color: Color, factor: int = 1) -> Array | None:
    """uint8 [H, W, C] of a JPEG file, not turned; None where OpenCV is missing, differs, or cannot read it.

    Args:
        content: of the file.
        color: order of its channels.
        factor: 1, 2, 4 or 8, by which both sides are divided, rounded up.
    """
    cv2 = find_decoder(factor)
    if cv2 is None:
        return None
    flags = {"rgb": cv2.IMREAD_COLOR_RGB, "bgr": cv2.IMREAD_COLOR, "gray": cv2.IMREAD_GRAYSCALE}[color]
    flags |= _reduced(cv2, factor)
    pixels: Array | None = cv2.imdecode(np.frombuffer(content, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is not None and pixels.ndim == 2:
        return pixels[..., None]
    return pixels


def scale(image: Array, height: int, width: int, filter_name: str) -> Array | None:
    """uint8 [H, W, C] in another size, by `nearest` or `bilinear`; None where OpenCV is missing or differs."""
    cv2 = _scaler()
    if cv2 is None or image.dtype != np.uint8:
        return None
    kind = cv2.INTER_NEAREST if filter_name == "nearest" else cv2.INTER_LINEAR
    scaled: Array = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=kind)
    return scaled[..., None] if scaled.ndim == 2 else scaled


@cache
def _library() -> Any:
    try:
        import cv2
    except Exception:  # noqa: BLE001 (not installed, or built for another machine: it is not needed)
        return None
    return cv2


@cache
def find_decoder(factor: int = 1) -> Any:
    """OpenCV where it decodes JPEGs, divided by a factor, as promised; None where it does not. Looked at once."""
    cv2 = _library()
    if cv2 is None or not hasattr(cv2, "IMREAD_COLOR_RGB"):  # older than 4.10
        return None
    content = np.frombuffer(binascii.a2b_base64(_JPEG), np.uint8)
    pixels = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB | _reduced(cv2, factor))
    return cv2 if pixels is not None and binascii.crc32(pixels.tobytes()) == _JPEG_PIXELS[factor] else None


def _reduced(cv2: Any, factor: int) -> int:
    return 0 if factor == 1 else int(getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{factor}"))


@cache
def _scaler() -> Any:
    cv2 = _library()
    if cv2 is None:
        return None
    # Every value of a byte, in an order without a pattern; up and down, so that borders and fractions are met.
    picture = (np.arange(37 * 53 * 3, dtype=np.uint32) * 2654435761 >> 23).astype(np.uint8).reshape(37, 53, 3)
    for height, width in ((20, 31), (74, 80), (224, 17)):
        linear = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
        nearest = cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)
        is_same = np.array_equal(linear, scale_bilinear(picture[None], height, width)[0])
        if not is_same or not np.array_equal(nearest, scale_nearest(picture[None], height, width)[0]):
            return None
    return cv2
