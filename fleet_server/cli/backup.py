"""A copy of everything a server needs, taken while it runs; the copy is itself a data folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from fleet_server.db import Database
from fleet_server.errors import FleetError

_FOLDERS: Final = ("ca", "keys", "tuf")


def copy_data(data: Path, out: Path, *, with_blobs: bool) -> None:
    """Copy database, CA, online keys and metadata, and the blobs if wanted; never the offline keys.

    Raises:
        FleetError: there is nothing to copy, or the copy cannot be written; then `out` is not there.
    """
    if not (data / "fleet.db").exists():
        raise FleetError(f"back {data} up", "it holds no database", "name the server's data folder: --data DIR")
    if out.exists():
        raise FleetError(f"back up to {out}", "it exists", "name a new folder")
    staged = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        staged.mkdir(mode=0o700, parents=True)
        _copy(data, staged, with_blobs=with_blobs)
        staged.rename(out)
    except OSError as error:
        raise FleetError(
            f"back up to {out}", error.strerror or str(error), "free space or name another folder"
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _copy(data: Path, staged: Path, *, with_blobs: bool) -> None:
    # The database first: what it names is on disk already, since files are always written before their rows.
    database = Database(f"sqlite:///{data / 'fleet.db'}")
    try:
        database.copy_to(staged / "fleet.db")
    finally:
        database.close()
    for name in _FOLDERS:
        shutil.copytree(data / name, staged / name, ignore=shutil.ignore_patterns("*.part", ".*"))
    if with_blobs:
        shutil.copytree(data / "releases" / "blobs", staged / "releases" / "blobs")
