"""What runs on the device: trust, update, inference and the agent that joins them."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_runtime.inference.model import Model
    from edge_runtime.installed import open_installed

__all__ = ["Model", "open_installed"]


def __getattr__(name: str) -> object:
    # Late: whoever imports only the contract must not pay for numpy.
    if name == "Model":
        return _import_model()
    if name == "open_installed":
        from edge_runtime.installed import open_installed

        return open_installed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _import_model() -> object:
    # What an import makes stays: collecting in the midst of it walks over numpy's and our own modules for nothing.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        from edge_runtime.inference.model import Model
    finally:
        if gc.get_freeze_count() == 0:  # else somebody keeps objects frozen on purpose
            # All of it counts as old from here on: as young it would be walked over a moment later, in the first call.
            gc.freeze()
            gc.unfreeze()
        if was_enabled:
            gc.enable()
    return Model
