"""Pixels: decoding, resizing, cropping and recolouring of uint8 or float32 NHWC images, exactly as the steps say.

Nothing here depends on which optional libraries a machine has: the same pixels come out everywhere, or an error.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.steps import Color, Decode, Resize
from edge_runtime.inference.backend import Array
from edge_runtime.inference.geometry import crop_corner, fit_of

MAX_PIXELS: Final = 64 * 1024 * 1024
"""Largest image decoded; a small file can unfold into gigabytes."""

_CODECS: Final = {"jpeg": "JPEG", "png": "PNG", "bmp": "BMP", "webp": "WEBP"}
_PIL_MODES: Final = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}
_EIGHT_BIT_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
CHANNELS: Final = {"rgb": 3, "bgr": 3, "gray": 1}
"""Channels of an image of that colour."""


def decode_image(content: bytes, step: Decode, accepted: Sequence[str]) -> Array:
    """Encoded bytes to uint8 [1, H, W, C] in the step's colour order.

    Raises:
        InferenceError: not a complete image of an accepted encoding, or too large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    codecs = [_CODECS[name] for name in (step.formats or accepted) if name in _CODECS]
    if not codecs:
        raise InferenceError("decode an image", "the model accepts arrays only", "decode it before asking")
    try:
        with Image.open(io.BytesIO(content), formats=codecs) as image:
            _check_size(image.width, image.height)
            if image.mode not in _EIGHT_BIT_MODES:
                raise InferenceError("decode an image", f"its pixels are {image.mode}, not 8-bit", "convert it first")
            upright = ImageOps.exif_transpose(image) if step.exif == "apply" else image
            pixels = np.asarray(upright.convert(_PIL_MODES[step.color]))
    except UnidentifiedImageError as error:
        # Pillow's own sentence names the buffer's address, which tells nobody anything.
        raise _not_whole(codecs, "") from error
    except InferenceError:
        raise
    except Exception as error:  # damaged metadata makes Pillow raise struct.error, and much besides
        raise _not_whole(codecs, f" ({shown(str(error), 120)})") from error
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    return pixels[None, :, :, ::-1] if step.color == "bgr" else pixels[None]


def recolour(images: Array, current: Color, wanted: Color) -> Array:
    """[N, H, W, C] in another colour order; grey is ITU-R 601-2 luma, rounded as Pillow rounds it."""
    if current == wanted:
        return images
    if current == "gray":
        return np.repeat(images, 3, axis=3)
    if wanted != "gray":
        return images[..., ::-1]
    red, green, blue = (images[..., index] for index in ((0, 1, 2) if current == "rgb" else (2, 1, 0)))
    if images.dtype == np.uint8:
        # Pillow's fixed-point weights (libImaging Convert.c, L24), so that arrays and files give the same grey.
        wide = red.astype(np.uint32) * 19595 + green.astype(np.uint32) * 38470 + blue.astype(np.uint32) * 7471 + 0x8000
        return (wide >> 16).astype(np.uint8)[..., None]
    luma: Array = (red * 0.299 + green * 0.587 + blue * 0.114).astype(images.dtype)[..., None]
    return luma


def resize(images: Array, step: Resize) -> Array:
    """[N, H, W, C] resized to the sizes of `geometry.fit_of`; keeps the dtype.

    Raises:
        InferenceError: mode `none` and another size.
        UnsupportedFeature: a filter that is not built.
    """
    if step.stride is not None:
        raise UnsupportedFeature("run preprocess step resize", "`stride` is not built in this runtime")
    height, width = images.shape[1:3]
    fit = fit_of(step, height, width)
    if step.mode == "none" and step.size != (height, width):
        raise InferenceError(
            "prepare an image",
            f"it is {_size(height, width)} and the model resizes nothing",
            f"give one that is {_size(*step.size)}",
        )
    scaled = images if step.mode == "none" else _scaled(images, *fit.inner, step)
    match step.mode:
        case "fit_pad":
            return _padded(scaled, step, fit.offset)
        case "fit_crop":
            return center_crop(scaled, step.size)
        case _:
            return scaled


def center_crop(images: Array, size: tuple[int, int]) -> Array:
    """The middle [N, h, w, C] window. Raises: InferenceError when an image is smaller."""
    height, width = images.shape[1:3]
    if height < size[0] or width < size[1]:
        because = f"it is {_size(height, width)}, smaller than the crop, which is {_size(*size)}"
        raise InferenceError("prepare an image", because, "give a larger one")
    top, left = crop_corner((height, width), size)
    return images[:, top : top + size[0], left : left + size[1]]


def _size(height: int, width: int) -> str:
    """A size that nobody reads the wrong way round: tools write width first, arrays height first."""
    return f"{width} wide and {height} high"


def _not_whole(codecs: list[str], detail: str) -> InferenceError:
    because = f"it is not a complete {' or '.join(codecs)} file{detail}"
    return InferenceError("decode an image", because, "export or copy it again")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        because = f"it is {_size(height, width)}, over {MAX_PIXELS} pixels"
        raise InferenceError("decode an image", because, "make it smaller")


def _scaled(images: Array, height: int, width: int, step: Resize) -> Array:
    _check_size(width, height)
    if images.shape[1:3] == (height, width):
        return images
    if step.antialias:
        return np.stack([_pillow(image, height, width, step.filter) for image in images])
    match step.filter:
        case "nearest":
            return _nearest(images, height, width)
        case "bilinear":
            return _bilinear(images, height, width)
        case _:
            raise UnsupportedFeature(
                f"run preprocess step resize with filter {step.filter} and antialias false",
                "only nearest and bilinear are built without antialiasing",
                "train and convert with antialias true, or with bilinear",
            )


def _pillow(image: Array, height: int, width: int, filter_name: str) -> Array:
    from PIL import Image

    filters = {
        "nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR, "area": Image.Resampling.BOX,
        "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS,
    }  # fmt: skip
    resample = filters[filter_name]
    if image.dtype == np.uint8 and image.shape[2] in {1, 3}:
        source = Image.fromarray(image[..., 0] if image.shape[2] == 1 else np.ascontiguousarray(image))
        resized = np.asarray(source.resize((width, height), resample))
        return resized[..., None] if resized.ndim == 2 else resized
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane, np.float32)).resize((width, height), resample))
        for plane in np.moveaxis(image, 2, 0)
    ]
    stacked = np.stack(planes, axis=2)
    return np.clip(np.rint(stacked), 0, 255).astype(np.uint8) if image.dtype == np.uint8 else stacked


def _nearest(images: Array, height: int, width: int) -> Array:
    """OpenCV's INTER_NEAREST: the source index is floor(i · source / target)."""
    rows = np.minimum(np.arange(height) * images.shape[1] // height, images.shape[1] - 1)
    columns = np.minimum(np.arange(width) * images.shape[2] // width, images.shape[2] - 1)
    picked: Array = images[:, rows][:, :, columns]
    return picked


def _bilinear(images: Array, height: int, width: int) -> Array:
    """OpenCV's INTER_LINEAR: half-pixel centres, clamped borders; uint8 in its 11-bit fixed point (resize.cpp)."""
    top, bottom, fraction_y = _taps(images.shape[1], height)
    left, right, fraction_x = _taps(images.shape[2], width)
    if images.dtype != np.uint8:
        across = fraction_x[None, None, :, None].astype(np.float32)
        down = fraction_y[None, :, None, None].astype(np.float32)
        rows = images[:, :, left] * (1 - across) + images[:, :, right] * across
        blended: Array = (rows[:, top] * (1 - down) + rows[:, bottom] * down).astype(images.dtype)
        return blended
    x_right, x_left = _weights(fraction_x)
    y_bottom, y_top = _weights(fraction_y)
    wide = images.astype(np.int64)
    mixed = wide[:, :, left] * x_left[None, None, :, None] + wide[:, :, right] * x_right[None, None, :, None]
    above: Array = (mixed[:, top] >> 4) * y_top[None, :, None, None] >> 16
    below = (mixed[:, bottom] >> 4) * y_bottom[None, :, None, None] >> 16
    rounded: Array = np.clip((above + below + 2) >> 2, 0, 255).astype(np.uint8)
    return rounded


def _taps(source: int, target: int) -> tuple[Array, Array, Array]:
    """For each target index: the two source indices and the weight of the second, float64 in 0..1."""
    position = (np.arange(target) + 0.5) * (source / target) - 0.5
    first = np.floor(position).astype(np.int64)
    fraction = np.where((first < 0) | (first >= source - 1), 0.0, position - first)
    first = np.clip(first, 0, source - 1)
    return first, np.minimum(first + 1, source - 1), fraction


def _weights(fraction: Array) -> tuple[Array, Array]:
    """Weights of second and first source pixel in 1/2048."""
    return np.rint(fraction * 2048).astype(np.int64), np.rint((1.0 - fraction) * 2048).astype(np.int64)


def _padded(images: Array, step: Resize, offset: tuple[int, int]) -> Array:
    if step.pad_value is None or step.pad_anchor is None:
        raise UnsupportedFeature(
            "run preprocess step resize", "mode fit_pad needs pad_value and pad_anchor", "write both in the manifest"
        )
    count, height, width, channels = images.shape
    wanted_h, wanted_w = step.size
    value: Any = np.asarray(step.pad_value, dtype=np.float64)
    canvas = np.empty((count, wanted_h, wanted_w, channels), dtype=images.dtype)
    canvas[...] = value if value.size == channels else value[0]
    top, left = offset
    canvas[:, top : top + height, left : left + width] = images
    return canvas
