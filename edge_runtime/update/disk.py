"""The file-system calls that an installation is made of; each one that must survive a power cut is flushed here."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.contract import reasons
from edge_runtime.contract.errors import UpdateError


class Disk:
    """The real disk; fault tests put themselves in its place and fail any one call."""

    def write(self, path: Path, content: bytes) -> None:
        """Create or replace a file and flush it. Raises: OSError."""
        with path.open("wb") as target:
            target.write(content)
            target.flush()
            os.fsync(target.fileno())

    def flush(self, path: Path) -> None:
        """Flush a file that was written before, and make it read-only. Raises: OSError."""
        with path.open("rb") as source:
            os.fchmod(source.fileno(), 0o444)
            os.fsync(source.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """Replace `target` by `source` in one step, and flush the folder. Raises: OSError."""
        source.replace(target)
        self.flush_folder(target.parent)

    def remove(self, path: Path) -> None:
        """Remove a file that may be gone already. Raises: OSError."""
        path.unlink(missing_ok=True)

    def flush_folder(self, folder: Path) -> None:
        """Flush a folder's entries: without it a power cut may undo a rename. Raises: OSError."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_folder(self, folder: Path) -> None:
        """Create a folder and its parents, and flush the entry. Raises: OSError."""
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            self.flush_folder(folder.parent)

    def free_bytes(self, folder: Path) -> int:
        """Bytes that this user may still write. Raises: OSError."""
        state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize


@contextmanager
def disk_errors(cannot: str) -> Iterator[None]:
    """Turn the operating system's errors into ours. Raises: UpdateError, code `disk_full` or `internal`."""
    try:
        yield
    except OSError as error:
        raise disk_error(cannot, error) from error


def disk_error(cannot: str, error: OSError) -> UpdateError:
    """Our error for one of the operating system's."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return UpdateError(cannot, "the disk is full", "free some space on the device", code=reasons.DISK_FULL)
    because = error.strerror or type(error).__name__
    return UpdateError(cannot, because.lower(), "check the device's disk", code=reasons.INTERNAL)
