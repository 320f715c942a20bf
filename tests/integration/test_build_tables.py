"""Tables become releases: several named inputs, gaps that the model fills in, and a metric of the engineer's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import skops.io
from onnx import TensorProto, helper, numpy_helper
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from converters.commands.translate import with_local_model
from converters.pipeline.build import build
from converters.pipeline.finishing import BuildOptions
from converters.planning.recipe import Recipe, check_recipe
from converters.report.build_report import BuildReport
from edge_runtime import Model
from edge_runtime.inference.answer_files import answer_files

RNG = np.random.default_rng(5)


def built(folder: Path, **raw: Any) -> BuildReport:
    whole = {"name": "table", "version": "1", "task": "any", "targets": ["cpu"], "engines": ["onnxruntime"],
             "golden": {"count": 4, "contains_personal_data": False}, **raw}  # fmt: skip
    recipe = msgspec.convert(whole, Recipe)
    check_recipe(recipe)
    recipe = with_local_model(recipe, folder, trusts_code=False)
    options = BuildOptions(base=folder, out=folder / "release", cache=None)
    return build(recipe, options, lambda *_: None)


def two_inputs(folder: Path) -> None:
    """`age` and `weight`, float32 [N, 1] each, to `y` float32 [N, 3]; and a table of what the model itself says."""
    first, second = (RNG.standard_normal(shape).astype(np.float32) for shape in ((2, 16), (16, 3)))
    nodes = [
        helper.make_node("Concat", ["age", "weight"], ["x"], axis=1),
        helper.make_node("Gemm", ["x", "first"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "second"], ["y"]),
    ]
    entries = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in ("age", "weight")]
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    weights = [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")]
    graph = helper.make_graph(nodes, "g", entries, [answer], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "m.onnx")
    rows = RNG.standard_normal((120, 2)).astype(np.float32)
    said = (np.maximum(rows @ first, 0) @ second).argmax(axis=1)
    lines = [f"{weight},{'abc'[label]},{age}" for (age, weight), label in zip(rows, said, strict=True)]
    (folder / "t.csv").write_text("\n".join(["weight,kind,age", *lines]) + "\n")
    (folder / "labels.txt").write_text("a\nb\nc\n")


def test_each_column_feeds_the_input_of_its_name_in_float_and_in_int8(tmp_path) -> None:
    two_inputs(tmp_path)
    inputs = {name: {"tensor": name, "kind": "tensor"} for name in ("age", "weight")}
    outputs = {"kind": {"tensor": "y", "kind": "classes", "activation": "softmax", "labels": "labels.txt"}}
    table = {"file": "t.csv", "truth": "kind"}

    report = built(
        tmp_path, model="m.onnx", inputs=inputs, outputs=outputs, prefer="accuracy",
        calibration={**table, "range": "::3"}, evaluation={**table, "range": "not ::3"},
        limits={"max_drop": {"*": 0.5}},
    )  # fmt: skip

    assert (report.metric, report.reference, report.count) == ("top1", 1.0, 80)
    shipped = {row.precision for row in report.rows if row.verdict == "shipped"}
    assert shipped == {"float32", "int8"}


def test_a_pipeline_with_gaps_is_asked_on_the_device_with_a_cell_left_empty(tmp_path) -> None:
    rows = RNG.standard_normal((90, 2))
    labels = np.array(["low", "high"])[(rows.sum(axis=1) > 0).astype(int)]
    rows[::9, 1] = np.nan
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression()).fit(rows, labels)
    skops.io.dump(pipeline, tmp_path / "sum.skops")
    cells = [f"{a},{'' if np.isnan(b) else b},{label}" for (a, b), label in zip(rows, labels, strict=True)]
    (tmp_path / "t.csv").write_text("\n".join(["left,right,sum", *cells]) + "\n")
    step = {"op": "columns", "names": ["left", "right"], "dtype": "float32", "missing": "keep"}

    report = built(
        tmp_path, model="sum.skops", precisions=["float32"],
        inputs={"row": {"tensor": "features", "kind": "table", "steps": [step]}},
        outputs={"sum": {"tensor": "probabilities", "kind": "classes", "activation": "none"}},
        evaluation={"file": "t.csv", "truth": "sum"},
    )  # fmt: skip

    right = pipeline.score(rows, labels)
    assert report.reference == pytest.approx(right, abs=1e-6)
    with Model.open(tmp_path / "release") as model:
        answer = model.infer({"row": b"left,right\n3.5,\n"})["sum"]
        # More rows than one call carries, asked as a person asks about a file.
        answered = [one for _, one in answer_files(model, [tmp_path / "t.csv"])]
    assert answer.labels[0] == "high"
    assert np.mean([one["sum"].labels[0] == label for one, label in zip(answered, labels, strict=True)]) == right


def test_the_engineers_own_metric_judges_and_its_direction_is_kept(tmp_path) -> None:
    two_inputs(tmp_path)
    text = "def off_by(answer, truth):\n    return abs(float(answer.array[0]) - truth[0])\noff_by.is_error = True\n"
    (tmp_path / "table_metrics.py").write_text(text)
    inputs = {name: {"tensor": name, "kind": "tensor"} for name in ("age", "weight")}
    numbers = (tmp_path / "t.csv").read_text().replace(",a,", ",1,").replace(",b,", ",2,").replace(",c,", ",3,")
    (tmp_path / "t.csv").write_text(numbers)

    report = built(
        tmp_path, model="m.onnx", precisions=["float32"], inputs=inputs,
        outputs={"y": {"tensor": "y", "kind": "tensor"}},
        evaluation={"file": "t.csv", "truth": "kind", "metric": "table_metrics:off_by"},
    )  # fmt: skip

    assert report.metric == "table_metrics:off_by"
    assert report.reference
    assert [row.drop for row in report.rows] == [0.0]
