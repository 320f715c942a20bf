"""Where a detector's boxes start from: cells of its grids, and square priors on them; remembered per input size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from edge_runtime.contract.errors import ContractError
from edge_runtime.inference.backend import Array


def cell_centres(size: tuple[int, int], strides: Sequence[int]) -> tuple[Array, Array]:
    """Centres [A, 2] (x, y) of all cells in input pixels, finest first, row after row; and their strides [A, 1]."""
    return _cells(size, tuple(strides))


def square_priors(size: tuple[int, int], strides: Sequence[int], sides: Sequence[Sequence[float]]) -> Array:
    """Priors [A, 4] (centre x, centre y, width, height), normalised, cut at 0 and 1; all sides of a cell in a row.

    UltraFace's generate_priors: the last grids stick out where the stride does not divide the input's size.

    Raises:
        ContractError: not one list of sides per stride.
    """
    if len(strides) != len(sides):
        raise ContractError("make priors", f"{len(sides)} lists of anchor_sizes for {len(strides)} strides")
    return _squares(size, tuple(strides), tuple(tuple(row) for row in sides))


@lru_cache(maxsize=8)
def _cells(size: tuple[int, int], strides: tuple[int, ...]) -> tuple[Array, Array]:
    centres, widths = [], []
    for stride in strides:
        y, x = np.mgrid[: -(-size[0] // stride), : -(-size[1] // stride)]
        centres.append((np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * stride)
        widths.append(np.full((x.size, 1), float(stride)))
    return np.concatenate(centres), np.concatenate(widths)


@lru_cache(maxsize=8)
def _squares(size: tuple[int, int], strides: tuple[int, ...], sides: tuple[tuple[float, ...], ...]) -> Array:
    extent = np.asarray([size[1], size[0]], np.float64)
    parts = []
    for stride, lengths in zip(strides, sides, strict=True):
        centres, _ = _cells(size, (stride,))
        placed = np.repeat(centres / extent, len(lengths), axis=0)
        shapes = np.tile(np.asarray(lengths, np.float64)[:, None] / extent, (len(centres), 1))
        parts.append(np.concatenate([placed, shapes], axis=1))
    priors: Array = np.clip(np.concatenate(parts), 0.0, 1.0)
    return priors
