"""A CSV file: one row per sample, named columns, and what is missing said on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from converters.data.samples.labels import class_index, number
from converters.data.samples.rows import rows_of
from converters.data.samples.sample import Sample, Wanted, digest_of_arrays
from converters.data.truth import Truth
from converters.errors import BadDataset
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import shown
from edge_runtime.inference.backend import Array
from edge_runtime.inference.preprocessing.preprocess import Inputs

_MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
"""What stands in a cell that nobody filled in, in lower case."""


@dataclass(frozen=True, slots=True)
class Table:
    """Reads rows of a CSV file."""

    path: Path
    has_header: bool
    columns: Mapping[str, tuple[str, ...]]
    """Columns that make each public input, in order."""
    allows_missing: bool
    """Whether an empty cell becomes NaN (the model fills it in) or is refused."""

    def read(self, sample: Sample, names: Sequence[str]) -> Inputs:
        """float32 [columns] for each input. Raises: BadDataset."""
        rows = rows_of(self.path, has_header=self.has_header)
        row = rows[sample.row or 0]
        return {name: np.array([self._value(row, column) for column in self.columns[name]], np.float32)
                for name in names}  # fmt: skip

    def digest(self, sample: Sample) -> Digest:
        """Of the row. Raises: BadDataset."""
        arrays: dict[str, Array] = {
            name: np.asarray(one) for name, one in self.read(sample, list(self.columns)).items()
        }
        return digest_of_arrays(arrays)

    def _value(self, row: Mapping[str, str], column: str) -> float:
        text = (row[column] or "").strip()
        if text.lower() in _MISSING:
            if self.allows_missing:
                return float("nan")
            because, remedy = (
                f"column {shown(column)} is empty",
                "fill it in, or write missing = 'nan' if the model does",
            )
            raise BadDataset(f"read a row of {self.path.name}", because, remedy)
        try:
            return float(text)
        except ValueError as error:
            because = f"column {shown(column)} holds text ({shown(text, 40)}), models on devices take numbers"
            raise BadDataset(f"read a row of {self.path.name}", because, "encode it as numbers first") from error


def open_table(
    path: Path, wanted: Wanted, *, truth: Sequence[str], has_header: bool, allows_missing: bool
) -> tuple[Table, list[Sample]]:
    """The samples of a CSV file.

    Args:
        path: the file.
        wanted: inputs: the columns that their steps name, a column of their own, or all columns but the truth.
        truth: columns of the labels.
        has_header: False: columns are called 0, 1, …
        allows_missing: as in `Table`.

    Raises:
        BadDataset: unreadable, or a column is missing.
    """
    rows = rows_of(path, has_header=has_header)
    columns = list(rows[0])
    if absent := [name for name in truth if name not in columns]:
        raise BadDataset(f"read {path}", f"it has no column {shown(absent[0])}", f"it has {_listed(columns)}")
    judged = truth if wanted.truth in {"class", "values"} else ()
    samples = [Sample(path, _truth(row, judged, wanted, f"{path.name}[{number_}]"), number_)
               for number_, row in enumerate(rows)]  # fmt: skip
    table = Table(path, has_header, _columns_of(path, columns, wanted, truth, has_header=has_header), allows_missing)
    return table, samples


def _columns_of(
    path: Path, columns: list[str], wanted: Wanted, truth: Sequence[str], *, has_header: bool
) -> dict[str, tuple[str, ...]]:
    names = list(wanted.inputs)
    others = tuple(column for column in columns if column not in truth)
    # A file without a header can only mean its columns in the order the model takes them.
    if len(names) == 1 and (not has_header or names[0] not in wanted.columns) and names[0] not in columns:
        return {names[0]: others}
    found = {name: tuple(wanted.columns.get(name, (name,))) for name in names}
    if absent := [column for needed in found.values() for column in needed if column not in columns]:
        raise BadDataset(f"read {path}", f"it has no column {shown(absent[0])}", f"it has {_listed(columns)}")
    return found


def _truth(row: Mapping[str, str], columns: Sequence[str], wanted: Wanted, where: str) -> Truth | None:
    if not columns:
        return None
    if wanted.truth == "class":
        return class_index((row[columns[0]] or "").strip(), wanted.labels, where)
    return tuple(number(row[column] or "", where) for column in columns)


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(shown(column) for column in columns[:12]) + (", …" if len(columns) > 12 else "")
