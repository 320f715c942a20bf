"""Tensors that came as lists of numbers in a gRPC message (`contents`), as arrays.

Clients that care about speed send bytes (`raw_input_contents`); these lists are what generated code offers first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge_runtime.contract.ids import shown
from edge_runtime.doors.v2.datatypes import BYTES, element_count, numpy_dtype
from edge_runtime.doors.v2.wire import Document
from edge_runtime.inference.backend import Array
from edge_runtime.serving.calls import BadCall, Values

_FIELDS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""Which field carries which datatype; FP16 has none and travels raw."""

_PIECE_BYTES: Final = 1 << 18
"""Varints are unfolded piece by piece: at once they would take eight times their size, several times over."""

_VARINT_MAX_BYTES: Final = 10


def tensor_from_contents(name: str, datatype: str, shape: Sequence[int], contents: Document) -> Values:
    """A tensor from its typed contents.

    Args:
        name: how errors call it.
        datatype: the protocol's name.
        shape: sizes as the client states them; compared with what came before memory is taken.
        contents: fields of `InferTensorContents`.

    Raises:
        BadCall: other fields than the datatype's, another count, or a number that the datatype cannot hold.
    """
    count = element_count(name, shape)
    field = _FIELDS.get(datatype)
    if field is None:
        numpy_dtype(name, datatype)
        raise _refused(name, f"{datatype} has no typed contents", "send it in raw_input_contents")
    if others := sorted(contents.keys() - {field}):
        raise _refused(name, f"{datatype} travels in {field}, not in {others[0]}")
    pieces: list[memoryview] = contents.get(field, [])
    if datatype == BYTES:
        _check_count(name, len(pieces), count)
        return [bytes(piece) for piece in pieces]
    dtype = numpy_dtype(name, datatype)
    flat = _fixed(name, pieces, dtype, count) if dtype.kind == "f" else _numbers(name, pieces, dtype, count)
    return flat.reshape(shape)


def _fixed(name: str, pieces: list[memoryview], dtype: np.dtype[Any], count: int) -> Array:
    size = sum(piece.nbytes for piece in pieces)
    if size % dtype.itemsize:
        raise _refused(name, "its contents end within a number")
    _check_count(name, size // dtype.itemsize, count)
    # Joined even when it is one piece: where a tensor lies in a message is seldom where a number may lie in memory.
    return np.frombuffer(bytearray().join(pieces), dtype)


def _numbers(name: str, pieces: list[memoryview], dtype: np.dtype[Any], count: int) -> Array:
    folded = np.frombuffer(b"".join(pieces), np.uint8)
    _check_count(name, int(np.count_nonzero(folded < 0x80)), count)
    if folded.size and folded[-1] >= 0x80:
        raise _refused(name, "its contents end within a number")
    numbers = np.empty(count, dtype)
    filled = at = 0
    while at < folded.size:
        piece = folded[at : at + _PIECE_BYTES + _VARINT_MAX_BYTES]
        ends = np.flatnonzero(piece < 0x80)
        if not ends.size:
            raise _refused(name, f"a number in it has more than {_VARINT_MAX_BYTES} bytes")
        unfolded = _as_dtype(name, _unfold(name, piece[: ends[-1] + 1], ends), dtype)
        numbers[filled : filled + ends.size] = unfolded
        filled += ends.size
        at += int(ends[-1]) + 1
    return numbers


def _unfold(name: str, folded: npt.NDArray[np.uint8], ends: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
    """Values of varints that end at `ends`, uint64 [len(ends)]."""
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if int(lengths.max()) > _VARINT_MAX_BYTES:
        raise _refused(name, f"a number in it has more than {_VARINT_MAX_BYTES} bytes")
    shifts = 7 * (np.arange(folded.size) - np.repeat(starts, lengths))
    groups = (folded & 0x7F).astype(np.uint64) << shifts.astype(np.uint64)
    return np.bitwise_or.reduceat(groups, starts)


def _as_dtype(name: str, unfolded: npt.NDArray[np.uint64], dtype: np.dtype[Any]) -> Array:
    if dtype == np.bool_:
        return unfolded.astype(dtype)
    values = unfolded.view(np.int64) if dtype.kind == "i" else unfolded
    cast: Array = values.astype(dtype)
    if not np.array_equal(cast, values):
        raise _refused(name, f"{dtype.name} cannot hold all of its numbers")
    return cast


def _check_count(name: str, found: int, promised: int) -> None:
    if found != promised:
        raise _refused(name, f"{found} elements came, its shape says {promised}")


def _refused(name: str, because: str, remedy: str = "") -> BadCall:
    return BadCall(f"read tensor {shown(name)}", because, remedy)
