"""The steps that make numbers of rows of a table; only models of tables wait for them."""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

from typing import Literal

from edge_runtime.contract.steps import Preparing


class Columns(Preparing, frozen=True, kw_only=True, tag="columns"):
    """Named table columns to one numeric vector."""

    names: list[str]
    dtype: str
    missing: Literal["error", "mean", "value", "keep"]
    """What an empty cell is: refused, filled with a mean or a value, or NaN that the model itself fills in."""
    value: float | None = None
    """Stands in for a missing number with `missing` value."""
    means: list[float] = []
    """One per column, with `missing` mean."""


class Standardize(Preparing, frozen=True, kw_only=True, tag="standardize"):
    """y = (x − mean) / std, per column."""

    mean: list[float]
    std: list[float]


class Relative(Preparing, frozen=True, kw_only=True, tag="relative"):
    """Coordinates relative to one point, scaled by the largest magnitude."""

    origin: int
    """Index of the point that becomes zero."""
    scale: Literal["max_abs", "none"]
    coordinates: int | None = None
    """Numbers per point, where they lie in one row; None: the last axis is a point."""
