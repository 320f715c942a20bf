"""Which layers ruin a quantised model, found by undoing their quantisation in one file."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.compilers.job import CompileJob, RangesJob, SensitivityJob
from converters.compilers.worker import run
from converters.planning.sensitivity import (
    CurvePoint,
    LayerError,
    Sensitivity,
    explain,
    explain_mixed,
    explain_unlike,
    layers_to_keep,
    most_in_float,
)
from edge_runtime.inference.arrays import write_npz
from tests.unit.converters.test_ranges import method

pytest.importorskip("onnxruntime")
CHANNELS = 8


def uneven_model() -> onnx.ModelProto:
    """Four convolutions; one weight of the second is a thousand times larger than the rest, and multiplies nothing."""
    rng = np.random.default_rng(5)
    nodes, constants, name = [], [], "input"
    for number in range(4):
        weight = rng.normal(0, 0.25, (CHANNELS, CHANNELS, 1, 1)).astype(np.float32)
        if number == 0:
            weight[3] = 0.0
        if number == 1:
            weight[5] = 0.0
            weight[5, 3] = 250.0
        constants.append(numpy_helper.from_array(weight, f"weight_{number}"))
        nodes.append(helper.make_node("Conv", [name, f"weight_{number}"], [f"made_{number}"], name=f"layer_{number}"))
        name = f"made_{number}"
    shape = [1, CHANNELS, 4, 4]
    graph = helper.make_graph(
        nodes, "uneven", [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)], constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def look(folder: Path, name: str, *, undo: bool) -> Sensitivity:
    samples = folder / "calibration"
    samples.mkdir()
    onnx.save(uneven_model(), str(folder / "float.onnx"))
    for number in range(8):
        picture = np.random.default_rng(number).normal(0, 1, (1, CHANNELS, 4, 4)).astype(np.float32)
        (samples / f"{number}.npz").write_bytes(write_npz({"input": picture}))
    given = {"calibration": str(samples), "out": str(folder)}
    taken = run(RangesJob(model=str(folder / "float.onnx"), ranges="minmax", **given))
    made = run(CompileJob(method=method(name), model=str(folder / "float.onnx"), **taken.files, **given))
    job = SensitivityJob(prepared=taken.files["prepared"], quantised=made.files["model"], undo=undo, **given)
    return msgspec.json.decode(Path(run(job).files["sensitivity"]).read_bytes(), type=Sensitivity)


def sensitivity(base: float, curve: list[float], *, weights: float = 40.0, alone: float = 40.0) -> Sensitivity:
    nodes = [f"layer_{number}" for number in range(8)]
    return Sensitivity(
        samples=4, base_db=base, weights_db=weights,
        layers=[LayerError(node=node, op="Conv", alone_db=alone) for node in nodes],
        curve=[CurvePoint(nodes=nodes[: count + 1], snr_db=value) for count, value in enumerate(curve)],
    )  # fmt: skip


def test_the_layer_that_one_scale_for_all_channels_ruins_is_named(tmp_path: Path) -> None:
    found = look(tmp_path, "int8-full-tensor", undo=True)

    assert min(found.layers, key=lambda layer: layer.alone_db).node == "layer_1"
    assert found.curve[0].nodes == ["layer_1"]
    assert found.curve[0].snr_db > found.base_db + 3.0
    assert layers_to_keep(found) == ["layer_1"]
    assert "layer_1" in explain(found, per_channel=False)
    assert "one scale for each channel" in explain(found, per_channel=False)


def test_a_scale_for_each_channel_leaves_no_culprit(tmp_path: Path) -> None:
    found = look(tmp_path, "int8-full", undo=False)

    assert min(layer.alone_db for layer in found.layers) > 30.0
    assert found.curve == []
    assert layers_to_keep(found) == []


def test_few_layers_that_win_much_are_kept_in_float_and_no_more_than_needed() -> None:
    found = sensitivity(10.0, [14.0, 19.0, 19.5])

    assert layers_to_keep(found) == ["layer_0", "layer_1"]
    assert "2 of 8 win most of it back" in explain_mixed(found)


def test_a_flat_curve_is_said_to_be_one() -> None:
    found = sensitivity(16.7, [17.2, 17.3])

    assert layers_to_keep(found) == []
    assert "mixed precision will not help" in explain_mixed(found)


def test_ranges_are_blamed_where_the_weights_are_innocent() -> None:
    assert "the ranges of the activations are" in explain(sensitivity(6.0, [], weights=40.0), per_channel=True)
    assert "spread over all layers" in explain(sensitivity(17.0, [], weights=18.0), per_channel=True)


def test_calibration_examples_that_come_out_far_better_are_not_like_what_was_asked() -> None:
    found = sensitivity(33.0, [])

    assert "the two sets are not alike" in explain_unlike(found, 0.4)
    assert "33.0 dB on the calibration examples, 0.4 dB on the evaluation set" in explain_unlike(found, 0.4)
    assert not explain_unlike(found, 29.0)
    assert not explain_unlike(found, None)


def test_at_least_one_and_at_most_a_quarter_of_the_layers_stay_in_float() -> None:
    assert [most_in_float(count) for count in (1, 4, 16, 400)] == [1, 1, 4, 8]
