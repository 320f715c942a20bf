"""The compilers in their own process: same bytes twice, nothing of this machine in them, limits that hold."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from converters.building.workshop import prepare_model
from converters.compilers.isolated import compile_isolated
from converters.compilers.job import CompileJob
from converters.errors import CompileFailed
from converters.planning.methods import METHODS, Method
from converters.planning.planner import Ceiling
from converters.reading import read_source
from edge_runtime.inference.arrays import write_npz
from tests.fakes.onnx_models import conv_classifier, reshaped_weights

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def method(engine: str, name: str) -> Method:
    return next(one for one in METHODS[engine] if one.name == name)  # type: ignore[index]


def job(folder: Path, engine: str, precision: str, model: Any = None) -> CompileJob:
    folder.mkdir(parents=True, exist_ok=True)
    model = model or conv_classifier()
    onnx.save(model, str(folder / "float.onnx"))
    (entry,) = model.graph.input
    shape = [size.dim_value or 1 for size in entry.type.tensor_type.shape.dim]
    samples = folder / "calibration"
    samples.mkdir()
    rng = np.random.default_rng(1)
    for number in range(4):
        picture = rng.random(shape, dtype=np.float32)
        (samples / f"{number}.npz").write_bytes(write_npz({"input": picture}))
    return CompileJob(
        method=method(engine, precision),
        model=str(folder / "float.onnx"),
        out=str(folder / "out"),
        calibration=str(samples),
    )


@pytest.mark.parametrize(
    ("engine", "precision", "needs"),
    [("onnxruntime", "int8", "onnxruntime"), ("openvino", "float32", "openvino"), ("openvino", "int8", "nncf")],
)
def test_the_same_job_gives_the_same_bytes_without_a_path_of_this_machine(
    tmp_path: Path, engine: str, precision: str, needs: str
) -> None:
    pytest.importorskip(needs)

    first = compile_isolated(job(tmp_path / "a", engine, precision))
    second = compile_isolated(job(tmp_path / "elsewhere", engine, precision))

    for role in first.files:
        content = Path(first.files[role]).read_bytes()
        assert content == Path(second.files[role]).read_bytes()
        assert str(tmp_path).encode() not in content


def test_openvino_stores_weights_whole_or_by_half(tmp_path: Path) -> None:
    pytest.importorskip("openvino")

    sizes = [
        Path(compile_isolated(job(tmp_path / name, "openvino", name)).files["weights"]).stat().st_size
        for name in ("float32", "float16-weights")
    ]

    assert sizes[1] < 0.6 * sizes[0]


def test_weights_behind_a_reshape_are_quantised_too(tmp_path: Path) -> None:
    pytest.importorskip("nncf")

    files = compile_isolated(job(tmp_path, "openvino", "int8", reshaped_weights())).files

    assert 'element_type="i8"' in Path(files["model"]).read_text()


def test_a_compiler_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(CompileFailed, match="longer than 0 s"):
        compile_isolated(job(tmp_path / "a", "onnxruntime", "int8"), timeout_s=0.001)


def test_a_compiler_that_needs_too_much_memory_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(CompileFailed, match="compile int8 for onnxruntime"):
        compile_isolated(job(tmp_path / "a", "onnxruntime", "int8"), memory_bytes=64 * 1024**2)


def test_a_model_the_compiler_refuses_is_one_message(tmp_path: Path) -> None:
    asked = job(tmp_path / "a", "onnxruntime", "int8")
    Path(asked.model).write_bytes(b"broken")

    with pytest.raises(CompileFailed) as refused:
        compile_isolated(asked)

    assert "Traceback" not in str(refused.value)


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", ["int8", "int8-tensor"])
def test_a_real_model_whose_bias_has_two_axes_keeps_its_accuracy(name: str, shared: Path, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    with (
        gzip.open(shared / "models/data/mnist/t10k-images-idx3-ubyte.gz") as images,
        gzip.open(shared / "models/data/mnist/t10k-labels-idx1-ubyte.gz") as digits,
    ):
        pictures = np.frombuffer(images.read()[16:], np.uint8).reshape(-1, 1, 1, 28, 28).astype(np.float32)
        labels = np.frombuffer(digits.read()[8:], np.uint8)
    samples = tmp_path / "calibration"
    samples.mkdir()
    for number, picture in enumerate(pictures[:60]):
        (samples / f"{number:06d}.npz").write_bytes(write_npz({"Input3": picture}))
    model = read_source(shared / "models/onnx/mnist-8.onnx").model
    onnx.save(prepare_model(model, Ceiling(opset=21, ir=10)), str(tmp_path / "float.onnx"))

    files = compile_isolated(
        CompileJob(
            method=method("onnxruntime", name), model=str(tmp_path / "float.onnx"), out=str(tmp_path / "out"),
            calibration=str(samples),
        )
    ).files  # fmt: skip

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(files["model"], options)
    right = [
        int(session.run(None, {"Input3": picture})[0].argmax()) == label
        for picture, label in zip(pictures[60:560], labels[60:560], strict=True)
    ]
    assert np.mean(right) >= 0.97
