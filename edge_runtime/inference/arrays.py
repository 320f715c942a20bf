"""`.npy` and `.npz` from strangers: sizes are checked against the bytes that are there before memory is taken."""

from __future__ import annotations

import io
import math
import mmap
import struct
import tokenize
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import shown
from edge_runtime.inference.backend import Array

if TYPE_CHECKING:
    import zipfile

ARCHIVE_MAX_BYTES: Final = 64 * 1024 * 1024
"""Unpacked size up to which an `.npz` is read."""

_NUMBERS: Final = frozenset("biuf")
_TEXT: Final = frozenset("US")
_HEADER_MAX_BYTES: Final = 1 << 17
_SUFFIX: Final = ".npy"
_AXES_MAX: Final = 32
"""As many as the oldest supported numpy has."""
_SIZE_MAX: Final = 1 << 62
_BROKEN_HEADER: Final = (
    ValueError, EOFError, SyntaxError, TypeError, KeyError, OverflowError, RecursionError, MemoryError,
    tokenize.TokenError,
)  # fmt: skip
"""What numpy raises at a header, which it reads as a Python literal."""


def read_npy(content: bytes | mmap.mmap, what: str, *, allows_text: bool = False) -> Array:
    """One array of numbers (read-only view of the bytes).

    Args:
        content: the file, or a map of it.
        what: how errors call it.
        allows_text: whether it may hold text of a fixed width instead.

    Raises:
        ContractError: damaged, or it holds something else.
    """
    # Only the beginning is copied: what a map shows may be larger than memory.
    stream = io.BytesIO(content[:_HEADER_MAX_BYTES])
    try:
        shape, is_fortran, dtype = _header(stream)
    except _BROKEN_HEADER as error:
        raise ContractError(f"read {what}", f"it is no .npy file ({shown(str(error))})") from error
    if dtype.kind not in (_NUMBERS | _TEXT if allows_text else _NUMBERS):
        raise ContractError(f"read {what}", f"it holds {shown(str(dtype))}, not numbers")
    body = memoryview(content)[stream.tell() :]
    # numpy's own reader takes the memory that the header asks for before it looks at the file.
    if math.prod(shape) * dtype.itemsize != len(body):
        raise ContractError(f"read {what}", f"shape {list(shape)} of {dtype} does not match its {len(body)} bytes")
    try:
        flat: Array = np.frombuffer(body, dtype=dtype)
        return flat.reshape(shape, order="F" if is_fortran else "C")
    except (ValueError, OverflowError) as error:
        # An empty array may have sizes whose product has no bound but is never formed.
        raise ContractError(f"read {what}", f"it is no .npy file ({shown(str(error))})") from error


def write_npy(array: Array) -> bytes:
    """An array as `.npy` version 1.0; the same array gives the same bytes. Raises: ContractError for objects."""
    if array.dtype.kind not in _NUMBERS:
        raise ContractError("write an array", f"{array.dtype} is not a number")
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array).reshape(array.shape), (1, 0), allow_pickle=False)
    return stream.getvalue()


def read_npz(
    content: bytes, what: str, *, max_bytes: int = ARCHIVE_MAX_BYTES, allows_text: bool = False
) -> dict[str, Array]:
    """The arrays of an `.npz` by key.

    Args:
        content: the file.
        what: how errors call it.
        max_bytes: of all arrays together.
        allows_text: as in `read_npy`.

    Raises:
        ContractError: damaged, too large, or it holds something else.
    """
    import zipfile  # slow to import, and whoever reads single arrays does without
    import zlib

    broken = (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, struct.error, zlib.error)
    # Those that numpy writes; the others take memory before they give a byte.
    methods = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > max_bytes:
                raise ContractError(f"read {what}", f"it unfolds to more than {max_bytes} bytes")
            if any(not member.filename.endswith(_SUFFIX) for member in members):
                raise ContractError(f"read {what}", "it holds something that is no array")
            if any(member.compress_type not in methods for member in members):
                raise ContractError(f"read {what}", "it is packed in a way that numpy does not write")
            arrays: dict[str, Array] = {}
            for member in members:
                read = read_npy(_member(archive, member), f"{what} {member.filename}", allows_text=allows_text)
                arrays[member.filename.removesuffix(_SUFFIX)] = read
            return arrays
    except broken as error:
        raise ContractError(f"read {what}", f"it is no .npz archive ({shown(str(error))})") from error


def write_npz(arrays: Mapping[str, Array]) -> bytes:
    """Arrays by key as an uncompressed `.npz`, sorted, without times: the same arrays give the same bytes."""
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for key in sorted(arrays):
            archive.writestr(zipfile.ZipInfo(key + _SUFFIX), write_npy(arrays[key]))
    return stream.getvalue()


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as source:
        # Read without a size, a member would unfold whole before it is cut to the size that it says.
        return source.read(member.file_size + 1)


def _header(stream: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version not in {(1, 0), (2, 0)}:
        raise ValueError(f"version {version} is unknown")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(stream)
    # To Python, True is a whole number too.
    if len(shape) > _AXES_MAX or not all(type(size) is int and 0 <= size <= _SIZE_MAX for size in shape):
        raise ValueError(f"its shape is not up to {_AXES_MAX} sizes")
    return shape, is_fortran, dtype
