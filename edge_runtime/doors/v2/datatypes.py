"""Datatypes of the protocol, and tensors as both doors carry them: raw bytes, JSON numbers, BYTES elements.

Whatever arrives was written by a stranger: sizes are compared with the bytes that are there before memory is taken.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np

from edge_runtime.contract.ids import shown
from edge_runtime.inference.backend import Array
from edge_runtime.serving.calls import BYTES as BYTES_DTYPE
from edge_runtime.serving.calls import BadCall, Values

BYTES: Final = "BYTES"
"""Elements of any length, each behind its length as four bytes, little-endian."""

Buffer = bytes | bytearray | memoryview
"""Bytes of a tensor."""

AXES_MAX: Final = 32
"""As many as the oldest supported numpy has."""
ELEMENTS_MAX: Final = 1 << 16
"""BYTES elements of one tensor: each is an object of its own, and whoever makes them keeps other threads waiting."""
_COUNT_MAX: Final = 1 << 48

_DTYPES: Final = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Open Inference Protocol, "Tensor Data Types"; binary data is little-endian by Triton's binary extension."""

_NAMES: Final = {dtype.name: name for name, dtype in _DTYPES.items()} | {BYTES_DTYPE: BYTES}
_NESTED: Final = re.compile(rb"\s*\[\s*\[")
_LENGTH: Final = struct.Struct("<I")
_ITEMS: Final[dict[str, type]] = {"b": bool, "u": int, "i": int, "f": float}


def datatype_of(dtype: str) -> str:
    """The protocol's name of a numpy dtype (or of `bytes`)."""
    return _NAMES[dtype]


def numpy_dtype(name: str, datatype: str) -> np.dtype[Any]:
    """The numpy dtype of a tensor called `name`. Raises: BadCall for BYTES, BF16 and what nobody knows."""
    dtype = _DTYPES.get(datatype)
    if dtype is None:
        raise BadCall(
            f"read tensor {shown(name)}",
            f"datatype {shown(datatype)} is not supported here",
            "send FP32" if datatype == "BF16" else f"use one of {', '.join((*_DTYPES, BYTES))}",
        )
    return dtype


def element_count(name: str, shape: Sequence[int]) -> int:
    """How many elements a shape has. Raises: BadCall for negative sizes, too many axes, absurd products."""
    if len(shape) > AXES_MAX or min(shape, default=0) < 0:
        raise BadCall(f"read tensor {shown(name)}", f"shape {shown(list(shape))} is impossible")
    # The others too beside an axis of length 0, which makes nothing of any product.
    if math.prod(filter(None, shape)) > _COUNT_MAX:
        raise BadCall(f"read tensor {shown(name)}", f"shape {shown(list(shape))} has too many elements")
    return math.prod(shape)


def tensor_from_bytes(name: str, datatype: str, shape: Sequence[int], content: Buffer) -> Values:
    """A tensor from its raw bytes: a view of them where they are aligned, else a copy.

    Args:
        name: how errors call it.
        datatype: the protocol's name.
        shape: sizes as the client states them.
        content: little-endian numbers in row-major order, or BYTES elements behind their lengths.

    Raises:
        BadCall: datatype, shape and bytes do not fit together.
    """
    count = element_count(name, shape)
    if datatype == BYTES:
        return split_elements(name, count, content)
    dtype = numpy_dtype(name, datatype)
    if count * dtype.itemsize != len(content):
        raise BadCall(
            f"read tensor {shown(name)}",
            f"{datatype} {shown(list(shape))} takes {count * dtype.itemsize} bytes, {len(content)} came",
        )
    if not count:
        return np.zeros(shape, dtype)
    if datatype == "BOOL" and np.frombuffer(content, np.uint8).max() > 1:
        raise BadCall(f"read tensor {shown(name)}", "a BOOL is neither 0 nor 1")
    return plain_tensor(dtype, shape, content)


def plain_dtype(datatype: str, shape: Sequence[int], size: int) -> np.dtype[Any] | None:
    """The dtype of numbers of this shape that fill so many bytes and may have any value; None: they do not."""
    dtype = _DTYPES.get(datatype)
    if dtype is None or datatype == "BOOL" or not size or len(shape) > AXES_MAX or min(shape, default=0) < 0:
        return None
    return dtype if math.prod(shape) * dtype.itemsize == size else None


def plain_tensor(dtype: np.dtype[Any], shape: Sequence[int], content: Buffer) -> Array:
    """Numbers that fill their bytes: a view where those are aligned, else a copy."""
    array: Array = np.frombuffer(content, dtype).reshape(shape)
    # Engines may load whole vectors at once; where the client's JSON ended is chance.
    return array if array.flags.aligned else array.copy()


def split_elements(name: str, count: int, content: Buffer) -> list[bytes]:
    """The BYTES elements of a tensor. Raises: BadCall unless exactly `count` fill the content."""
    view, size = memoryview(content), len(content)
    # Each element takes its length at least: a false count is found before a list of it is made.
    if count * _LENGTH.size > size:
        raise BadCall(f"read tensor {shown(name)}", f"{count} elements do not fit into {size} bytes")
    if count > ELEMENTS_MAX:
        raise BadCall(f"read tensor {shown(name)}", f"it has {count} elements, at most {ELEMENTS_MAX} are taken")
    elements: list[bytes] = []
    at = 0
    for _ in range(count):
        end = at + _LENGTH.size
        if end <= size:
            at, end = end, end + int(_LENGTH.unpack_from(view, at)[0])
        if end > size:
            raise BadCall(f"read tensor {shown(name)}", f"element {len(elements)} goes past the end of the data")
        elements.append(bytes(view[at:end]))
        at = end
    if at != size:
        raise BadCall(f"read tensor {shown(name)}", f"{size - at} bytes follow its {count} elements")
    return elements


def tensor_from_json(name: str, datatype: str, shape: Sequence[int], data: Buffer) -> Values:
    """A tensor from a JSON array, flat in row-major order or nested as the shape says.

    Raises:
        BadCall: other values than the datatype has, or not as many as the shape says.
    """
    count = element_count(name, shape)
    text = memoryview(data)
    # One value takes a digit and a comma.
    if count > len(text):
        raise BadCall(f"read tensor {shown(name)}", f"its data holds fewer than {count} values")
    kind = str if datatype == BYTES else _ITEMS[numpy_dtype(name, datatype).kind]
    depth = len(shape) if _NESTED.match(text) else 1
    try:
        values = _reader(kind, max(depth, 1)).decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadCall(
            f"read tensor {shown(name)}", f"its data is no {datatype} {shown(list(shape))} ({error})"
        ) from None
    return _from_values(name, datatype, shape, values, depth)


def raw_bytes(values: Values) -> memoryview:
    """A tensor as the binary extension carries it; a view where the array is contiguous."""
    if isinstance(values, list):
        return memoryview(b"".join(part for element in values for part in (_LENGTH.pack(len(element)), element)))
    flat: Array = np.ascontiguousarray(values).reshape(-1)
    return flat.view(np.uint8).data


def json_values(name: str, values: Values) -> list[Any]:
    """A tensor as a flat JSON array; NaN and infinities become null. Raises: BadCall for BYTES that are no text."""
    if not isinstance(values, list):
        flat: list[Any] = values.reshape(-1).tolist()
        return flat
    try:
        return [element.decode() for element in values]
    except UnicodeDecodeError:
        raise BadCall(
            f"give output {shown(name)} as JSON", "it holds bytes that are no UTF-8", "ask for binary data"
        ) from None


def _from_values(name: str, datatype: str, shape: Sequence[int], values: Sequence[Any], depth: int) -> Values:
    count = element_count(name, shape)
    if datatype == BYTES:
        flat = _flattened(values, depth)
        if len(flat) != count:
            raise BadCall(f"read tensor {shown(name)}", f"{count} elements are announced, {len(flat)} came")
        return [element.encode() if isinstance(element, str) else element for element in flat]
    dtype = numpy_dtype(name, datatype)
    array: Array = np.zeros(0)
    try:
        array = np.array(values, np.float64 if dtype.kind == "f" else None)
        if dtype == np.uint64 and array.dtype.kind == "f" and array.size and array.min() >= 0:
            # What numpy makes of numbers that no int64 holds, beside some that one does.
            array = np.array(values, dtype)
        fits = array.size == count and (count == 0 or depth == 1 or array.shape == tuple(shape))
        if fits and dtype.kind in "ui" and array.size:
            bounds = np.iinfo(dtype)
            fits = array.dtype.kind in "ui" and bool(array.min() >= bounds.min and array.max() <= bounds.max)
        elif fits and dtype.kind == "f" and array.size:
            largest = np.finfo(dtype).max
            fits = bool(np.abs(array).max() <= largest)
    except (ValueError, OverflowError):
        fits = False
    if not fits:
        came = f"{array.size} values came" if array.size not in {0, count} else "what came is not that"
        raise BadCall(f"read tensor {shown(name)}", f"it is said to be {datatype} {shown(list(shape))}, and {came}")
    return array.astype(dtype).reshape(shape)


def _flattened(values: Sequence[Any], depth: int) -> list[Any]:
    flat = list(values)
    for _ in range(depth - 1):
        flat = [element for row in flat for element in row]
    return flat


@lru_cache(maxsize=4 * AXES_MAX)
def _reader(kind: type, depth: int) -> msgspec.json.Decoder[Any]:
    shape: Any = kind
    for _ in range(depth):
        shape = list[shape]
    return msgspec.json.Decoder(shape)
