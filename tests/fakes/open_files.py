"""Which files, sockets and memories this process holds open."""

from __future__ import annotations

import gc
from contextlib import suppress
from pathlib import Path


def open_files(*, is_first_look: bool = False) -> frozenset[str]:
    """Each open descriptor and what it leads to.

    Args:
        is_first_look: what earlier tests left as garbage is closed first, lest it closes before the second look. Not at
            the second one: what is open until somebody collects it counts as open.
    """
    if is_first_look:
        gc.collect()
    found = set()
    for descriptor in list(Path("/proc/self/fd").iterdir()):
        with suppress(FileNotFoundError):  # the one that the listing itself had
            found.add(f"{descriptor.name} {descriptor.readlink()}")
    return frozenset(found)
