"""The steps on pictures, and on numbers in general; a model that takes tensors as they are does without."""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

from typing import Literal

from edge_runtime.contract.steps import Color, Count, Preparing


class Decode(Preparing, frozen=True, kw_only=True, tag="decode"):
    """Encoded image bytes (or an array) to uint8 HWC."""

    color: Color
    exif: Literal["apply", "ignore"]
    reduced: Literal["never", "exact_scale", "allowed"]
    formats: list[str] = []


class Resize(Preparing, frozen=True, kw_only=True, tag="resize"):
    """Image to a fixed size; `antialias` true is Pillow's filter, false OpenCV's."""

    mode: Literal["stretch", "fit_pad", "fit_crop", "shortest_side", "none"]
    size: tuple[Count, Count]
    """Height, width."""
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]
    antialias: bool
    pad_value: list[float] | None = None
    pad_anchor: Literal["center", "top_left"] | None = None
    stride: int | None = None
    tolerance_lsb: int = 0


class Crop(Preparing, frozen=True, kw_only=True, tag="crop"):
    """Cut a window out of an image."""

    mode: Literal["center", "boxes"]
    size: tuple[Count, Count] | None = None
    margin: float | None = None


class ColorStep(Preparing, frozen=True, kw_only=True, tag="color"):
    """Change the colour order or reduce to grey."""

    to: Color


class Normalize(Preparing, frozen=True, kw_only=True, tag="normalize"):
    """y = (x · scale − mean) / std, per channel; all in units of the value after `scale`."""

    scale: float
    mean: list[float]
    std: list[float]


class Layout(Preparing, frozen=True, kw_only=True, tag="layout"):
    """Permute axes."""

    to: Literal["NCHW", "NHWC", "CHW", "HWC", "NT", "NTC"]


class Cast(Preparing, frozen=True, kw_only=True, tag="cast"):
    """Change the dtype with a stated rounding."""

    dtype: str
    rounding: Literal["half_even", "floor"]
    saturate: bool
