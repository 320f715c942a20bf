"""Rows of named numbers."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.contract.steps import parse_preprocess
from edge_runtime.contract.tensor import InputSpec
from edge_runtime.inference.preprocessing.table_steps import build_table_step, decode_table
from edge_runtime.inference.preprocessing.values import Value

COLUMNS = {"op": "columns", "names": ["a", "b"], "dtype": "float32", "missing": "error"}
SPEC = InputSpec(name="row", kind="table", dtype="float32", shape=["N", 2], accept=["csv", "json", "tensor"])


def run(rows, raw):
    (step,) = parse_preprocess([{"id": "s"} | raw])
    return build_table_step(step)(Value(np.asarray(rows, np.float32))).array


def test_a_missing_number_is_refused_or_replaced_as_written() -> None:
    rows = [[1, np.nan], [3, 4]]

    with pytest.raises(InferenceError, match="column b is missing in a row"):
        run(rows, COLUMNS)
    assert run(rows, COLUMNS | {"missing": "value", "value": -1.0}).tolist() == [[1, -1], [3, 4]]
    assert run(rows, COLUMNS | {"missing": "mean", "means": [7.0, 8.0]}).tolist() == [[1, 8], [3, 4]]
    assert np.isnan(run(rows, COLUMNS | {"missing": "keep"})).tolist() == [[False, True], [False, False]]
    with pytest.raises(ContractError, match="0 means for 2 columns"):
        run(rows, COLUMNS | {"missing": "mean"})


def test_columns_are_standardised_one_by_one() -> None:
    assert run([[1, 10]], {"op": "standardize", "mean": [0.0, 5.0], "std": [2.0, 5.0]}).tolist() == [[0.5, 1]]


def test_points_are_seen_from_one_of_them_and_scaled_to_one() -> None:
    step = {"op": "relative", "origin": 0, "scale": "max_abs", "coordinates": 2}

    assert run([[10, 10, 14, 8, 10, 12]], step).tolist() == [[0, 0, 1, -0.5, 0, 0.5]]
    assert run([[[10, 10], [14, 8]]], step | {"coordinates": None}).tolist() == [[[0, 0], [1, -0.5]]]
    assert run([[5, 5, 5, 5]], step).tolist() == [[0, 0, 0, 0]]
    with pytest.raises(ContractError, match="write coordinates"):
        run([[1, 2]], {"op": "relative", "origin": 0, "scale": "none"})


def test_csv_and_json_rows_are_read_by_column_name() -> None:
    assert decode_table(b"b,extra,a\n2,x,1\n,y,3\n", SPEC, ["a", "b"])[0].tolist() == [1, 2]
    assert np.isnan(decode_table(b"b,extra,a\n2,x,1\n,y,3\n", SPEC, ["a", "b"])[1, 1])
    assert decode_table(b'{"b": 2, "a": 1}', SPEC, ["a", "b"]).tolist() == [[1, 2]]
    assert decode_table(b'[{"b": 2, "a": 1}, {"a": 3, "b": 4}]', SPEC, ["a", "b"]).tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (b"a\n1\n", "column 'b' is missing"),
        (b"a,b\n1,two\n", "column 'b' says 'two', no number"),
        (b"a,b\n", "it has no rows"),
        (b"[1, 2]", "it has no rows"),
        (b"\xff\xfe", "neither CSV nor JSON"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_the_reason(content: bytes, because: str) -> None:
    with pytest.raises(InferenceError, match=because):
        decode_table(content, SPEC, ["a", "b"])


@pytest.mark.parametrize(
    ("dtype", "content", "because"),
    [
        ("float32", b"[" * 200_000, "neither CSV nor JSON"),
        ("int64", b'{"a": null, "b": 1}', "column 'a' says nan, the model takes int64"),
        ("int64", b'{"a": 1, "b": 1e999}', "column 'b' says inf, the model takes int64"),
        ("uint8", b"a,b\n1,300\n", "column 'b' says 300, the model takes uint8"),
    ],
)
def test_numbers_that_the_model_cannot_take_are_refused(dtype: str, content: bytes, because: str) -> None:
    with pytest.raises(InferenceError, match=because):
        decode_table(content, msgspec.structs.replace(SPEC, dtype=dtype), ["a", "b"])
