"""A tensor on its way from what an application gave to what an engine takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edge_runtime.contract.steps import Color
from edge_runtime.inference.backend import Array


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor under way, always with its batch axis, and what is in it beside the numbers."""

    array: Array
    layout: str | None = None
    """`NHWC` for pictures, `NT` or `NTC` for audio and what is made of it, None where axes have no such meaning."""
    color: Color | None = None
    rate_hz: int | None = None
    """Samples per second of audio."""


Step = Callable[[Value], Value]
"""One compiled preprocessing step."""
