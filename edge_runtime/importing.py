"""Imports that the garbage collector leaves alone: what they make stays, and there is much of it.

Imports next to nothing.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Around imports: nothing is collected in their midst, and what they made is not walked over afterwards."""
    was_enabled, known = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        # Not where nothing was imported: models that are opened and closed all day would leave garbage that counts as
        # old, which is collected seldom. Not where somebody keeps objects frozen on purpose.
        if len(sys.modules) > known and gc.get_freeze_count() == 0:
            # All of it counts as old from here on: as young it would be walked over a moment later, in the first call.
            gc.freeze()
            gc.unfreeze()
        if was_enabled:
            gc.enable()
