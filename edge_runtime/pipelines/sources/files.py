"""Frames from encoded pictures: files by name, and folders, once or watched."""

from __future__ import annotations

import glob
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.contract.image_steps import Decode
from edge_runtime.inference.preprocessing.images import decode_image
from edge_runtime.pipelines.description import FilesSource, FolderSource
from edge_runtime.pipelines.records import Frame, Unreadable

FILE_MAX_BYTES: Final = 256 * 1024 * 1024
_SUFFIXES: Final = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
_CODECS: Final = ("jpeg", "png", "bmp", "webp")
_UPRIGHT_RGB: Final = Decode(id="decode", color="rgb", exif="apply", reduced="never")

_Version = tuple[int, int]
"""Size and time of change: a file that has another one is another picture."""


class FilesFrames:
    """Pictures by name, once.

    Args:
        name: of the source.
        paths: in the order they are read.
        now: Unix time.
    """

    def __init__(self, name: str, paths: list[Path], now: Callable[[], float]) -> None:
        self._name = name
        self._paths = paths
        self._now = now
        self._read = 0

    @property
    def left_early(self) -> bool:
        """Whether files remain."""
        return self._read < len(self._paths)

    def frames(self, stopping: threading.Event) -> Iterator[Frame | Unreadable]:
        """Each file's picture."""
        for number, path in enumerate(self._paths):
            if stopping.is_set():
                return
            read = read_picture(self._name, number, path, self._now())
            self._read += 1
            yield read

    def close(self) -> None:
        """Nothing is held."""


class WatchedFolder:
    """A folder's pictures, then new ones as they appear; a changed file counts as new.

    A file is taken when its size and time stood still from one look to the next, so that one still being written is
    not read half.

    Args:
        name: of the source.
        described: folder, and how often it is looked at.
        now: Unix time.
    """

    left_early = False

    def __init__(self, name: str, described: FolderSource, now: Callable[[], float]) -> None:
        self._name = name
        self._described = described
        self._now = now

    def frames(self, stopping: threading.Event) -> Iterator[Frame | Unreadable]:
        """Pictures until somebody stops the pipeline."""
        done: dict[Path, _Version] = {}
        before: dict[Path, _Version] = {}
        number = 0
        while not stopping.is_set():
            seen = _versions(self._described)
            ready = [path for path, version in seen.items() if before.get(path) == version != done.get(path)]
            for path in ready:
                if stopping.is_set():
                    return
                done[path] = seen[path]
                yield read_picture(self._name, number, path, self._now())
                number += 1
            # What was deleted is forgotten, so that the memory of a folder that never rests does not grow.
            before, done = seen, {path: done[path] for path in done.keys() & seen.keys()}
            if not ready:
                stopping.wait(self._described.poll_s)

    def close(self) -> None:
        """Nothing is held."""


def open_files(name: str, described: FilesSource, folder: Path, now: Callable[[], float]) -> FilesFrames:
    """The files that a source names; patterns are resolved now.

    Raises:
        ContractError: a pattern that fits nothing, or a file that is not there.
    """
    paths: list[Path] = []
    for pattern in described.paths:
        whole = str(folder / pattern)
        # Not Path.glob: it takes no absolute pattern.
        found = sorted(glob.glob(whole)) if glob.has_magic(pattern) else [whole]  # noqa: PTH207
        if not found or not all(Path(path).exists() for path in found):
            raise ContractError(f"open source {name}", f"there is no file {pattern}", "correct paths")
        paths += map(Path, found)
    return FilesFrames(name, paths, now)


def open_folder(name: str, described: FolderSource, now: Callable[[], float]) -> FilesFrames | WatchedFolder:
    """A folder's pictures by name. Raises: ContractError when it is no folder, or holds none and is not watched."""
    if not described.path.is_dir():
        raise ContractError(f"open source {name}", f"{described.path} is no folder", "correct path")
    if described.watch:
        return WatchedFolder(name, described, now)
    paths = sorted(_versions(described))
    if not paths:
        because = f"{described.path} holds no pictures"
        raise ContractError(f"open source {name}", because, "put PNG, JPEG, WebP or BMP files there, or watch it")
    return FilesFrames(name, paths, now)


def read_picture(source: str, number: int, path: Path, at: float) -> Frame | Unreadable:
    """One file as a frame, or why it is none."""
    try:
        with path.open("rb") as opened:
            content = opened.read(FILE_MAX_BYTES + 1)
        if len(content) > FILE_MAX_BYTES:
            return Unreadable(source, number, f"{path} is larger than {FILE_MAX_BYTES} bytes")
        picture = decode_image(content, _UPRIGHT_RGB, _CODECS)[0]
    except OSError as error:
        return Unreadable(source, number, f"cannot read {path}: {error.strerror or error}")
    except InferenceError as error:
        return Unreadable(source, number, f"cannot read {path}: {error.because}")
    return Frame(source, number, picture, at, file=str(path))


def _versions(described: FolderSource) -> dict[Path, _Version]:
    """Pictures of the folder by name, each with what tells one version from another."""
    names = described.path.rglob("*") if described.recursive else described.path.glob("*")
    found: dict[Path, _Version] = {}
    for path in sorted(path for path in names if path.suffix.lower() in _SUFFIXES):
        try:
            state = path.stat()
        except OSError:
            # Gone since the folder was listed.
            continue
        if stat.S_ISREG(state.st_mode):  # whoever opens a pipe waits until somebody writes into it
            found[path] = (state.st_size, state.st_mtime_ns)
    return found
