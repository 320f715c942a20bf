"""Steps on pictures and on numbers in general: resize, crop, colour, normalisation, axis order, dtype."""

from __future__ import annotations

from functools import partial

import numpy as np

from edge_runtime.contract.errors import ContractError, UnsupportedFeature
from edge_runtime.contract.steps import Cast, Color, ColorStep, Crop, Layout, Normalize, PreStep, Resize
from edge_runtime.inference.backend import Array
from edge_runtime.inference.images import center_crop, recolour, resize
from edge_runtime.inference.values import Step, Value


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
        case _:
            op = type(step).__struct_config__.tag
            raise UnsupportedFeature(
                f"run preprocess step {op} ({step.id})", "this runtime does not build it yet", "update the runtime"
            )


def permute(value: Value, wanted: str) -> Value:
    """The value with its axes in another order. Raises: ContractError when it does not have these axes."""
    current, target = value.layout, wanted if wanted.startswith("N") else f"N{wanted}"
    if current is None or sorted(current) != sorted(target):
        raise ContractError("run preprocess step layout", f"a tensor of layout {current} cannot become {target}")
    return Value(value.array.transpose([current.index(axis) for axis in target]), target, value.color, value.rate_hz)


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
    shape = [1] * value.array.ndim
    shape[axis] = -1
    scaled = value.array.astype(np.float32) * np.float32(step.scale)
    for numbers in (step.mean, step.std):
        if len(numbers) not in {1, channels}:
            raise ContractError(
                f"run preprocess step normalize ({step.id})", f"{len(numbers)} numbers for {channels} channels"
            )
    mean, std = (np.asarray(numbers, np.float32).reshape(shape) for numbers in (step.mean, step.std))
    return Value((scaled - mean) / std, value.layout, value.color, value.rate_hz)


def _cast(value: Value, step: Cast) -> Value:
    dtype = np.dtype(step.dtype)
    array = value.array
    if np.issubdtype(dtype, np.integer) and np.issubdtype(array.dtype, np.floating):
        array = np.rint(array) if step.rounding == "half_even" else np.floor(array)
    if step.saturate and np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        array = np.clip(array, limits.min, limits.max)
    return Value(array.astype(dtype), value.layout, value.color, value.rate_hz)
