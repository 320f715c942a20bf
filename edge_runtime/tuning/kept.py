"""Keeps tuned choices: one small file, replaced as a whole, so that a power cut leaves the old one or the new one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.contract.codec import encode
from edge_runtime.contract.digest import Digest
from edge_runtime.inference.tuned import FILE_NAME, read_choices
from edge_runtime.inference.tuned_choice import TunedChoice, TunedFile
from edge_runtime.update.disk import Disk, disk_errors


def keep(folder: Path, release: Digest, fingerprint: Digest, choices: Iterable[TunedChoice]) -> Path:
    """Replace what is kept about a release on this kind of machine; nothing is given: it is forgotten.

    Returns:
        The file.

    Raises:
        UpdateError: the disk refuses.
    """
    disk, path = Disk(), folder / FILE_NAME
    with disk_errors(f"keep what was tuned in {path}"):
        disk.make_folder(folder)
        with _alone_in(folder):
            others = [one for one in read_choices(folder) if (one.release, one.fingerprint) != (release, fingerprint)]
            part = path.with_name(f"{FILE_NAME}.part")
            disk.write(part, encode(TunedFile(choices=[*others, *choices])))
            disk.rename(part, path)
    return path


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Others who tune at the same time wait: each keeps what those before it found."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
