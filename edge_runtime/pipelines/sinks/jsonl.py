"""Records as lines of JSON in a file that is rotated."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

from edge_runtime.contract.errors import InferenceError
from edge_runtime.pipelines.description import JsonlSink
from edge_runtime.pipelines.records import Record, record_bytes


class JsonlFile:
    """Appends one line per record; each is whole and written through to the system when `deliver` returns.

    Args:
        described: where, and how large a file may grow.
    """

    def __init__(self, described: JsonlSink) -> None:
        self._described = described
        self._file: BinaryIO | None = None

    def deliver(self, record: Record) -> None:
        """Append a line. Raises: InferenceError when the disk refuses."""
        line = record_bytes(record) + b"\n"
        try:
            target = self._opened()
            if target.tell() and target.tell() + len(line) > self._described.max_bytes:
                target = self._rotated(target)
            _append(target, line)
        except OSError as error:
            because = error.strerror or str(error)
            raise InferenceError(f"write {self._described.path}", because, "check the disk") from error

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._described.path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: whoever follows the file reads whole lines, and a crash loses none that was delivered.
            self._file = self._described.path.open("ab", buffering=0)
        return self._file

    def _rotated(self, target: BinaryIO) -> BinaryIO:
        target.close()
        self._file = None
        path, keep = self._described.path, self._described.keep
        for number in range(keep - 1, 0, -1):
            if (older := _numbered(path, number)).exists():
                older.replace(_numbered(path, number + 1))
        if keep:
            path.replace(_numbered(path, 1))
        else:
            path.unlink()
        return self._opened()


def _append(target: BinaryIO, line: bytes) -> None:
    """Write a whole line or none of it: a full disk takes the beginning, and the next line would continue it."""
    start = target.tell()
    if target.write(line) < len(line):
        target.truncate(start)
        target.seek(start)
        raise OSError(errno.ENOSPC, "the disk took a part of the line")


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
