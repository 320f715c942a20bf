"""`.npy` and `.npz` from strangers: sizes are checked against the bytes that are there before memory is taken."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import shown
from edge_runtime.inference.backend import Array

ARCHIVE_MAX_BYTES: Final = 64 * 1024 * 1024
"""Unpacked size up to which an `.npz` is read."""

_NUMBERS: Final = frozenset("biuf")
_SUFFIX: Final = ".npy"


def read_npy(content: bytes, what: str) -> Array:
    """One array of numbers (read-only view of the bytes). Raises: ContractError."""
    stream = io.BytesIO(content)
    try:
        shape, is_fortran, dtype = _header(stream)
    except (ValueError, EOFError, SyntaxError, TypeError, KeyError) as error:
        raise ContractError(f"read {what}", f"it is no .npy file ({shown(str(error))})") from error
    if dtype.kind not in _NUMBERS or any(size < 0 for size in shape):
        raise ContractError(f"read {what}", f"it holds {shown(str(dtype))} of shape {list(shape)}, not numbers")
    body = memoryview(content)[stream.tell() :]
    # numpy's own reader takes the memory that the header asks for before it looks at the file.
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ContractError(f"read {what}", f"shape {list(shape)} of {dtype} does not match its {len(body)} bytes")
    flat: Array = np.frombuffer(body, dtype=dtype)
    return flat.reshape(shape, order="F" if is_fortran else "C")


def write_npy(array: Array) -> bytes:
    """An array as `.npy` version 1.0; the same array gives the same bytes. Raises: ContractError for objects."""
    if array.dtype.kind not in _NUMBERS:
        raise ContractError("write an array", f"{array.dtype} is not a number")
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array).reshape(array.shape), (1, 0), allow_pickle=False)
    return stream.getvalue()


def read_npz(content: bytes, what: str) -> dict[str, Array]:
    """The arrays of an `.npz` by key. Raises: ContractError."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > ARCHIVE_MAX_BYTES:
                raise ContractError(f"read {what}", f"it unfolds to more than {ARCHIVE_MAX_BYTES} bytes")
            if any(not member.filename.endswith(_SUFFIX) for member in members):
                raise ContractError(f"read {what}", "it holds something that is no array")
            return {
                member.filename.removesuffix(_SUFFIX): read_npy(archive.read(member), f"{what} {member.filename}")
                for member in members
            }
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, zlib.error) as error:
        raise ContractError(f"read {what}", f"it is no .npz archive ({shown(str(error))})") from error


def write_npz(arrays: Mapping[str, Array]) -> bytes:
    """Arrays by key as an uncompressed `.npz`, sorted, without times: the same arrays give the same bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for key in sorted(arrays):
            archive.writestr(zipfile.ZipInfo(key + _SUFFIX), write_npy(arrays[key]))
    return stream.getvalue()


def _header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"version {version} is unknown")
