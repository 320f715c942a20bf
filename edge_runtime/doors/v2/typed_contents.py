"""Tensors that came as lists of numbers in a gRPC message (`contents`), as arrays.

Clients that care about speed send bytes (`raw_input_contents`); these lists are what generated code offers first.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from edge_runtime.doors.v2.wire import Document, MalformedMessage
from edge_runtime.inference.backend import Array

_FIELDS: Final = {
    "bool": "bool_contents",
    "int8": "int_contents",
    "int16": "int_contents",
    "int32": "int_contents",
    "int64": "int64_contents",
    "uint8": "uint_contents",
    "uint16": "uint_contents",
    "uint32": "uint_contents",
    "uint64": "uint64_contents",
    "float32": "fp32_contents",
    "float64": "fp64_contents",
    "bytes": "bytes_contents",
}
"""Which field carries which dtype; float16 has none and travels raw."""

_PIECE_BYTES: Final = 1 << 18
"""Varints are unfolded piece by piece: at once they would take eight times their size, several times over."""

_VARINT_MAX_BYTES: Final = 10


def read_contents(contents: Document, dtype: str, count: int) -> Array | list[bytes]:
    """The numbers of one tensor, flat, or its byte strings.

    Args:
        contents: fields of `InferTensorContents`.
        dtype: numpy name, or `bytes`.
        count: how many the tensor's shape promises; checked before memory is taken.

    Raises:
        MalformedMessage: other fields than the dtype's, another count, or a value that the dtype cannot hold.
    """
    field = _FIELDS.get(dtype)
    if field is None:
        raise MalformedMessage(f"{dtype} has no typed contents: send it in raw_input_contents")
    if others := sorted(contents.keys() - {field}):
        raise MalformedMessage(f"{dtype} travels in {field}, not in {others[0]}")
    pieces: list[memoryview] = contents.get(field, [])
    if dtype == "bytes":
        _check_count(len(pieces), count, field)
        return [bytes(piece) for piece in pieces]
    if dtype in {"float32", "float64"}:
        return _fixed(pieces, np.dtype(dtype).newbyteorder("<"), count, field)
    return _numbers(pieces, np.dtype(dtype), count, field)


def _fixed(pieces: list[memoryview], dtype: np.dtype[np.generic], count: int, field: str) -> Array:
    size = sum(piece.nbytes for piece in pieces)
    if size % dtype.itemsize:
        raise MalformedMessage(f"{field} ends within a number")
    _check_count(size // dtype.itemsize, count, field)
    # Joined even when it is one piece: where a tensor lies in a message is seldom where a number may lie in memory.
    return np.frombuffer(bytearray().join(pieces), dtype)


def _numbers(pieces: list[memoryview], dtype: np.dtype[np.generic], count: int, field: str) -> Array:
    folded = np.frombuffer(b"".join(pieces), np.uint8)
    _check_count(int(np.count_nonzero(folded < 0x80)), count, field)
    if folded.size and folded[-1] >= 0x80:
        raise MalformedMessage(f"{field} ends within a number")
    numbers = np.empty(count, dtype)
    filled = at = 0
    while at < folded.size:
        piece = folded[at : at + _PIECE_BYTES + _VARINT_MAX_BYTES]
        ends = np.flatnonzero(piece < 0x80)
        if not ends.size:
            raise MalformedMessage(f"{field} has a number of more than {_VARINT_MAX_BYTES} bytes")
        unfolded = _as_dtype(_unfold(piece[: ends[-1] + 1], ends, field), dtype, field)
        numbers[filled : filled + ends.size] = unfolded
        filled += ends.size
        at += int(ends[-1]) + 1
    return numbers


def _unfold(folded: npt.NDArray[np.uint8], ends: npt.NDArray[np.intp], field: str) -> npt.NDArray[np.uint64]:
    """Values of varints that end at `ends`, uint64 [len(ends)]."""
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if int(lengths.max()) > _VARINT_MAX_BYTES:
        raise MalformedMessage(f"{field} has a number of more than {_VARINT_MAX_BYTES} bytes")
    shifts = 7 * (np.arange(folded.size) - np.repeat(starts, lengths))
    groups = (folded & 0x7F).astype(np.uint64) << shifts.astype(np.uint64)
    return np.bitwise_or.reduceat(groups, starts)


def _as_dtype(unfolded: npt.NDArray[np.uint64], dtype: np.dtype[np.generic], field: str) -> Array:
    if dtype == np.bool_:
        return unfolded.astype(dtype)
    values = unfolded.view(np.int64) if dtype.kind == "i" else unfolded
    cast: Array = values.astype(dtype)
    if not np.array_equal(cast, values):
        raise MalformedMessage(f"{field} has a number that {dtype.name} cannot hold")
    return cast


def _check_count(found: int, promised: int, field: str) -> None:
    if found != promised:
        raise MalformedMessage(f"{field} holds {found} elements, its shape says {promised}")
