"""Pixels: decoding, resizing, cropping and recolouring of uint8 or float32 NHWC images, exactly as the steps say.

Nothing here depends on which optional libraries a machine has: the same pixels come out everywhere, or an error.
"""

from __future__ import annotations

import io
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from edge_runtime.contract.errors import EdgeError, InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.image_steps import Decode, Resize
from edge_runtime.contract.steps import Color
from edge_runtime.importing import uncollected
from edge_runtime.inference.backend import Array

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage
    from PIL.Image import Resampling
    from PIL.ImageFile import ImageFile

    from edge_runtime.inference.preprocessing.geometry import Fit
    from edge_runtime.inference.preprocessing.reduction import Reduction

MAX_PIXELS: Final = 64 * 1024 * 1024
"""Largest image decoded; a small file can unfold into gigabytes."""

_ORIENTATION: Final = 0x0112
_ON_THEIR_SIDE: Final = frozenset({5, 6, 7, 8})
"""Orientations whose upright picture is as wide as the file is high (EXIF 2.3, tag 0x0112)."""
_EXIF: Final = b"Exif\x00\x00"
_TURNED_BY_XMP: Final = rb'tiff:Orientation(?!="1"|>1<)'
"""Pillow looks there where EXIF says nothing (XMP specification part 1, TIFF namespace)."""
_CODECS: Final = {"jpeg": "JPEG", "png": "PNG", "bmp": "BMP", "webp": "WEBP"}
_JPEGS: Final = frozenset({"JPEG", "MPO"})
"""What Pillow's reader of JPEG files calls them: MPO where another picture follows, as cameras write it."""
_READERS: Final = {
    "JPEG": (b"\xff\xd8\xff", "PIL.JpegImagePlugin"),
    "PNG": (b"\x89PNG", "PIL.PngImagePlugin"),
    "BMP": (b"BM", "PIL.BmpImagePlugin"),
    "WEBP": (b"RIFF", "PIL.WebPImagePlugin"),
}
"""How a file of each of Pillow's formats begins, and the module that reads it."""
_PIL_MODES: Final = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}
_EIGHT_BIT_MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})


def decode_image(
    content: bytes, step: Decode, accepted: Sequence[str], reduction: Reduction | None = None
) -> Array:
    """Encoded bytes to uint8 [1, H, W, C] in the step's colour order.

    Args:
        content: of the file.
        step: how it is decoded.
        accepted: encodings that the input takes.
        reduction: how far a JPEG may be reduced on the way; None: not at all.

    Raises:
        InferenceError: not a complete image of an accepted encoding, or too large.
    """
    pixels = _decoded_sooner(content, step, accepted, reduction)
    if pixels is None:
        with open_picture(content, step, accepted, reduction) as picture:
            pixels = pixels_of(picture)
        if step.color == "bgr":
            pixels = pixels[:, :, ::-1]
    return pixels[None]


@contextmanager
def open_picture(
    content: bytes, step: Decode, accepted: Sequence[str], reduction: Reduction | None = None
) -> Iterator[PilImage]:
    """Encoded bytes as Pillow's image, upright and in the step's colours, but red before blue in any case.

    A JPEG comes as small as `reduction` permits.

    Raises:
        InferenceError: as `decode_image`, here or while the context lasts.
    """
    codecs = _codecs(step, accepted)
    try:
        with _opened(content, codecs) as image:
            _check_size(image.width, image.height)
            if image.mode not in _EIGHT_BIT_MODES:
                raise InferenceError("decode an image", f"its pixels are {image.mode}, not 8-bit", "convert it first")
            orientation = image.getexif().get(_ORIENTATION, 1) if step.exif == "apply" else 1
            if reduction is not None and image.format in _JPEGS:
                _reduce(cast("ImageFile", image), reduction, is_on_its_side=orientation in _ON_THEIR_SIDE)
            if orientation != 1:
                from PIL import ImageOps

                ImageOps.exif_transpose(image, in_place=True)
            mode = _PIL_MODES[step.color]
            yield image if image.mode == mode else image.convert(mode)
    except EdgeError:
        raise
    except Exception as error:  # damaged metadata makes Pillow raise struct.error, and much besides
        raise _not_whole(codecs, f" ({shown(str(error), 120)})") from error


def _reduce(image: ImageFile, reduction: Reduction, *, is_on_its_side: bool) -> None:
    from edge_runtime.inference.preprocessing.reduction import reducing_factor

    width, height = image.size
    factor = reducing_factor(reduction, *((width, height) if is_on_its_side else (height, width)))
    if factor > 1:
        image.draft(image.mode, (width // factor, height // factor))


def _opened(content: bytes, codecs: list[str]) -> PilImage:
    """As `Image.open`, which imports the readers of five formats to find the right one. Raises: InferenceError."""
    codec = next((one for one in codecs if content.startswith(_READERS[one][0])), None)
    if codec == _CODECS["png"] and (plain := _plain_png(content)) is not None:
        return plain
    if codec is not None:
        _import_reader(_READERS[codec][1])
        from PIL.Image import OPEN

        read, is_its_own = OPEN[codec]
        # What a reader raises to say that a file is none of its own.
        with suppress(SyntaxError, IndexError, TypeError, struct.error):
            if is_its_own is None or is_its_own(content[:16]) is True:
                return read(io.BytesIO(content), "")
    raise _not_whole(codecs, "")


def _plain_png(content: bytes) -> PilImage | None:
    """A PNG file without Pillow's reader of such files, for which a first picture would wait; None: it takes that one.

    Raises:
        InferenceError: too large.
    """
    _import_reader("PIL.ImageFile")  # by which Pillow gives out the pixels of any file
    from edge_runtime.inference.preprocessing.png_file import read_plain_png

    plain = read_plain_png(content)
    if plain is None:
        return None
    _check_size(plain.width, plain.height)
    from PIL import Image

    try:
        return Image.frombytes(plain.mode, (plain.width, plain.height), plain.packed, "zip", plain.mode)
    except ValueError:
        return None  # its reader says what is wrong


def load_readers(step: Decode, accepted: Sequence[str]) -> None:
    """Load whatever reads the encodings that a step takes; nothing where it takes arrays only."""
    codecs = _taken(step, accepted)
    for codec in codecs:
        _import_reader(_READERS[codec][1])
    if _CODECS["jpeg"] in codecs:
        from edge_runtime.inference.preprocessing import opencv

        opencv.find_decoder()


def _import_reader(module: str) -> None:
    if module not in sys.modules:
        with uncollected():
            import_module(module)


def pixels_of(picture: PilImage) -> Array:
    """uint8 [H, W, C] of an image in mode RGB or L."""
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _taken(step: Decode, accepted: Sequence[str]) -> list[str]:
    return [_CODECS[name] for name in (step.formats or accepted) if name in _CODECS]


def _codecs(step: Decode, accepted: Sequence[str]) -> list[str]:
    codecs = _taken(step, accepted)
    if not codecs:
        raise InferenceError("decode an image", "the model accepts arrays only", "decode it before asking")
    return codecs


def _decoded_sooner(
    content: bytes, step: Decode, accepted: Sequence[str], reduction: Reduction | None
) -> Array | None:
    """uint8 [H, W, C] of a common JPEG file by OpenCV, where that gives what Pillow gives; None for other files."""
    if _CODECS["jpeg"] not in _codecs(step, accepted) or not content.startswith(_READERS["JPEG"][0]):
        return None
    from edge_runtime.inference.preprocessing.jpeg_header import read_jpeg_header

    header = read_jpeg_header(content)
    if header is None or header.components not in {1, 3}:
        return None
    if step.color == "gray" and header.components == 3:
        return None  # OpenCV takes the file's luma, Pillow makes grey of the colours
    if step.exif == "apply" and _is_turned(header.metadata):
        return None
    _check_size(header.width, header.height)
    from edge_runtime.inference.preprocessing import opencv
    from edge_runtime.inference.preprocessing.reduction import reducing_factor

    return opencv.decode_jpeg(content, step.color, reducing_factor(reduction, header.height, header.width))


def _is_turned(metadata: Sequence[bytes]) -> bool:
    """Whether a picture may lie on its side: then whoever knows all rules of metadata opens the whole file."""
    exif = [one for one in metadata if one.startswith(_EXIF)]
    if len(exif) > 1 or any(re.search(_TURNED_BY_XMP, one) for one in metadata):
        return True
    if not exif:
        return False
    from PIL import Image

    fields = Image.Exif()
    try:
        fields.load(exif[0])
        return bool(fields.get(_ORIENTATION, 1) != 1)
    except Exception:  # noqa: BLE001 (damaged metadata: whoever opens the whole file will say what is wrong with it)
        return True


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
    from edge_runtime.inference.preprocessing.geometry import fit_of  # not for pictures that are taken as they are

    height, width = images.shape[1:3]
    fit = fit_of(step, height, width)
    if step.mode == "none" and step.size != (height, width):
        raise InferenceError(
            "prepare an image",
            f"it is {_size(height, width)} and the model resizes nothing",
            f"give one that is {_size(*step.size)}",
        )
    return _fitted(images if step.mode == "none" else _scaled(images, *fit.inner, step), step, fit)


def resize_picture(picture: PilImage, step: Resize) -> Array:
    """As `resize` with antialiasing, from Pillow's image: uint8 [1, H, W, C]. Raises: as `resize`."""
    from edge_runtime.inference.preprocessing.geometry import fit_of

    fit = fit_of(step, picture.height, picture.width)
    height, width = fit.inner
    _check_size(width, height)
    same = (picture.height, picture.width) == fit.inner
    scaled = picture if same else picture.resize((width, height), _pillow_filter(step.filter))
    return _fitted(pixels_of(scaled)[None], step, fit)


def _fitted(scaled: Array, step: Resize, fit: Fit) -> Array:
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
    from edge_runtime.inference.preprocessing.geometry import crop_corner

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
    if step.filter not in {"nearest", "bilinear"}:
        raise UnsupportedFeature(
            f"run preprocess step resize with filter {step.filter} and antialias false",
            "only nearest and bilinear are built without antialiasing",
            "train and convert with antialias true, or with bilinear",
        )
    from edge_runtime.inference.preprocessing import opencv
    from edge_runtime.inference.preprocessing.scaling import scale_bilinear, scale_nearest

    sooner = [opencv.scale(image, height, width, step.filter) for image in images]
    found = [image for image in sooner if image is not None]
    if found and len(found) == len(images):
        return found[0][None] if len(found) == 1 else np.stack(found)
    return (scale_nearest if step.filter == "nearest" else scale_bilinear)(images, height, width)


def _pillow(image: Array, height: int, width: int, filter_name: str) -> Array:
    from PIL import Image

    resample = _pillow_filter(filter_name)
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


def _pillow_filter(name: str) -> Resampling:
    from PIL.Image import Resampling

    filters = {
        "nearest": Resampling.NEAREST, "bilinear": Resampling.BILINEAR, "area": Resampling.BOX,
        "bicubic": Resampling.BICUBIC, "lanczos": Resampling.LANCZOS,
    }  # fmt: skip
    return filters[name]


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
