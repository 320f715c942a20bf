"""Two real MobileNets: one that a scale per tensor ruins, one that int8 keeps; judged on photos never calibrated on."""

from pathlib import Path

import msgspec
import onnx
import pytest

from converters.pipeline.build import BuildOptions, build
from converters.planning.recipe import Recipe, parse_recipe
from converters.report.build_report import Row
from tests.fakes.float_mobilenet import float_mobilenet

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.needs_shared, pytest.mark.timeout(900)]


def mobilenet(model: Path, tensor: str, folder: Path, shared: Path, **changes: object) -> Recipe:
    """The first 31 photos calibrate, some of the others judge; no photo is in both sets."""
    photos = sorted((shared / "models" / "data" / "calib").glob("*.jpg"))
    for name, chosen in (("calibration", photos[:31]), ("evaluation", photos[31:])):
        (folder / name).mkdir()
        for photo in chosen:
            (folder / name / photo.name).write_bytes(photo.read_bytes())
    image = {
        "tensor": "input", "kind": "image", "color": "rgb", "exif": "ignore", "layout": "NCHW",
        "resize": {"mode": "stretch", "size": [224, 224], "filter": "bilinear", "antialias": True},
        "normalize": {"scale": 1.0, "mean": [127.5], "std": [127.5]},
    }  # fmt: skip
    raw = {
        "model": str(model), "name": "mobilenet", "version": "1", "task": "image_classification", "targets": ["cpu"],
        "engines": ["onnxruntime"], "prefer": "size", "limits": {"min_agreement": {"*": 0.8}},
        "calibration": {"folder": str(folder / "calibration")}, "evaluation": {"folder": str(folder / "evaluation")},
        "inputs": {"image": image},
        "outputs": {"label": {"tensor": tensor, "kind": "classes", "activation": "none"}},
        **changes,
    }  # fmt: skip
    return parse_recipe(msgspec.json.encode(raw), ".json")


def rows_of(recipe: Recipe, folder: Path) -> dict[str, Row]:
    report = build(recipe, BuildOptions(base=folder, out=folder / "release"), lambda *_: None)
    return {row.variant: row for row in report.rows}


@pytest.mark.slow
def test_a_scale_for_each_tensor_ruins_mobilenet_1_and_its_layers_are_named(shared: Path, tmp_path: Path) -> None:
    model = shared / "models" / "onnx" / "mobilenet_v1_0.25_224_fp32.onnx"
    evaluation = {"folder": str(tmp_path / "evaluation"), "max_samples": 12}
    recipe = mobilenet(
        model, "probabilities", tmp_path, shared, methods=["int8-tensor"], evaluation=evaluation, golden={"count": 4}
    )

    ruined = rows_of(recipe, tmp_path)["ort-int8-tensor"]

    assert ruined.verdict == "refused:golden_failed"
    assert ruined.sensitivity
    # Its depthwise layers, whose channels span a hundredfold.
    worst = sorted(ruined.sensitivity.layers, key=lambda layer: layer.alone_db)[:2]
    assert {layer.node for layer in worst} == {"conv1", "conv3"}
    assert "conv1" in ruined.because
    assert "one scale for each channel would keep them" in ruined.because


@pytest.mark.lab
def test_mobilenet_2_keeps_its_answers_in_int8_with_both_engines(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    quantised = (shared / "models" / "tflite" / "mobilenet_v2_1.0_224_quant.tflite").read_bytes()
    onnx.save(float_mobilenet(quantised), str(tmp_path / "float.onnx"))
    recipe = mobilenet(
        tmp_path / "float.onnx", "scores", tmp_path, shared,
        engines=["onnxruntime", "openvino"], methods=["ort-int8-exact", "openvino-int8"],
        golden={"float_snr_min": 12.0},
    )  # fmt: skip

    rows = rows_of(recipe, tmp_path)

    for name in ("ort-int8-exact", "openvino-int8"):
        assert rows[name].verdict == "shipped", rows[name].because
        assert rows[name].size_bytes < rows["ort-float32"].size_bytes / 3
