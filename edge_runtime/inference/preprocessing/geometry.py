"""Where the pixels of a model's input lie in the caller's picture: what resizing, padding and cropping did; pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from edge_runtime.contract.errors import UnsupportedFeature
from edge_runtime.contract.image_steps import Crop, Resize
from edge_runtime.contract.steps import PreStep
from edge_runtime.inference.backend import Array


class Placement(msgspec.Struct, frozen=True):
    """The picture as the model sees it: input = picture · scale + offset, both measured from the top left corner."""

    picture: tuple[int, int]
    """Height, width of the caller's picture, upright as `decode` leaves it."""
    size: tuple[int, int]
    """Height, width of the model's input."""
    scale: tuple[float, float]
    """Vertical, horizontal."""
    offset: tuple[float, float]
    """Vertical, horizontal, in pixels of the model's input."""

    def to_picture(self, boxes: Array) -> Array:
        """Boxes [K, 4] (x1, y1, x2, y2) from pixels of the model's input to pixels of the picture, cut at its edges."""
        offset, scale = (np.asarray([pair[1], pair[0]] * 2, np.float64) for pair in (self.offset, self.scale))
        height, width = self.picture
        placed: Array = np.clip((boxes - offset) / scale, 0.0, [width, height, width, height])
        return placed


class Fit(msgspec.Struct, frozen=True):
    """What one resize does: the picture becomes `inner`, and lies at `offset` in `outer`."""

    inner: tuple[int, int]
    outer: tuple[int, int]
    offset: tuple[int, int]
    """Down, right; negative where the picture is cut."""


def fit_of(step: Resize, height: int, width: int) -> Fit:
    """Sizes of a resize.

    `fit_pad` and `fit_crop` keep the aspect ratio (sides rounded half to even), then pad or cut at the centre, odd
    pixels to the bottom right; `shortest_side` cuts the long side's fraction off.
    """
    wanted_h, wanted_w = step.size
    match step.mode:
        case "none":
            return Fit((height, width), (height, width), (0, 0))
        case "stretch":
            return Fit(step.size, step.size, (0, 0))
        case "shortest_side":
            short = min(height, width)
            inner = height * wanted_h // short, width * wanted_h // short
            return Fit(inner, inner, (0, 0))
        case "fit_pad":
            scale = min(wanted_h / height, wanted_w / width)
            inner = max(1, round(height * scale)), max(1, round(width * scale))
            centred = step.pad_anchor == "center"
            offset = ((wanted_h - inner[0]) // 2, (wanted_w - inner[1]) // 2) if centred else (0, 0)
            return Fit(inner, step.size, offset)
        case "fit_crop":
            scale = max(wanted_h / height, wanted_w / width)
            inner = max(wanted_h, round(height * scale)), max(wanted_w, round(width * scale))
            return Fit(inner, step.size, (-((inner[0] - wanted_h) // 2), -((inner[1] - wanted_w) // 2)))


def place(steps: Sequence[PreStep], height: int, width: int) -> Placement:
    """Follow a picture of that size through its steps.

    Raises:
        UnsupportedFeature: a crop whose window the steps alone do not tell.
    """
    size, scale, offset = (height, width), (1.0, 1.0), (0.0, 0.0)
    for step in steps:
        if isinstance(step, Resize):
            fit = fit_of(step, *size)
            ratio = fit.inner[0] / size[0], fit.inner[1] / size[1]
            scale = scale[0] * ratio[0], scale[1] * ratio[1]
            offset = offset[0] * ratio[0] + fit.offset[0], offset[1] * ratio[1] + fit.offset[1]
            size = fit.outer
        elif isinstance(step, Crop):
            if step.mode != "center" or step.size is None:
                raise UnsupportedFeature("place boxes in the picture", f"crop {step.id} has no fixed window")
            top, left = crop_corner(size, step.size)
            offset = offset[0] - top, offset[1] - left
            size = step.size
    return Placement((height, width), size, scale, offset)


def crop_corner(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """Top and left of the middle window of that height and width."""
    return (size[0] - wanted[0]) // 2, (size[1] - wanted[1]) // 2
