"""Which tensors hold one row for each sample: where they do, several questions can be one, and one several (pure)."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np

from edge_runtime.contract.release import ReleaseManifest, VariantManifest
from edge_runtime.inference.backend import Array, Tensors

_Rows = TypeVar("_Rows", bound="Array | list[bytes]")

_SAMPLES: Final = "N"
"""Name of the axis that counts samples."""

BatchAxes = Mapping[str, Collection[int]]
"""For each input whose first axis counts samples: how many axes it has then."""


def batch_axes(release: ReleaseManifest, variant: VariantManifest) -> BatchAxes | None:
    """Where samples of several callers can be put together; None where this variant takes them one by one only."""
    if release.states:
        # What a caller's samples leave behind is that caller's alone.
        return None
    outputs = [release.tensors[name].shape for name in variant.io.outputs]
    if variant.batch.max < 2 or not variant.batch.dynamic or any(shape[:1] != [_SAMPLES] for shape in outputs):
        return None
    axes: dict[str, set[int]] = {}
    shapes = [(spec.name, spec.shape) for spec in release.signature.inputs]
    shapes += [(name, release.tensors[name].shape) for name in variant.io.inputs]
    for name, shape in shapes:
        if shape[:1] == [_SAMPLES]:
            axes.setdefault(name, set()).add(len(shape))
    return axes or None


def kind_of(feeds: Tensors, constants: Collection[str]) -> Hashable:
    """What feeds must have in common to run together: all but the number of rows."""
    return tuple((name, array.dtype, array.shape[1:]) for name, array in feeds.items() if name not in constants)


def rows_of(feeds: Tensors, constants: Collection[str]) -> int:
    """How many rows feeds hold."""
    return next((len(array) for name, array in feeds.items() if name not in constants), 1)


def joined(parts: Sequence[Tensors], constants: Collection[str]) -> dict[str, Array]:
    """Feeds of one kind as one, rows in their order; what every call is fed alike stays as it is."""
    if len(parts) == 1:
        return dict(parts[0])
    return {
        name: array if name in constants else np.concatenate([part[name] for part in parts])
        for name, array in parts[0].items()
    }


def cut(feeds: Tensors, most: int, constants: Collection[str]) -> list[dict[str, Array]]:
    """Feeds in pieces of at most so many rows."""
    return [
        {name: array if name in constants else array[start : start + most] for name, array in feeds.items()}
        for start in range(0, rows_of(feeds, constants), most)
    ]


def split(tensors: Mapping[str, _Rows], rows: Sequence[int]) -> list[dict[str, _Rows]] | None:
    """Each part's rows, of arrays or lists; None where an output has not one row for each of the input."""
    total = sum(rows)
    if not tensors or any(
        (len(values) if isinstance(values, list) or values.ndim else 0) != total for values in tensors.values()
    ):
        return None
    parts: list[dict[str, Any]] = []
    start = 0
    for count in rows:
        parts.append({name: values[start : start + count] for name, values in tensors.items()})
        start += count
    return parts
