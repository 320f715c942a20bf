"""One sample, the port every source of samples implements, and what is expected of a set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from converters.data.truth import Truth
from edge_runtime.contract.digest import Digest
from edge_runtime.inference.backend import Array
from edge_runtime.inference.preprocessing.preprocess import Inputs

TruthKind = Literal["class", "values", "boxes", "mask"]
"""What a person says about one sample, by what the output answers with."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One question, with its answer where that is known."""

    path: Path
    truth: Truth | None = None
    row: int | None = None
    """Place in a file that holds many samples."""

    @property
    def label(self) -> int | None:
        """The class index, where the truth is one."""
        return self.truth if isinstance(self.truth, int) else None

    def name_in(self, root: Path) -> str:
        """How people call it."""
        name = str(self.path.relative_to(root)) if self.path.is_relative_to(root) else self.path.name
        return name if self.row is None else f"{self.path.name}[{self.row}]"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a model takes and is judged by."""

    inputs: Mapping[str, str]
    """Kind by public input."""
    truth: TruthKind | None
    """None: labels are not asked for."""
    labels: tuple[str, ...] | None = None
    """Label texts by class index; None when the model has none."""
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Columns that make an input, for inputs that are tables."""
    fills_gaps: bool = False
    """Whether the release's own steps say what a missing number becomes."""
    keeps_gaps: bool = False
    """Whether they say that the model itself does."""


def file_in(folder: Path, name: str) -> Path | None:
    """The file that a list of samples names; None when there is none, or when it is outside of the folder."""
    try:
        path = (folder / name).resolve()
        is_there = path.is_relative_to(folder.resolve()) and path.is_file()
    except (OSError, ValueError):
        # A name that no file can have: too long, or with a NUL in it.
        return None
    return folder / name if is_there else None


class Source(Protocol):
    """Reads samples; nothing of them stays in memory."""

    def read(self, sample: Sample, names: Sequence[str]) -> Inputs:
        """The public inputs of a sample. Raises: OSError, ValueError, InferenceError, BadDataset."""

    def digest(self, sample: Sample) -> Digest:
        """Of the inputs' content: equal for equal samples, whatever they are called. Raises: OSError, ValueError."""


def digest_of_arrays(arrays: Mapping[str, Array]) -> Digest:
    """One digest for the arrays of a sample, whichever file holds them."""
    hasher = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        # A batch axis of one is no other sample.
        shape = array.shape[1:] if array.ndim > 1 and array.shape[0] == 1 else array.shape
        hasher.update(f"{name}\0{array.dtype.str}\0{shape}\0".encode())
        hasher.update(array.tobytes())
    return Digest("sha256:" + hasher.hexdigest())
