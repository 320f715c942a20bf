"""Ranges of activations: taken in bounded memory, and the same that ONNX Runtime's own calibration finds."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

from converters.compilers.job import CompileJob, RangesJob
from converters.compilers.worker import run
from converters.errors import CompileFailed
from converters.planning.methods import METHODS, Method, RangeMethod
from edge_runtime.inference.arrays import write_npz
from tests.fakes.onnx_models import conv_classifier

quantization = pytest.importorskip("onnxruntime.quantization")
ort = pytest.importorskip("onnxruntime")
COUNT = 12


def method(name: str) -> Method:
    return next(one for one in METHODS["onnxruntime"] if one.name == name)


def write_inputs(folder: Path, pictures: np.ndarray) -> tuple[Path, Path]:
    """The model's file and the folder of its calibration samples."""
    samples = folder / "calibration"
    samples.mkdir(parents=True)
    onnx.save(conv_classifier(), str(folder / "float.onnx"))
    for number, picture in enumerate(pictures):
        (samples / f"{number:06d}.npz").write_bytes(write_npz({"input": picture[None]}))
    return folder / "float.onnx", samples


def pictures(count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(3).random((count, 3, 8, 8), dtype=np.float32)


def ranges(folder: Path, how: RangeMethod, data: np.ndarray) -> dict[str, tuple[float, float]]:
    model, samples = write_inputs(folder, data)
    made = run(RangesJob(model=str(model), calibration=str(samples), ranges=how, out=str(folder)))
    return msgspec.json.decode(Path(made.files["ranges"]).read_bytes(), type=dict[str, tuple[float, float]])


def constants(path: Path | str) -> dict[str, bytes]:
    graph = onnx.load(str(path)).graph
    return {tensor.name: onnx.numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer}


class Reader(quantization.CalibrationDataReader):
    def __init__(self, data: np.ndarray) -> None:
        self._samples = iter(data)

    def get_next(self) -> dict[str, np.ndarray] | None:
        picture = next(self._samples, None)
        return None if picture is None else {"input": picture[None]}


@pytest.mark.parametrize("name", ["int8", "int8-full", "int8-tensor"])
def test_a_quantised_file_has_the_numbers_of_onnx_runtimes_own_quantiser(tmp_path: Path, name: str) -> None:
    how, data = method(name), pictures()
    model, samples = write_inputs(tmp_path, data)
    ours = run(CompileJob(method=how, model=str(model), out=str(tmp_path), calibration=str(samples)))

    prepared, theirs = tmp_path / "prepared.onnx", tmp_path / "theirs.onnx"
    quantization.quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared), str(theirs), Reader(data), per_channel=how.per_channel, reduce_range=how.reduce_range,
        activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip

    assert constants(ours.files["model"]) == constants(theirs)


def test_an_outlier_widens_minmax_and_not_percentile(tmp_path: Path) -> None:
    data = pictures(300)
    data[5, 0, 0, 0] = 1000.0

    widest, clipped = ranges(tmp_path / "a", "minmax", data), ranges(tmp_path / "b", "percentile", data)

    assert widest["input"] == (pytest.approx(float(data.min())), 1000.0)
    assert clipped["input"][1] < 10.0


@pytest.mark.parametrize("name", [one.name for one in METHODS["onnxruntime"] if one.name != "float32"])
def test_every_method_makes_the_same_bytes_twice_and_runs(tmp_path: Path, name: str) -> None:
    import onnxruntime

    made = []
    for folder in (tmp_path / "a", tmp_path / "elsewhere"):
        model, samples = write_inputs(folder, pictures(4))
        job = CompileJob(method=method(name), model=str(model), out=str(folder), calibration=str(samples))
        made.append(Path(run(job).files["model"]).read_bytes())

    assert made[0] == made[1]
    session = onnxruntime.InferenceSession(made[0], providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"input": pictures(1)})
    assert answer.dtype == np.float32
    assert np.isfinite(answer).all()


@pytest.mark.parametrize("how", ["percentile", "entropy"])
def test_no_range_is_wider_than_what_was_seen(tmp_path: Path, how: RangeMethod) -> None:
    data = pictures()

    seen, chosen = ranges(tmp_path / "a", "minmax", data), ranges(tmp_path / "b", how, data)

    assert chosen.keys() == seen.keys()
    for name, (low, high) in chosen.items():
        assert seen[name][0] <= low <= high <= seen[name][1]


def test_a_calibration_sample_that_is_not_a_number_is_one_message(tmp_path: Path) -> None:
    data = pictures()
    data[2, 1, 4, 4] = np.inf

    with pytest.raises(CompileFailed, match="is not a number for some example"):
        ranges(tmp_path, "minmax", data)


@pytest.mark.parametrize("name", ["int8", "int8-tensor"])
def test_a_bias_of_two_axes_is_quantised_so_that_the_engine_loads_it(tmp_path: Path, name: str) -> None:
    model, data = dense_with_bias(tmp_path)

    compiled = run(CompileJob(method=method(name), model=str(model), out=str(tmp_path), calibration=str(tmp_path)))

    # As the file says it: with optimisations the engine has kernels that take such a bias.
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    sessions = [ort.InferenceSession(str(path), options) for path in (model, compiled.files["model"])]
    expected, found = (np.stack([one.run(None, {"input": row[None]}) for row in data]) for one in sessions)
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def dense_with_bias(folder: Path) -> tuple[Path, np.ndarray]:
    """A layer whose bias is [1, 3]; with examples float32 [8, 4]."""
    rng = np.random.default_rng(5)
    weights, bias = rng.standard_normal((4, 3), dtype=np.float32), rng.standard_normal((1, 3), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["input", "weights", "bias"], ["answer"], name="layer")],
        "dense",
        [helper.make_tensor_value_info("input", onnx.TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("answer", onnx.TensorProto.FLOAT, [1, 3])],
        [onnx.numpy_helper.from_array(weights, "weights"), onnx.numpy_helper.from_array(bias, "bias")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(folder / "float.onnx")
    )
    data = rng.standard_normal((8, 4), dtype=np.float32)
    for number, row in enumerate(data):
        (folder / f"{number:06d}.npz").write_bytes(write_npz({"input": row[None]}))
    return folder / "float.onnx", data
