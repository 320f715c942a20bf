"""The folder of metadata files: whole or absent, one writer at a time, names checked before they touch the disk."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edge_runtime.contract.ids import shown
from edge_runtime.trust.metadata import TARGETS_MAX_BYTES, TIMESTAMP_FILE, is_metadata_file
from fleet_server.errors import Conflict, NotFound, StorageFull

_LOCK_TIMEOUT_S: Final = 15.0


class MetadataFolder:
    """TUF metadata files on disk; also a MetadataSource for the device's own verifier."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def is_published(self) -> bool:
        """Whether there is a timestamp, from which devices find everything else."""
        return (self._path / TIMESTAMP_FILE).exists()

    def create(self) -> None:
        """Make the folder if it is not there."""
        self._path.mkdir(parents=True, exist_ok=True)

    def fetch(self, file_name: str, max_bytes: int) -> bytes | None:
        """At most `max_bytes` + 1 of a file (so that too much is noticed), or None."""
        if not is_metadata_file(file_name):
            return None
        try:
            with (self._path / file_name).open("rb") as source:
                return source.read(max_bytes + 1)
        except FileNotFoundError:
            return None

    def read(self, file_name: str) -> bytes:
        """A whole file. Raises: NotFound, also for any name that is no metadata file."""
        content = self.fetch(file_name, TARGETS_MAX_BYTES)
        if content is None:
            raise NotFound(f"serve {shown(file_name)}", "the trust repository does not hold it")
        return content

    def versions(self, role: str) -> list[int]:
        """The versions of a role on disk, ascending. Raises: NotFound when there is none."""
        versions = sorted(int(path.name.partition(".")[0]) for path in self._path.glob(f"[0-9]*.{role}.json"))
        if not versions:
            raise NotFound(f"serve the {role} metadata", f"{self._path} holds none", "start edge-fleet serve once")
        return versions

    def publish(self, files: Mapping[str, bytes]) -> None:
        """Write files, the timestamp last: until its rename no device can reach the others.

        Raises:
            StorageFull: the disk cannot take them; what was published before stays in force.
        """
        try:
            for name in files.keys() - {TIMESTAMP_FILE}:
                self._write(name, files[name])
            self._flush()
            if TIMESTAMP_FILE in files:
                self._write(TIMESTAMP_FILE, files[TIMESTAMP_FILE])
                self._flush()
        except OSError as error:
            reason = error.strerror or str(error)
            raise StorageFull(f"write metadata into {self._path}", reason, "make room, then try again") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Held by whoever changes the folder, across threads and processes. Raises: Conflict after 15 s."""
        with (self._path / ".lock").open("w") as lock:
            deadline = time.monotonic() + _LOCK_TIMEOUT_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise Conflict(
                            "change the trust metadata", "another program holds its lock", "try again"
                        ) from error
                    time.sleep(0.02)
            yield

    def _write(self, name: str, content: bytes) -> None:
        descriptor, staged = tempfile.mkstemp(dir=self._path, prefix=".staged-")
        try:
            with os.fdopen(descriptor, "wb") as target:
                target.write(content)
                target.flush()
                # Before the rename: after a power cut the name may survive while the bytes do not.
                os.fsync(target.fileno())
            Path(staged).chmod(0o644)
            Path(staged).replace(self._path / name)
        except OSError:
            Path(staged).unlink(missing_ok=True)
            raise

    def _flush(self) -> None:
        """Make the renames so far outlive a power cut: a timestamp must never name a file that is not there."""
        folder = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Overlay:
    """A folder as it would look with some files added."""

    def __init__(self, staged: Mapping[str, bytes], below: MetadataFolder) -> None:
        self._staged = staged
        self._below = below

    def fetch(self, file_name: str, max_bytes: int) -> bytes | None:
        """A staged file, or the one below."""
        return self._staged[file_name] if file_name in self._staged else self._below.fetch(file_name, max_bytes)
