"""What a caller gave, checked against what the release's signature promises to take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.steps import Color
from edge_runtime.contract.tensor import AxisRange, InputSpec, Shape
from edge_runtime.inference.backend import Array
from edge_runtime.inference.blame import BadInput
from edge_runtime.inference.preprocessing.values import CHANNELS


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
