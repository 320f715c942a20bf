"""A tensor on its way from what an application gave to what an engine takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.steps import Color
from edge_runtime.contract.tensor import TensorSpec
from edge_runtime.inference.backend import Array, Tensors

CHANNELS: Final = {"rgb": 3, "bgr": 3, "gray": 1}
"""Channels of an image of that colour."""


class Value(msgspec.Struct, frozen=True):
    """A tensor under way, always with its batch axis, and what is in it beside the numbers."""

    array: Array
    layout: str | None = None
    """`NHWC` for pictures, `NT` or `NTC` for audio and what is made of it, None where axes have no such meaning."""
    color: Color | None = None
    rate_hz: int | None = None
    """Samples per second of audio."""


Step = Callable[[Value], Value]
"""One compiled preprocessing step."""


def permute(value: Value, wanted: str) -> Value:
    """The value with its axes in another order. Raises: ContractError when it does not have these axes."""
    current, target = value.layout, wanted if wanted.startswith("N") else f"N{wanted}"
    if current is None or sorted(current) != sorted(target):
        raise ContractError("run preprocess step layout", f"a tensor of layout {current} cannot become {target}")
    return Value(value.array.transpose([current.index(axis) for axis in target]), target, value.color, value.rate_hz)


def with_axes(array: Array, spec: TensorSpec) -> Array:
    """The array with the axes of the tensor it becomes: windows join the batch, axes of size one come and go."""
    if not spec.shape and array.size == 1:
        return array.reshape(())
    if array.ndim == len(spec.shape) + 1:
        # [N, windows, …] becomes one row per window; a tensor without a batch axis loses it.
        return array.reshape(-1, *array.shape[2:])
    missing = len(spec.shape) - array.ndim
    for axis, size in enumerate(spec.shape):
        if missing > 0 and size == 1 and axis > 0 and (axis >= array.ndim or array.shape[axis] != 1):
            array = np.expand_dims(array, axis)
            missing -= 1
    return array


def longest(feeds: Tensors) -> int:
    """How many rows the longest of some tensors has, whatever the others are; 1 where none has axes."""
    return max((len(array) for array in feeds.values() if array.ndim), default=1)
