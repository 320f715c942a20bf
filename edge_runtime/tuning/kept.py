"""Keeps tuned choices: one small file, replaced as a whole, so that a power cut leaves the old one or the new one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edge_runtime.contract.codec import encode
from edge_runtime.contract.digest import Digest
from edge_runtime.inference.tuned import FILE_NAME, TunedChoice, TunedFile, read_choices
from edge_runtime.update.disk import Disk, disk_errors


def keep(folder: Path, release: Digest, fingerprint: Digest, choices: Iterable[TunedChoice]) -> Path:
    """Replace what is kept about a release on this kind of machine; nothing is given: it is forgotten.

    Returns:
        The file.

    Raises:
        UpdateError: the disk refuses.
    """
    others = [one for one in read_choices(folder) if (one.release, one.fingerprint) != (release, fingerprint)]
    content = encode(TunedFile(choices=[*others, *choices]))
    disk, path = Disk(), folder / FILE_NAME
    with disk_errors(f"keep what was tuned in {path}"):
        disk.make_folder(folder)
        part = path.with_name(f"{FILE_NAME}.part")
        disk.write(part, content)
        disk.rename(part, path)
    return path
