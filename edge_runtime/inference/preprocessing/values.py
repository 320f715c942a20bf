"""A tensor on its way from what an application gave to what an engine takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.steps import Color
from edge_runtime.inference.backend import Array

CHANNELS: Final = {"rgb": 3, "bgr": 3, "gray": 1}
"""Channels of an image of that colour."""


class Value(msgspec.Struct, frozen=True):
    """A tensor under way, always with its batch axis, and what is in it beside the numbers."""

    array: Array
    layout: str | None = None
    """`NHWC` for pictures, `NT` or `NTC` for audio and what is made of it, None where axes have no such meaning."""
    color: Color | None = None
    rate_hz: int | None = None
    """Samples per second of audio."""


Step = Callable[[Value], Value]
"""One compiled preprocessing step."""


def permute(value: Value, wanted: str) -> Value:
    """The value with its axes in another order. Raises: ContractError when it does not have these axes."""
    current, target = value.layout, wanted if wanted.startswith("N") else f"N{wanted}"
    if current is None or sorted(current) != sorted(target):
        raise ContractError("run preprocess step layout", f"a tensor of layout {current} cannot become {target}")
    return Value(value.array.transpose([current.index(axis) for axis in target]), target, value.color, value.rate_hz)
