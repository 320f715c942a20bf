"""What a caller gave, checked against what the release's signature promises, and a tensor on its way to the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec
import numpy as np

from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.contract.steps import Color
from edge_runtime.contract.tensor import AxisRange, InputSpec, Shape, TensorSpec
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.blame import BadInput

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


def color_of(spec: InputSpec) -> Color | None:
    """The colour order of a picture input; None for other inputs."""
    known: Mapping[str, Literal["rgb", "bgr", "gray"]] = {"rgb": "rgb", "bgr": "bgr", "gray": "gray"}
    return known.get(spec.color or "")


def batched_layout(spec: InputSpec) -> str | None:
    """Axis order of an input with its batch axis, where axes have a meaning."""
    if spec.layout is None:
        axes = len([size for size in spec.shape if size != "N"])
        return {1: "NT", 2: "NTC"}.get(axes) if spec.kind == "audio" else None
    return spec.layout if spec.layout.startswith("N") else f"N{spec.layout}"


def check_named(given: object) -> None:
    """Refuse inputs that come without their names. Raises: BadInput."""
    if type(given) is not dict and not isinstance(given, Mapping):
        because = f"they are a {type(given).__name__}"
        raise BadInput("take the inputs", because, "give each by its name: {'image': …}")


def plain_array(given: object, what: str) -> Array:
    """What was given as numpy's own kind of array, uncopied. Raises: InferenceError: it is none, or has holes."""
    if type(given) is np.ndarray:
        return given
    if isinstance(given, np.ma.MaskedArray):
        # Arithmetic passes over what is masked, so an engine would be fed half-prepared numbers.
        raise InferenceError(f"take {what}", "it is a masked array", "fill its holes (filled) on purpose")
    if isinstance(given, (np.ndarray, np.generic)):
        return np.asarray(given)
    raise InferenceError(f"take {what}", f"it is a {type(given).__name__}", "give a numpy array, or bytes if encoded")


def are_listed(given: object) -> bool:
    """Whether samples are given one by one, encoded or as arrays, as clients of doors give them."""
    return isinstance(given, list | tuple) and bool(given) and all(isinstance(one, bytes | np.ndarray) for one in given)


def one_by_one(inputs: Mapping[str, bytes | Array | Sequence[bytes | Array]]) -> Iterator[dict[str, bytes | Array]]:
    """Inputs of one sample after the other; arrays beside lists have one row for each.

    Raises:
        BadInput: they do not hold as many samples each.
    """
    sizes = {
        len(one) if isinstance(one, list | tuple) or (isinstance(one, np.ndarray) and one.ndim) else 0
        for one in inputs.values()
    }
    if len(sizes) != 1 or 0 in sizes:
        raise BadInput("take the inputs", f"they hold {sorted(sizes)} samples", "give as many of each, at least one")
    for row in range(sizes.pop()):
        yield {
            name: values[row : row + 1] if isinstance(values, np.ndarray) else values[row]  # type: ignore[misc]
            for name, values in inputs.items()
        }


def check_dtype(array: Array, wanted: str, spec: InputSpec) -> None:
    """Refuse numbers of another type. Raises: InferenceError."""
    # By name as well: the other byte order is the same type.
    if array.dtype != _known(wanted) and array.dtype.name != wanted:
        raise InferenceError(
            f"take input {spec.name}", f"its dtype is {array.dtype.name}, not {wanted}", "convert it on purpose"
        )


@lru_cache(maxsize=64)
def _known(name: str) -> np.dtype[Any] | None:
    """The dtype of that name; asked for once, because numpy puts the names of dtypes together anew each time."""
    try:
        return np.dtype(name)
    except TypeError:
        return None


def with_batch(array: Array, spec: InputSpec, axes: Mapping[str, AxisRange], color: Color | None) -> Array:
    """The array with a batch axis, its sizes checked against the signature (the channels against its colour).

    Raises:
        InferenceError: another shape.
    """
    shape = list(spec.shape)
    if not _has_batch(spec):
        shape.insert(0, 1)
    if spec.kind == "image" and color:
        shape[-1] = CHANNELS[color]
    if array.ndim == len(shape) - 1:
        array = array[None]
    if array.ndim != len(shape):
        raise InferenceError(f"take input {spec.name}", f"its shape is {list(array.shape)}, not {axes_of(spec.shape)}")
    for size, wanted in zip(array.shape, shape, strict=True):
        check_size(size, wanted, f"input {spec.name}", spec.shape, axes)
    return array


def check_size(size: int, wanted: int | str, what: str, shape: Shape, axes: Mapping[str, AxisRange]) -> None:
    """Refuse a size that an axis of that shape does not allow. Raises: InferenceError."""
    if isinstance(wanted, int):
        if size != wanted:
            raise InferenceError(f"take {what}", f"a size is {size} where {axes_of(shape)} asks for {wanted}")
    elif size < 1 or (wanted in axes and not axes[wanted].min <= size <= axes[wanted].max):
        bounds = axes.get(wanted)
        between = "at least 1"
        if bounds:
            between = str(bounds.min) if bounds.min == bounds.max else f"between {bounds.min} and {bounds.max}"
        raise InferenceError(f"take {what}", f"axis {wanted} is {size}", f"make it {between}")


def axes_of(shape: Shape) -> str:
    """A shape as people write it: [N, H, W, 3]."""
    return f"[{', '.join(map(str, shape))}]"


def _has_batch(spec: InputSpec) -> bool:
    if spec.layout:
        return spec.layout.startswith("N")
    if spec.kind == "audio":
        return spec.shape[0] == "N"
    return bool(spec.shape) and (isinstance(spec.shape[0], str) or spec.shape[0] == 1)
