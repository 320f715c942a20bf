"""Where engines keep what they build of a variant on this machine: compiled models, timings, caches.

What is kept is executable code, so it is never fetched: it lies where only this user can write, below a folder named
after the variant, which whoever removes the variant removes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.digest import Digest, digest_of, hex_of
from edge_runtime.inference.tuned import fingerprint_of

_MOST_VARIANTS: Final = 32
"""Kept in one folder; the one that was not used for longest goes first."""
_NAMES: Final = 16


def default_folder() -> Path | None:
    """Below the user's cache folder (XDG Base Directory Specification, `XDG_CACHE_HOME`); None for who has no home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(given) if given.startswith("/") else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "edgefleet" / "built"


def folder_of(base: Path, variant: Digest, facts: DeviceFacts) -> Path:
    """Where things built of a variant on this machine belong; nothing is made yet."""
    return base / hex_of(variant) / hex_of(fingerprint_of(facts))[:_NAMES]


def private_folder(built: Path | None, versions: str) -> Path | None:
    """Make the folder for what these versions of engine and libraries build.

    Returns:
        None where nothing may be kept, or the folder is not one that only this user can write.
    """
    if built is None:
        return None
    folder = built / versions
    try:
        built.parent.parent.mkdir(parents=True, exist_ok=True)
        places = (built.parent, built, folder)
        for place in places:
            place.mkdir(mode=0o700, exist_ok=True)
        is_private = all(map(_is_private, places))
        os.utime(built.parent)
        _drop_oldest(built.parent.parent)
    except OSError:
        return None
    return folder if is_private else None


def keep(fresh: Path, folder: Path, kind: str) -> None:
    """Have a finished file stay in a folder under a name that tells its content, for `read_kept`. Raises: OSError."""
    named = f"{kind}-{hex_of(digest_of(fresh.read_bytes()))}"
    forget(folder, kind)
    fresh.replace(folder / named)


def read_kept(folder: Path, kind: str) -> bytes | None:
    """What was kept, once it is shown to be whole: a power cut leaves files that would take a native parser down."""
    for path in folder.glob(f"{kind}-*"):
        content = path.read_bytes()
        if path.name == f"{kind}-{hex_of(digest_of(content))}":
            return content
        path.unlink(missing_ok=True)
    return None


def forget(folder: Path, kind: str) -> None:
    """Remove what was kept."""
    for path in folder.glob(f"{kind}-*"):
        path.unlink(missing_ok=True)


def clear(folder: Path) -> bool:
    """Remove everything that was kept in a folder; whether there was anything."""
    files = [path for path in folder.iterdir() if path.is_file()]
    for path in files:
        path.unlink(missing_ok=True)
    return bool(files)


def _is_private(folder: Path) -> bool:
    found = folder.stat()
    return found.st_uid == os.getuid() and not found.st_mode & 0o022


def _drop_oldest(base: Path) -> None:
    import shutil  # a start that keeps nothing does without

    variants = sorted(base.iterdir(), key=lambda variant: variant.stat().st_mtime)
    for variant in variants[:-_MOST_VARIANTS]:
        shutil.rmtree(variant, ignore_errors=True)
