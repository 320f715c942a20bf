"""One `.npz` or `.npy` file that holds all samples along its first axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from converters.data.samples.array_files import read_arrays
from converters.data.samples.labels import class_index, number
from converters.data.samples.sample import Sample, Wanted, digest_of_arrays
from converters.data.truth import Truth
from converters.errors import BadDataset
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import shown
from edge_runtime.inference.backend import Array
from edge_runtime.inference.preprocessing.preprocess import Inputs

_TRUTH_KEYS: Final = ("y", "label", "labels", "target", "targets")
"""What people call the labels in such a file; the first that fits is taken unless the recipe names one."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How real numbers became the integers of a file: real = (stored − zero_point) · scale."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """Reads rows of one file."""

    path: Path
    keys: Mapping[str, str]
    """Key in the file by public input."""
    stored: Stored | None

    def read(self, sample: Sample, names: Sequence[str]) -> Inputs:
        """Row of each array. Raises: OSError, BadDataset."""
        arrays = _opened(self.path, _changed_ns(self.path))
        return {name: self._real(arrays[self.keys[name]][sample.row]) for name in names}

    def digest(self, sample: Sample) -> Digest:
        """Of the rows as the model gets them: another scale makes another set. Raises: OSError, BadDataset."""
        arrays = _opened(self.path, _changed_ns(self.path))
        return digest_of_arrays({name: self._real(arrays[key][sample.row]) for name, key in self.keys.items()})

    def _real(self, row: Array) -> Array:
        row = np.asarray(row)
        if self.stored is not None:
            row = (row.astype(np.float32) - np.float32(self.stored.zero_point)) * np.float32(self.stored.scale)
        return row


def open_arrays(
    path: Path, wanted: Wanted, *, truth: str | None, stored: Stored | None
) -> tuple[ArrayFile, list[Sample]]:
    """The samples of one array file.

    Args:
        path: `.npz` with one array per input and, if known, one of labels; or a `.npy` for a single input.
        wanted: inputs, kind of labels, and their texts.
        truth: key of the labels, or another `.npy` file beside this one; None: as people usually call it.
        stored: how its integers become real numbers; None: they are what they are.

    Raises:
        BadDataset: damaged, a key is missing, or arrays of different length.
    """
    arrays = _opened(path, _changed_ns(path))
    truths = _truths(path, arrays, wanted, truth)
    keys = _keys_of(path, arrays, wanted, truth)
    used = [arrays[key] for key in keys.values()] + ([truths] if truths is not None else [])
    if any(array.ndim == 0 for array in used):
        raise BadDataset(f"read {path}", "one of its arrays is a single number", "give each input one row a sample")
    count, lengths = len(used[0]), {len(array) for array in used}
    if lengths != {count} or count == 0:
        raise BadDataset(
            f"read {path}", f"its arrays hold {sorted(lengths)} samples", "give each input one row a sample"
        )
    samples = [Sample(path, _truth(truths[row], wanted, f"{path.name}[{row}]") if truths is not None else None, row)
               for row in range(count)]  # fmt: skip
    return ArrayFile(path, keys, stored), samples


def _keys_of(path: Path, arrays: Mapping[str, Array], wanted: Wanted, truth: str | None) -> dict[str, str]:
    names = list(wanted.inputs)
    if all(name in arrays for name in names):
        return {name: name for name in names}
    inputs = [key for key in arrays if key != truth and key not in _TRUTH_KEYS]
    if len(names) == 1 and (len(inputs) == 1 or "x" in inputs):
        return {names[0]: "x" if "x" in inputs else inputs[0]}
    raise BadDataset(
        f"read {path}", f"it has arrays {', '.join(arrays)}, the model takes {', '.join(names)}",
        "call the arrays as the recipe calls its inputs",
    )  # fmt: skip


def _truths(path: Path, arrays: Mapping[str, Array], wanted: Wanted, truth: str | None) -> Array | None:
    if wanted.truth not in {"class", "values"}:
        return None
    if truth is not None and truth.endswith(".npy"):
        return read_arrays(path.parent / truth)[""]
    if truth is not None and truth not in arrays:
        raise BadDataset(f"read {path}", f"it has no array {shown(truth)}", f"it has {', '.join(arrays)}")
    key = truth or next((key for key in _TRUTH_KEYS if key in arrays and key not in wanted.inputs), None)
    return arrays[key] if key is not None else None


def _truth(value: Array, wanted: Wanted, where: str) -> Truth:
    if wanted.truth == "class":
        if np.ndim(value) != 0:
            raise BadDataset("match the labels", f"{where} has {np.size(value)} of them", "write one class per sample")
        return class_index(str(value), wanted.labels, where)
    return tuple(number(str(one), where) for one in np.ravel(value))


def _changed_ns(path: Path) -> int:
    return path.stat().st_mtime_ns


@lru_cache(maxsize=2)
def _opened(path: Path, changed_ns: int) -> dict[str, Array]:  # noqa: ARG001 (a file written anew is another file)
    """All arrays of a file; a `.npy` stays on disk until a row is asked for."""
    arrays = read_arrays(path)
    return {"x": arrays[""]} if path.suffix.lower() == ".npy" else arrays
