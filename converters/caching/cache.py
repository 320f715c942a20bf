"""A store of what finished stages made, by key: whole or absent, checked when read, bounded, and never worth a build.

A cache may always be lost. So a fault in it is remembered (`problem`) and otherwise means "not there".
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from converters.durable import flush
from edge_runtime.contract.digest import Digest, digest_of, digest_of_file

DEFAULT_MAX_BYTES: Final = 4 * 1024**3
_INDEX: Final = "entry.json"
_STAGED: Final = ".staged-"
_ABANDONED_AFTER_S: Final = 24 * 3600.0
_FORMAT: Final = "v1"


class _File(msgspec.Struct, frozen=True, kw_only=True):
    digest: Digest
    size: int


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    stage: str
    subject: str
    files: dict[str, _File]


@dataclass(frozen=True, slots=True)
class Entry:
    """One finished stage in the cache."""

    key: str
    stage: str
    subject: str
    """What it was made for, as people call it."""
    size_bytes: int
    used: float
    """Seconds since 1970 when it was last read or written."""


class Cache:
    """Folders `<key>/` below one root, each with its files and an index of their digests."""

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self.folder = folder
        self._root = folder / _FORMAT
        self._max_bytes = max_bytes
        self.problem: str | None = None
        """The first thing that went wrong with the cache itself; a build goes on without it."""

    def read(self, key: str, name: str) -> bytes | None:
        """One file of an entry; None when it is not there, or when it is damaged (the entry is then removed)."""
        index = self._index(key)
        if index is None or name not in index.files:
            return None
        try:
            content = (self._root / key / name).read_bytes()
        except OSError:
            content = b""
        if digest_of(content) != index.files[name].digest:
            self._remove(key)
            return None
        self._touch(key)
        return content

    def discard(self, key: str) -> None:
        """Remove an entry that is whole and yet of no use."""
        self._remove(key)

    def has(self, key: str) -> bool:
        """Whether an entry is there; only reading it says whether it is whole."""
        return self._index(key) is not None

    def restore(self, key: str, folder: Path) -> bool:
        """Copy an entry's files into a folder; False, and nothing copied, when it is absent or damaged.

        Raises:
            OSError: the folder cannot be written.
        """
        index = self._index(key)
        if index is None:
            return False
        entry = self._root / key
        try:
            for name in index.files:
                shutil.copyfile(entry / name, folder / name)
            # The copies are what is used, so they are what is checked: another build may trim the entry meanwhile.
            is_whole = _is_whole(folder, index)
        except OSError:
            # A whole entry was not to blame, so the folder is.
            if _is_whole(entry, index):
                raise
            is_whole = False
        if not is_whole:
            for name in index.files:
                (folder / name).unlink(missing_ok=True)
            self._remove(key)
            return False
        self._touch(key)
        return True

    def store(self, key: str, stage: str, subject: str, files: Mapping[str, bytes | Path]) -> None:
        """Keep what a stage made: all of it or nothing. Failing to keep it is no error.

        Args:
            key: what the entry is found by.
            stage: kind of stage, for people.
            subject: what it was made for, for people.
            files: content, or a file to copy, by plain file name.
        """
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            staged = Path(tempfile.mkdtemp(dir=self._root, prefix=_STAGED))
        except OSError as error:
            self._remember("write", error)
            return
        try:
            size = self._fill(staged, _Index(key=key, stage=stage, subject=subject, files={}), files)
            if size <= self._max_bytes:
                self._trim(room_for=size)
                self._settle(staged, key)
        except OSError as error:
            self._remember("write", error)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def entries(self) -> list[Entry]:
        """Everything in the cache, least recently used first."""
        found: list[Entry] = []
        with suppress(OSError):
            for folder in self._root.iterdir():
                index = None if folder.name.startswith(_STAGED) else self._index(folder.name)
                if index is not None:
                    size = sum(file.size for file in index.files.values())
                    with suppress(OSError):
                        used = (folder / _INDEX).stat().st_mtime
                        found.append(Entry(folder.name, index.stage, index.subject, size, used))
        return sorted(found, key=lambda entry: (entry.used, entry.key))

    def clear(self) -> int:
        """Remove every entry; returns how many there were. Raises: OSError."""
        count = len(self.entries())
        if self._root.exists():
            shutil.rmtree(self._root)
        return count

    def _fill(self, staged: Path, index: _Index, files: Mapping[str, bytes | Path]) -> int:
        described: dict[str, _File] = {}
        for name, content in files.items():
            path = staged / name
            if isinstance(content, Path):
                shutil.copyfile(content, path)
            else:
                path.write_bytes(content)
            digest, size = digest_of_file(path)
            described[name] = _File(digest=digest, size=size)
            flush(path)
        (staged / _INDEX).write_bytes(msgspec.json.encode(msgspec.structs.replace(index, files=described)))
        flush(staged / _INDEX)
        flush(staged)
        return sum(file.size for file in described.values())

    def _settle(self, staged: Path, key: str) -> None:
        # Flushed before: after a power cut the rename may survive while the bytes do not.
        try:
            staged.rename(self._root / key)
        except OSError as error:
            # Another build was faster; what it stored has the same key, and so the same content.
            if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
                raise
        flush(self._root)

    def _trim(self, *, room_for: int) -> None:
        """Remove the least recently used entries until there is room, and what killed builds left behind."""
        entries = self.entries()
        total = sum(entry.size_bytes for entry in entries) + room_for
        for entry in entries:
            if total <= self._max_bytes:
                break
            self._remove(entry.key)
            total -= entry.size_bytes
        for folder in self._root.glob(f"{_STAGED}*"):
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S:
                    shutil.rmtree(folder, ignore_errors=True)

    def _index(self, key: str) -> _Index | None:
        try:
            content = (self._root / key / _INDEX).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._remember("read", error)
            return None
        try:
            index = msgspec.json.decode(content, type=_Index)
        except (msgspec.MsgspecError, RecursionError):
            index = None
        if index is not None and index.key == key and all(_is_plain(name) for name in index.files):
            return index
        self._remove(key)
        return None

    def _remove(self, key: str) -> None:
        """Out of sight first, so that nobody finds half an entry."""
        with suppress(OSError):
            doomed = Path(tempfile.mkdtemp(dir=self._root, prefix=_STAGED))
            try:
                (self._root / key).rename(doomed / key)
            finally:
                shutil.rmtree(doomed, ignore_errors=True)

    def _touch(self, key: str) -> None:
        with suppress(OSError):
            os.utime(self._root / key / _INDEX)

    def _remember(self, what: str, error: OSError) -> None:
        if self.problem is None:
            because = error.strerror or str(error)
            self.problem = f"cannot {what} the cache {self.folder}: {because}; the build goes on without it"


def _is_whole(folder: Path, index: _Index) -> bool:
    """Whether a folder holds what an index says; False when it cannot be read."""
    try:
        return all(digest_of_file(folder / name)[0] == file.digest for name, file in index.files.items())
    except OSError:
        return False


def _is_plain(name: str) -> bool:
    """Whether a name stays inside its folder, and is one that a file can have."""
    return name not in {"", ".."} and Path(name).name == name and name.isprintable()
