"""What runs on the device: trust, update, inference and the agent that joins them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_runtime.inference.model import Model
    from edge_runtime.installed import open_installed

__all__ = ["Model", "open_installed"]


def __getattr__(name: str) -> object:
    # Late: whoever imports only the contract must not pay for numpy.
    if name == "Model":
        from edge_runtime.importing import uncollected

        with uncollected():
            from edge_runtime.inference.model import Model

        return Model
    if name == "open_installed":
        from edge_runtime.installed import open_installed

        return open_installed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
