"""The source model's answers on disk, one sample after the other: a set may be larger than memory."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, Self

from converters.errors import CannotWrite
from edge_runtime.contract.errors import EdgeError
from edge_runtime.inference.arrays import read_npz, write_npz
from edge_runtime.inference.backend import Array, Tensors

_LENGTH: Final = struct.Struct("<Q")


class AnswerWriter:
    """Appends answers; a context manager, so that the file is whole when somebody reads it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = io.BytesIO()

    def __enter__(self) -> Self:
        self._file = self._path.open("wb")
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._file.close()
        except OSError as error:
            # What led here says it already.
            if kind is None:
                raise self._full(error) from error

    def append(self, tensors: Tensors) -> None:
        """Add the canonical output tensors of one sample. Raises: CannotWrite: the disk is full."""
        # Class maps shrink a hundredfold, and float tensors not at all: the fastest level does for both.
        packed = zlib.compress(write_npz(dict(tensors)), 1)
        try:
            self._file.write(_LENGTH.pack(len(packed)))
            self._file.write(packed)
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> CannotWrite:
        what, because = f"keep the source model's answers in {self._path.parent}", error.strerror or str(error)
        return CannotWrite(what, because, "free some space, or set TMPDIR to another disk")


def check_answer_file(path: Path) -> None:
    """Look whether a file holds answers and nothing else. Raises: ValueError: it does not."""
    try:
        for _ in read_answers(path):
            pass
    except EdgeError as error:
        raise ValueError(str(error)) from error


def read_answers(path: Path) -> Iterator[dict[str, Array]]:
    """Canonical output tensors of each sample, in the order they were written."""
    for piece in _pieces(path):
        yield read_npz(piece, "the source model's answers")


def _pieces(path: Path) -> Iterator[bytes]:
    left = path.stat().st_size
    with path.open("rb") as source:
        while header := source.read(_LENGTH.size):
            try:
                (length,) = _LENGTH.unpack(header)
                left -= _LENGTH.size + length
                # A length that the file does not hold must not cost the memory it asks for.
                piece = zlib.decompress(source.read(length)) if left >= 0 else b""
            except (struct.error, zlib.error) as error:
                raise ValueError("a piece is damaged") from error
            if left < 0:
                raise ValueError("a piece is cut off")
            yield piece
