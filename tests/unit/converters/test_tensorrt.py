"""The two files a Jetson builds its engine from: what TensorRT needs of them, and that they still answer."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.compilers.job import CompileJob
from converters.compilers.tensorrt import compile_job
from converters.errors import CompileFailed
from converters.model.opset import standard_opset
from converters.planning.methods import METHODS, Method
from edge_runtime.inference.arrays import write_npz
from tests.fakes.onnx_models import conv_classifier, saved

ort = pytest.importorskip("onnxruntime")
BY_NAME = {method.name: method for method in METHODS["tensorrt"]}
SAMPLES = [np.random.default_rng(n).standard_normal((1, 3, 8, 8)).astype(np.float32) for n in range(24)]


def made(name: str, folder: Path, model: Any | None = None) -> Any:
    folder.mkdir(parents=True, exist_ok=True)
    samples = folder / "samples"
    samples.mkdir(exist_ok=True)
    for number, sample in enumerate(SAMPLES[:16]):
        (samples / f"{number:06d}.npz").write_bytes(write_npz({"input": sample}))
    source = saved(model or conv_classifier(), folder / "float.onnx")
    job = CompileJob(method=BY_NAME[name], model=str(source), out=str(folder), calibration=str(samples))
    return onnx.load(compile_job(job).files["model"])


def answers(model: Any) -> np.ndarray[Any, Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    return np.concatenate([session.run(None, {"input": sample})[0] for sample in SAMPLES[16:]])


def snr_db(model: Any, source: Any | None = None) -> float:
    right, got = answers(source or conv_classifier()), answers(model)
    return float(10 * np.log10(np.sum(right**2) / np.sum((right - got) ** 2)))


@pytest.mark.parametrize(("name", "opsets", "ir"), [("weak", range(13, 18), 8), ("strong", range(19, 21), 9)])
def test_both_int8_files_are_what_their_tensorrt_takes_and_answer_as_before(name, opsets, ir, tmp_path) -> None:
    model = made(name, tmp_path)

    onnx.checker.check_model(model, full_check=True)
    assert standard_opset(model) in opsets
    assert model.ir_version == ir
    assert [entry.domain for entry in model.opset_import] == [""]
    assert snr_db(model) > 25


@pytest.mark.parametrize("name", ["weak", "strong"])
def test_every_zero_point_is_zero_and_every_bias_stays_float(name, tmp_path) -> None:
    tensors = {tensor.name: tensor for tensor in made(name, tmp_path).graph.initializer}

    zeros = [tensor for tensor in tensors.values() if tensor.data_type == TensorProto.INT8]

    assert zeros
    assert not any(numpy_helper.to_array(tensor).any() for tensor in zeros)
    assert not any(tensor.data_type in {TensorProto.UINT8, TensorProto.INT32} for tensor in tensors.values())


def test_an_activation_stays_beside_the_convolution_it_fuses_with(tmp_path) -> None:
    graph = made("weak", tmp_path).graph

    behind = [node.op_type for node in graph.node if "c" in node.input]

    assert behind == ["Relu"]


def test_the_strong_file_computes_in_half_precision_between_float_ports(tmp_path) -> None:
    graph = made("strong", tmp_path).graph

    scales = [tensor for tensor in graph.initializer if tensor.name.endswith("_scale")]

    assert {tensor.data_type for tensor in scales} == {TensorProto.FLOAT16}
    assert {entry.type.tensor_type.elem_type for entry in (*graph.input, *graph.output)} == {TensorProto.FLOAT}


def test_half_precision_alone_is_a_flag_in_the_weak_file_and_types_in_the_strong_one(tmp_path) -> None:
    weak, strong = made("weak-float16", tmp_path / "weak"), made("strong-float16", tmp_path / "strong")

    assert {tensor.data_type for tensor in weak.graph.initializer} == {TensorProto.FLOAT}
    assert {tensor.data_type for tensor in strong.graph.initializer} == {TensorProto.FLOAT16}
    assert standard_opset(weak) in range(13, 18)
    assert snr_db(strong) > 50


def normalised_first() -> Any:
    """The classifier behind a batch normalisation whose variances are nothing in half precision."""
    model = conv_classifier()
    for name, value in (("scale", 3e-5), ("shift", 0.0), ("mean", 0.0), ("variance", 1e-9)):
        model.graph.initializer.append(numpy_helper.from_array(np.full(3, value, np.float32), name))
    inputs = ["input", "scale", "shift", "mean", "variance"]
    model.graph.node.insert(0, helper.make_node("BatchNormalization", inputs, ["n"], name="norm", epsilon=0.0))
    model.graph.node[1].input[0] = "n"
    return model


def test_small_variances_survive_half_precision(tmp_path) -> None:
    strong = made("strong-float16", tmp_path, normalised_first())

    assert snr_db(strong, normalised_first()) > 40


def test_a_model_with_nothing_to_quantise_has_no_int8_file(tmp_path) -> None:
    model = conv_classifier()
    del model.graph.node[0]
    model.graph.node[0].input[0] = "input"
    del model.graph.initializer[:]

    with pytest.raises(CompileFailed, match="int8 would change nothing"):
        made("weak", tmp_path, model)


def test_equal_inputs_give_equal_bytes(tmp_path) -> None:
    first, second = (made("strong", tmp_path / name).SerializeToString(deterministic=True) for name in ("1", "2"))

    assert first == second


def test_a_model_in_a_newer_opset_than_the_weak_file_may_have_is_lowered(tmp_path) -> None:
    model = made("weak", tmp_path, conv_classifier(opset=20, ir=9))

    assert standard_opset(model) == 17


def test_without_examples_there_is_no_int8_file(tmp_path) -> None:
    source = saved(conv_classifier(), tmp_path / "float.onnx")
    job = CompileJob(method=BY_NAME["weak"], model=str(source), out=str(tmp_path))

    with pytest.raises(CompileFailed, match="no calibration data"):
        compile_job(job)


def test_every_method_of_tensorrt_is_symmetric_and_safe_from_overflow() -> None:
    quantised: list[Method] = [method for method in METHODS["tensorrt"] if method.is_quantised]

    assert {(method.activations, method.symmetric) for method in quantised} == {("int8", True)}
    assert all(method.is_overflow_safe for method in METHODS["tensorrt"])


@pytest.mark.parametrize("name", ["weak", "strong"])
def test_polygraphy_folds_and_runs_the_file(name, tmp_path) -> None:
    pytest.importorskip("onnx_graphsurgeon")
    loader = pytest.importorskip("polygraphy.backend.onnx")

    folded = loader.fold_constants(made(name, tmp_path))

    assert snr_db(folded) > 25
