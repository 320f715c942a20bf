"""Which agent this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

BUILD_S: Final = 1_793_491_200.0
"""2026-11-01: nothing this software meets happens earlier, whatever a device's clock says. Raised with each release."""


def agent_version() -> str:
    """Version of the installed distribution."""
    try:
        return version("edgefleet")
    except PackageNotFoundError:
        return "0+unknown"
