"""Steps on rows of numbers: named columns, standardisation, points relative to one of them; and rows from files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from functools import partial

import numpy as np

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.steps import PreStep, op_of
from edge_runtime.contract.table_steps import Columns, Relative, Standardize
from edge_runtime.contract.tensor import InputSpec
from edge_runtime.inference.backend import Array
from edge_runtime.inference.preprocessing.values import Step, Value


def build_table_step(step: PreStep) -> Step:
    """One step as a function of the value before it.

    Raises:
        UnsupportedFeature: another operation.
        ContractError: a field that its other fields need is missing.
    """
    match step:
        case Columns():
            return partial(_columns, step=step, stand_ins=_stand_ins(step))
        case Standardize():
            return partial(_standardize, step=step)
        case Relative():
            return partial(_relative, step=step)
        case _:
            op = op_of(step)
            raise UnsupportedFeature(f"run preprocess step {op} ({step.id})", "it does not work on tables")


def decode_table(content: bytes, spec: InputSpec, names: Sequence[str]) -> Array:
    """CSV with a line of names, or JSON objects, to rows [N, columns] of the input's dtype; NaN where nothing stands.

    Raises:
        InferenceError: not such a file, a column is missing, or a cell is no number.
    """
    if not names:
        raise InferenceError(f"take input {spec.name}", "its columns have no names", "give an array")
    try:
        text = content.decode("utf-8-sig")
        if text.lstrip()[:1] in {"{", "["}:
            document = json.loads(text)
            rows = document if isinstance(document, list) else [document]
        else:
            rows = list(csv.DictReader(io.StringIO(text)))
    except UnicodeDecodeError as error:
        raise InferenceError("read a table", "it is neither CSV nor JSON but bytes", "give UTF-8 text") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise InferenceError("read a table", f"it is neither CSV nor JSON ({shown(str(error), 120)})") from error
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InferenceError("read a table", "it has no rows with named columns", "write the names in the first line")
    numbers = np.asarray([[_number(row, name) for name in names] for row in rows], np.float64)
    return _in_dtype(numbers, spec.dtype, names)


def _in_dtype(numbers: Array, dtype: str, names: Sequence[str]) -> Array:
    """[N, columns] as the input takes them. Raises: InferenceError: a whole number is asked, and there is none."""
    if np.dtype(dtype).kind == "f":
        with np.errstate(over="ignore"):
            return numbers.astype(dtype)
    with np.errstate(invalid="ignore"):
        whole = numbers.astype(dtype)
    if (unlike := whole != numbers).any():
        row, column = (int(place[0]) for place in np.nonzero(unlike))
        because = f"column {shown(names[column])} says {numbers[row, column]:g}, the model takes {dtype}"
        raise InferenceError("read a table", because, "write a number of that type")
    return whole


def _number(row: dict[str, object], name: str) -> float:
    if name not in row:
        raise InferenceError("read a table", f"column {shown(name)} is missing", "add it")
    cell = row[name]
    if cell is None or cell == "":
        return float("nan")
    try:
        return float(str(cell))
    except ValueError as error:
        raise InferenceError("read a table", f"column {shown(name)} says {shown(str(cell))}, no number") from error


def _stand_ins(step: Columns) -> Array | None:
    """For each column what replaces a missing number; None: nothing does."""
    match step.missing:
        case "error" | "keep":
            return None
        case "value":
            if step.value is None:
                raise ContractError(f"run preprocess step columns ({step.id})", "missing is value, and none is given")
            return np.full(len(step.names), step.value)
        case "mean":
            if len(step.means) != len(step.names):
                because = f"missing is mean, with {len(step.means)} means for {len(step.names)} columns"
                raise ContractError(f"run preprocess step columns ({step.id})", because)
            return np.asarray(step.means, np.float64)


def _columns(value: Value, *, step: Columns, stand_ins: Array | None) -> Value:
    rows = value.array
    if rows.ndim != 2 or rows.shape[1] != len(step.names):
        because = f"it has shape {list(rows.shape)} for {len(step.names)} columns"
        raise InferenceError("prepare a table", because, f"give {', '.join(step.names[:8])}")
    if step.missing != "keep" and rows.dtype.kind == "f" and (holes := np.isnan(rows)).any():
        if stand_ins is None:
            name = step.names[int(np.argwhere(holes)[0][1])]
            raise InferenceError("prepare a table", f"column {name} is missing in a row", "fill it in")
        return Value(np.where(holes, stand_ins, rows).astype(step.dtype), value.layout)
    return Value(rows.astype(step.dtype), value.layout)


def _standardize(value: Value, *, step: Standardize) -> Value:
    columns = value.array.shape[-1]
    if {len(step.mean), len(step.std)} - {1, columns}:
        because = f"{len(step.mean)} means and {len(step.std)} deviations for {columns} columns"
        raise ContractError(f"run preprocess step standardize ({step.id})", because)
    mean, std = np.asarray(step.mean, np.float32), np.asarray(step.std, np.float32)
    return Value((value.array.astype(np.float32) - mean) / std, value.layout)


def _relative(value: Value, *, step: Relative) -> Value:
    """Points [N, P, D], or rows [N, P · D] with `coordinates` D, minus the origin point, over the largest magnitude."""
    given = value.array
    size = step.coordinates or (given.shape[2] if given.ndim == 3 else 0)
    if not size or given.size % size:
        because = f"a tensor of shape {list(given.shape)} is no list of points"
        raise ContractError(f"run preprocess step relative ({step.id})", because, "write coordinates")
    points = given.reshape(len(given), -1, size).astype(np.float32)
    if not 0 <= step.origin < points.shape[1]:
        raise ContractError(f"run preprocess step relative ({step.id})", f"there is no point {step.origin}")
    moved: Array = points - points[:, step.origin : step.origin + 1]
    if step.scale == "max_abs":
        largest = np.abs(moved).max(axis=(1, 2), keepdims=True)
        moved = moved / np.where(largest > 0, largest, 1).astype(np.float32)
    return Value(moved.reshape(given.shape), value.layout)
