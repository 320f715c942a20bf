"""Steps on pictures and on numbers in general: resize, crop, colour, normalisation, axis order, dtype."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from edge_runtime.contract.errors import ContractError, UnsupportedFeature
from edge_runtime.contract.image_steps import Cast, ColorStep, Crop, Layout, Normalize, Resize
from edge_runtime.contract.steps import Color, PreStep, op_of
from edge_runtime.inference.backend import Array
from edge_runtime.inference.preprocessing.images import center_crop, recolour, resize
from edge_runtime.inference.preprocessing.values import Step, Value, permute

_TABLE_FROM: Final = 4096
"""Bytes from which on looking up beats computing."""


def build_image_step(step: PreStep) -> Step:
    """One step as a function of the value before it. Raises: UnsupportedFeature for another operation."""
    match step:
        case Resize():
            return lambda value: Value(resize(_nhwc(value, "resize"), step), value.layout, value.color)
        case Crop(mode="center", size=(int() as height, int() as width)):
            return lambda value: Value(center_crop(_nhwc(value, "crop"), (height, width)), value.layout, value.color)
        case ColorStep():
            return partial(_recolour, wanted=step.to)
        case Normalize():
            return partial(_normalize, step=step)
        case Layout():
            return partial(permute, wanted=step.to)
        case Cast():
            return partial(_cast, step=step)
        case _ if op_of(step) == "tokenize":
            because = "text is reserved in the contract (feature tokenizer), and no runtime reads it yet"
            remedy = "turn it into numbers in the application, and take the ids as kind tensor"
            raise UnsupportedFeature(f"run preprocess step tokenize ({step.id})", because, remedy)
        case _:
            op = op_of(step)
            raise UnsupportedFeature(
                f"run preprocess step {op} ({step.id})", "this runtime does not build it yet", "update the runtime"
            )


def _nhwc(value: Value, op: str) -> Array:
    if value.layout != "NHWC":
        raise ContractError(
            f"run preprocess step {op}", f"it works on NHWC images, not on {value.layout or 'a tensor'}"
        )
    return value.array


def _recolour(value: Value, wanted: Color) -> Value:
    if value.color is None:
        raise ContractError("run preprocess step color", "the input does not say its colour")
    return Value(recolour(_nhwc(value, "color"), value.color, wanted), value.layout, wanted)


def _normalize(value: Value, step: Normalize) -> Value:
    """y = (x · scale − mean) / std in float32, in this order, as the converter writes it into graphs."""
    axis = value.layout.index("C") if value.layout and "C" in value.layout else value.array.ndim - 1
    channels = value.array.shape[axis]
    for numbers in (step.mean, step.std):
        if len(numbers) not in {1, channels}:
            raise ContractError(
                f"run preprocess step normalize ({step.id})", f"{len(numbers)} numbers for {channels} channels"
            )
    mean, std = (np.asarray(numbers, np.float32) for numbers in (step.mean, step.std))
    if value.array.dtype == np.uint8 and value.layout == "NHWC" and value.array.size > _TABLE_FROM:
        every_byte = np.arange(256, dtype=np.uint8)[:, None]
        normalised = _looked_up(value.array, _normalised(every_byte, step.scale, mean, std))
    else:
        shape = [1] * value.array.ndim
        shape[axis] = -1
        normalised = _normalised(value.array, step.scale, mean.reshape(shape), std.reshape(shape))
    return Value(normalised, value.layout, value.color, value.rate_hz)


def _normalised(array: Array, scale: float, mean: Array, std: Array) -> Array:
    normalised: Array = (array.astype(np.float32) * np.float32(scale) - mean) / std
    return normalised


def _looked_up(images: Array, table: Array) -> Array:
    """float32 [N, H, W, C] of uint8 [N, H, W, C] by table [256, C or 1]; planes lie together, as most files want them.

    A byte has 256 values: each is computed once, and by the same arithmetic.
    """
    count, height, width, channels = images.shape
    planes = np.empty((count, channels, height, width), np.float32)
    columns = [np.ascontiguousarray(table[:, channel % table.shape[1]]) for channel in range(channels)]
    for image, planes_of_image in zip(images, planes, strict=True):
        for channel, column in enumerate(columns):
            np.take(column, image[:, :, channel], out=planes_of_image[channel], mode="clip")
    return planes.transpose(0, 2, 3, 1)


def _cast(value: Value, step: Cast) -> Value:
    dtype = np.dtype(step.dtype)
    array = value.array
    if np.issubdtype(dtype, np.integer) and np.issubdtype(array.dtype, np.floating):
        array = np.rint(array) if step.rounding == "half_even" else np.floor(array)
    if step.saturate and np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        array = np.clip(array, limits.min, limits.max)
    return Value(array.astype(dtype), value.layout, value.color, value.rate_hz)
