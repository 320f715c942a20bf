"""The content store: `objects/<sha256>`, each file whole, flushed and checked before it has its name."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from edge_runtime.contract import reasons
from edge_runtime.contract.codec import DOCUMENT_MAX_BYTES
from edge_runtime.contract.digest import Digest, digest_of, digest_of_file, hex_of, parse_digest
from edge_runtime.contract.errors import ContractError, DigestMismatch, EdgeError, TransportError, UpdateError
from edge_runtime.contract.layout import FILE_MEDIA_TYPE, Descriptor
from edge_runtime.update.disk import Disk, disk_errors

_RESERVE_SHARE: Final = 0.1
"""Of what is to be written, so much more must be free: journal, pointers and logs live on the same disk."""
_PARTIAL: Final = ".part"


class ContentStore:
    """Immutable blobs by digest; a `BlobSource` for opening releases.

    Args:
        root: folder of the store; `objects/` and `stage/` are made inside, on one file system.
        disk: the disk to use.
    """

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self._objects = root / "objects"
        self._stage = root / "stage"
        self.built = root / "built"
        """Where engines keep what they build on this device, by variant; nothing of it outlives its variant."""
        self._disk = disk or Disk()
        self.lock = threading.RLock()
        """Held while a blob gets its name, and while garbage is marked and swept."""
        with disk_errors(f"set up the content store {root}"):
            self._disk.make_folder(self._objects)
            self._disk.make_folder(self._stage)

    def path_of(self, digest: Digest) -> Path:
        """Where a blob's file stands once it is in the store."""
        return self._objects / hex_of(parse_digest(digest))

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there, judged by name and size."""
        try:
            return self.path_of(descriptor.digest).stat().st_size == descriptor.size
        except OSError:
            return False

    def read_blob(self, descriptor: Descriptor, *, max_bytes: int) -> bytes:
        """The bytes of one blob, unchecked, at most `max_bytes`.

        Raises:
            ContractError: the store does not hold it.
            DigestMismatch: it is larger than `max_bytes`.
        """
        try:
            with self.path_of(descriptor.digest).open("rb") as source:
                content = source.read(max_bytes + 1)
        except OSError as error:
            raise ContractError(
                f"read blob {descriptor.digest}", "the content store does not hold it", "install the release again"
            ) from error
        if len(content) > max_bytes:
            raise DigestMismatch(f"read blob {descriptor.digest}", f"it is larger than {max_bytes} bytes")
        return content

    def put(self, content: bytes) -> Digest:
        """Store a document that is in memory. Raises: UpdateError."""
        if len(content) > DOCUMENT_MAX_BYTES:
            raise UpdateError("store a document", f"{len(content)} bytes exceed {DOCUMENT_MAX_BYTES}")
        descriptor = Descriptor(mediaType=FILE_MEDIA_TYPE, digest=digest_of(content), size=len(content))

        def fill(stage: Path) -> None:
            with disk_errors(f"store blob {descriptor.digest}"):
                self._disk.write(stage, content)

        self.ensure(descriptor, fill)
        return descriptor.digest

    def has_partial(self, digest: Digest) -> bool:
        """Whether a former download of the blob would be continued."""
        return self._stage_of(digest).exists()

    def ensure(self, descriptor: Descriptor, fill: Callable[[Path], None]) -> None:
        """Have a blob in the store: `fill` completes its stage file unless the blob is there already.

        Raises:
            DigestMismatch: the bytes are not the promised ones; nothing of them is kept.
            UpdateError: `disk_full` or a disk error; nothing of it is kept.
            EdgeError: whatever `fill` raises; after a TransportError what it wrote stays, to be continued.
        """
        with self.lock:
            present = self.has(descriptor)
        if present:
            return
        stage = self._stage_of(descriptor.digest)
        try:
            fill(stage)
        except TransportError:
            raise
        except EdgeError:
            # Bytes that went wrong must not be continued, and a full disk needs the space back.
            self._discard(stage)
            raise
        self._commit(stage, descriptor)

    def verify(self, descriptor: Descriptor) -> None:
        """Read a blob from disk and check it; a damaged one is removed, so that it can be fetched again.

        Raises:
            DigestMismatch: it is damaged.
            ContractError: it is not there.
        """
        path = self.path_of(descriptor.digest)
        try:
            actual = digest_of_file(path)
        except FileNotFoundError as error:
            raise ContractError(
                f"read blob {descriptor.digest}", "the content store does not hold it", "install the release again"
            ) from error
        except OSError:
            actual = None
        if actual != (descriptor.digest, descriptor.size):
            self._discard(path)
            raise DigestMismatch(
                f"use blob {descriptor.digest}", "the file in the content store is damaged", "install it again"
            )

    def check_reserve(self, new_bytes: int) -> None:
        """Refuse to begin what would not fit with a tenth to spare. Raises: UpdateError, code `disk_full`."""
        with disk_errors("look for free disk space"):
            free = self._disk.free_bytes(self._objects)
        needed = int(new_bytes * (1 + _RESERVE_SHARE))
        if free < needed:
            raise UpdateError(
                "fetch the release",
                f"it needs {needed} bytes on disk, {free} are free",
                "free some space on the device",
                code=reasons.DISK_FULL,
            )

    def drop_leftovers(self, keep: Collection[Digest] = ()) -> None:
        """Remove stage files of a former run, but for downloads that will be continued. Raises: UpdateError."""
        kept = {self._stage_of(digest).name for digest in keep}
        with disk_errors("tidy the content store"):
            for path in self._stage.iterdir():
                if path.name not in kept:
                    self._disk.remove(path)

    def sweep(self, keep: Collection[Digest]) -> int:
        """Remove every blob that is not in `keep`; returns the bytes freed. The caller holds `lock` since marking.

        Raises:
            UpdateError: a disk error.
        """
        kept = {hex_of(digest) for digest in keep}
        freed_bytes = 0
        with self.lock, disk_errors("tidy the content store"):
            for path in list(self._objects.iterdir()):
                if path.name not in kept:
                    freed_bytes += path.stat().st_size
                    self._disk.remove(path)
            for path in self.built.iterdir() if self.built.is_dir() else ():
                if path.name not in kept:
                    shutil.rmtree(path, ignore_errors=True)
        return freed_bytes

    def _stage_of(self, digest: Digest) -> Path:
        return self._stage / (hex_of(parse_digest(digest)) + _PARTIAL)

    def _commit(self, stage: Path, descriptor: Descriptor) -> None:
        try:
            with disk_errors(f"store blob {descriptor.digest}"), self.lock:
                _check_staged(stage, descriptor)
                # Flush first: after a power cut the rename may survive while the bytes do not.
                self._disk.flush(stage)
                self._disk.rename(stage, self.path_of(descriptor.digest))
        except (DigestMismatch, UpdateError):
            # After a failed flush the file's pages count as clean: it must be written anew, never flushed again.
            self._discard(stage)
            self._discard(self.path_of(descriptor.digest))
            raise

    def _discard(self, path: Path) -> None:
        try:
            self._disk.remove(path)
        except OSError:
            # The error that brought us here says more; leftovers go at the next start.
            return


def _check_staged(stage: Path, descriptor: Descriptor) -> None:
    actual, size_bytes = digest_of_file(stage)
    if (actual, size_bytes) != (descriptor.digest, descriptor.size):
        raise DigestMismatch(
            f"store blob {descriptor.digest}",
            f"expected {descriptor.size} bytes, got {size_bytes} of {actual}",
            "fetch it again from a sound source",
        )
