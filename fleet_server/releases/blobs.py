"""Blobs by digest on disk: staged, checked, synced, and only then visible."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import DigestMismatch, EdgeError
from edge_runtime.contract.layout import FILE_MAX_BYTES, Descriptor, LayoutFolder
from fleet_server.errors import FleetError, StorageFull, TooLarge


class BlobStore:
    """Content-addressed files under one folder."""

    def __init__(self, folder: Path) -> None:
        self._layout = LayoutFolder(folder)
        self._stage = folder / "stage"
        (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        self._stage.mkdir(exist_ok=True)

    def discard_stage(self) -> None:
        """Remove uploads that a crash cut short; only while nobody uploads."""
        for leftover in self._stage.iterdir():
            leftover.unlink()

    def path_of(self, digest: Digest) -> Path:
        """Where a blob stands, whether or not it is there. Raises: ContractError for a malformed digest."""
        return self._layout.path_of(digest)

    def size_of(self, digest: Digest) -> int | None:
        """The size in bytes of a stored blob, or None."""
        try:
            return self.path_of(digest).stat().st_size
        except FileNotFoundError:
            return None

    def read_blob(self, descriptor: Descriptor, *, max_bytes: int) -> bytes:
        """The bytes of one blob. Raises: ContractError when it is not there."""
        return self._layout.read_blob(descriptor, max_bytes=max_bytes)

    def upload(self, digest: Digest) -> Upload:
        """Begin to receive a blob. Raises: StorageFull, FleetError."""
        try:
            return Upload(self.path_of(digest), digest, self._stage)
        except OSError as error:
            raise _explained(error) from error


class Upload:
    """One blob on its way in; leaving the block without `finish` leaves nothing behind."""

    def __init__(self, path: Path, digest: Digest, stage: Path) -> None:
        self._path = path
        self._digest = digest
        handle, name = tempfile.mkstemp(dir=stage)
        self._staged = Path(name)
        self._file = os.fdopen(handle, "wb")
        self._hasher = hashlib.sha256()
        self._size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._staged.unlink(missing_ok=True)

    def write(self, piece: bytes) -> None:
        """Take the next bytes. Raises: TooLarge, StorageFull."""
        self._size_bytes += len(piece)
        if self._size_bytes > FILE_MAX_BYTES:
            raise TooLarge(f"store blob {self._digest}", f"it exceeds {FILE_MAX_BYTES} bytes")
        self._hasher.update(piece)
        try:
            self._file.write(piece)
        except OSError as error:
            raise _explained(error) from error

    def finish(self) -> int:
        """Make the blob visible; returns its size in bytes. Raises: DigestMismatch, StorageFull."""
        actual = "sha256:" + self._hasher.hexdigest()
        if actual != self._digest:
            raise DigestMismatch(f"store blob {self._digest}", f"the bytes sent are {actual}", "send the file again")
        try:
            self._file.flush()
            # Flush first: after a power cut the rename may survive while the bytes do not.
            os.fsync(self._file.fileno())
            self._staged.replace(self._path)
            _sync_folder(self._path.parent)
        except OSError as error:
            raise _explained(error) from error
        return self._size_bytes


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explained(error: OSError) -> EdgeError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFull("store the blob", "the server's disk is full", "free space on it and push again")
    return FleetError("store the blob", error.strerror or str(error), "check the server's data folder")
