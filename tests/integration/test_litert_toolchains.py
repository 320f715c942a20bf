"""ONNX to LiteRT through the real toolchains; they are heavy, so this is the lab's work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from converters.compilers.isolated import compile_isolated
from converters.compilers.job import CompileJob
from converters.model.tflite_file import parse_tflite
from converters.pipeline.build import BuildOptions, build
from converters.planning.methods import METHODS
from converters.preflight.edgetpu import find_edgetpu, map_to_edgetpu
from converters.report.build_report import BuildReport
from converters.toolchains import TOOLCHAINS, find_installed
from edge_runtime.contract.layout import LayoutFolder, OpenVariant, open_variant, read_checked
from tests.fakes.float_mobilenet import float_mobilenet
from tests.unit.converters.test_recipe import parsed

pytestmark = [pytest.mark.lab, pytest.mark.needs_shared]


@pytest.fixture(scope="module", autouse=True)
def real_toolchains() -> None:
    """Use what a person has installed, which other tests never see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EDGEFLEET_TOOLCHAINS")
        if missing := [one.name for one in TOOLCHAINS.values() if find_installed(one) is None]:
            pytest.skip(f"needs toolchains: edge-convert toolchain install {missing[0]}")
        yield


@pytest.fixture(scope="module")
def keywords(real_toolchains: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildReport]:
    """The keyword model: 200 samples calibrate, 800 judge."""
    shared = Path(__file__).resolve().parents[3] / "shared" / "models"
    base = tmp_path_factory.mktemp("kws")
    with np.load(shared / "data" / "kws01_mfcc_int8.npz") as archive:
        features, labels = (archive["x"].astype(np.float32) - 83) * np.float32(0.5847029), archive["y"]
    for part, numbers in (("calibration", range(200)), ("evaluation", range(200, 1000))):
        (base / part).mkdir()
        for number in numbers:
            np.save(base / part / f"{number:04d}.npy", features[number][None])
    rows = "".join(f"{number:04d}.npy,{int(labels[number])}\n" for number in range(200, 1000))
    (base / "evaluation" / "labels.csv").write_text(f"file,label\n{rows}")
    recipe = parsed(
        model=str(shared / "onnx" / "mlperf_tiny_kws.onnx"),
        inputs={"x": {"tensor": "x:0", "kind": "tensor"}},
        outputs={"classes": {"tensor": "Identity:0", "kind": "classes", "activation": "softmax"}},
        calibration={"folder": "calibration"}, evaluation={"folder": "evaluation"},
        engines=["onnxruntime", "litert"], methods=["float32", "litert-int8", "litert-int8-dynamic-range"],
        limits={"max_drop": {"*": 0.01}}, prefer="accuracy",
    )  # fmt: skip
    return base / "r", build(recipe, BuildOptions(base=base, out=base / "r"), lambda *_: None)


def variant_of(release: Path, name: str) -> tuple[OpenVariant, bytes]:
    folder = LayoutFolder(release)
    entry = next(one for one in folder.open().index.variants if one.id == name)
    variant = open_variant(folder, entry)
    (file,) = variant.manifest.files
    return variant, read_checked(folder, variant.layers.descriptor(file.layer), max_bytes=1 << 24)


def test_float_is_the_same_model_and_int8_stays_within_its_budget(keywords: tuple[Path, BuildReport]) -> None:
    rows = {row.variant: row for row in keywords[1].rows}

    assert {name: row.verdict for name, row in rows.items()} == dict.fromkeys(
        ("ort-float32", "litert-float32", "litert-int8", "litert-int8-dynamic-range"), "shipped"
    )
    assert rows["litert-float32"].evidence.accuracy.float_snr_db > 100
    assert rows["litert-float32"].drop == 0
    assert rows["litert-int8"].drop <= 0.01
    assert rows["litert-int8-dynamic-range"].drop <= 0.005


def test_full_integer_means_no_float_tensor_from_input_to_output(keywords: tuple[Path, BuildReport]) -> None:
    variant, content = variant_of(keywords[0], "litert-int8")
    graph = parse_tflite(content, "model.tflite").main

    assert {graph.tensors[index].dtype for index in (*graph.inputs, *graph.outputs)} == {"int8"}
    assert not {tensor.dtype for tensor in graph.tensors} & {"float32", "float16"}
    assert variant.manifest.io.inputs["x_0"].scale
    assert variant.manifest.quantisation.tool == "onnx2tf 2.6.9, ai-edge-quantizer 0.10.0"


def test_a_file_from_before_2020_is_quantised_like_any_other(shared: Path, tmp_path: Path) -> None:
    (method,) = [one for one in METHODS["litert"] if one.scheme == "dynamic"]
    source = shared / "models" / "tflite" / "ad01_fp32.tflite"

    made = compile_isolated(CompileJob(method=method, model=str(source), out=str(tmp_path)))

    assert Path(made.files["model"]).stat().st_size < source.stat().st_size / 3


@pytest.fixture(scope="module")
def mobilenet(real_toolchains: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildReport]:
    """The float model behind Coral's own MobileNet v2, for Coral boards; half of the photos calibrate."""
    base = tmp_path_factory.mktemp("mobilenet")
    models = Path(__file__).resolve().parents[3] / "shared" / "models"
    onnx.save(
        float_mobilenet((models / "tflite" / "mobilenet_v2_1.0_224_quant.tflite").read_bytes()), str(base / "m.onnx")
    )
    for number, photo in enumerate(sorted((models / "data" / "calib").iterdir())):
        place = base / ("calibration" if number % 2 else "evaluation")
        place.mkdir(exist_ok=True)
        (place / photo.name).symlink_to(photo)
    bytes_as_they_are = {"scale": 1.0, "mean": [128.0], "std": [128.0]}
    image = {"tensor": "input", "kind": "image", "color": "rgb", "exif": "apply", "layout": "NCHW",
             "resize": {"mode": "stretch", "size": [224, 224], "filter": "bilinear", "antialias": True},
             "normalize": bytes_as_they_are}  # fmt: skip
    recipe = parsed(
        model="m.onnx", targets=["coral"], inputs={"image": image},
        outputs={"classes": {"tensor": "scores", "kind": "classes", "activation": "none"}},
        calibration={"folder": "calibration"}, evaluation={"folder": "evaluation"},
        engines=["onnxruntime", "litert"], methods=["float32", "litert-int8-edgetpu"],
        limits={"min_agreement": {"*": 0.8}}, prefer="accuracy",
    )  # fmt: skip
    return base / "r", build(recipe, BuildOptions(base=base, out=base / "r"), lambda *_: None)


def test_the_coral_file_is_whole_numbers_that_an_edge_tpu_maps_completely(mobilenet: tuple[Path, BuildReport]) -> None:
    release, report = mobilenet
    rows = {row.variant: row for row in report.rows}
    variant, content = variant_of(release, "litert-int8-edgetpu")
    model = parse_tflite(content, "model.tflite")

    assert rows["litert-int8-edgetpu"].verdict == "shipped"
    assert rows["litert-int8-edgetpu"].evidence.accuracy.agreement >= 0.8
    assert {tensor.dtype for tensor in model.main.tensors} <= {"int8", "int32"}
    assert [one for one in find_edgetpu(model) if one.severity != "note"] == []
    assert len(map_to_edgetpu(model.main).mapped) == len(model.main.operators)
    assert variant.manifest.io.inputs["input"].absorbs == ["norm", "layout"]
    assert variant.manifest.io.inputs["input"].exact
    assert any("an Edge TPU can compute 71 of 71 operators" in note for note in report.notes)
