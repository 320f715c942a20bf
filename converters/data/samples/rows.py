"""Rows of a CSV file, each with a cell for every column."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

from converters.errors import BadDataset
from edge_runtime.contract.ids import shown


def rows_of(path: Path, *, has_header: bool) -> list[dict[str, str]]:
    """Cells by column; a file that changed is read again.

    Raises:
        BadDataset: unreadable, no CSV in UTF-8, without rows, or rows of different length.
    """
    try:
        changed_ns = path.stat().st_mtime_ns
    except (OSError, ValueError) as error:
        raise BadDataset(f"read {path}", shown(str(error)), "check the path") from error
    return _rows(path, has_header, changed_ns)


@lru_cache(maxsize=2)
def _rows(path: Path, has_header: bool, changed_ns: int) -> list[dict[str, str]]:  # noqa: ARG001, FBT001 (keys of a cache)
    try:
        with path.open(newline="", encoding="utf-8-sig") as source:
            lines = [line for line in csv.reader(source) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadDataset(f"read {path}", shown(str(error)), "write it as CSV, UTF-8") from error
    names = lines.pop(0) if has_header and lines else [str(column) for column in range(len(lines[0]) if lines else 0)]
    if not lines:
        raise BadDataset(f"read {path}", "it holds no row", "name the file of examples")
    if len(set(names)) != len(names):
        raise BadDataset(f"read {path}", "two columns have the same name", "write header = false if it has no header")
    for position, line in enumerate(lines):
        if len(line) != len(names):
            because = f"row {position} has {len(line)} cells, the first line has {len(names)}"
            raise BadDataset(f"read {path}", because, "correct that row")
    return [dict(zip(names, line, strict=True)) for line in lines]
