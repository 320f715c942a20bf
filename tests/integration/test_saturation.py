"""A real keyword model whose plain int8 file is right, and wrong on CPUs without VNNI: seen, named, and not shipped."""

from pathlib import Path

import msgspec
import pytest

from converters.pipeline.asking import EMULATED_MOST
from converters.pipeline.build import BuildOptions, build
from converters.planning.kernels import may_saturate
from converters.planning.recipe import Recipe, parse_recipe
from converters.report.build_report import BuildReport, Row
from devices.probe import read_machine

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.needs_shared, pytest.mark.slow, pytest.mark.timeout(400)]


def keywords(shared: Path) -> Recipe:
    """The recipe of MLPerf Tiny's keyword model: 200 samples calibrate, 200 others judge."""
    data = {
        "file": str(shared / "models" / "data" / "kws01_mfcc_int8.npz"), "truth": "y",
        "stored": {"scale": 0.5847029089927673, "zero_point": 83},
    }  # fmt: skip
    raw = {
        "model": str(shared / "models" / "onnx" / "mlperf_tiny_kws.onnx"),
        "name": "keywords", "version": "1", "task": "classification", "targets": ["cpu"],
        "engines": ["onnxruntime"], "methods": ["int8-full", "int8"], "prefer": "size",
        "calibration": {**data, "range": ":200"}, "evaluation": {**data, "range": "200:400"},
        "inputs": {"features": {"tensor": "x:0", "kind": "tensor"}},
        "outputs": {"word": {"tensor": "Identity:0", "kind": "classes", "activation": "softmax"}},
        "limits": {"max_drop": {"*": 0.02}},
    }  # fmt: skip
    return parse_recipe(msgspec.json.encode(raw), ".json")


def built(recipe: Recipe, out: Path) -> tuple[BuildReport, dict[str, Row]]:
    report = build(recipe, BuildOptions(base=out.parent, out=out), lambda *_: None)
    return report, {row.variant: row for row in report.rows}


@pytest.mark.needs_qemu
def test_the_plain_file_is_refused_for_saturation_and_seven_bits_ship(shared: Path, tmp_path: Path) -> None:
    report, rows = built(keywords(shared), tmp_path / "release")

    plain, safe = rows["ort-int8-full"], rows["ort-int8"]
    assert plain.verdict == "refused:saturation"
    assert "x86_64 without VNNI" in plain.because
    assert safe.verdict == "shipped"
    assert safe.drop is not None
    assert safe.drop <= 0.02
    assert report.failed_targets == {}
    assert plain.evidence
    # A machine whose own kernels saturate needs no emulation to see it.
    seen = [plain.evidence.accuracy, *(one.accuracy for one in plain.evidence.elsewhere)]
    assert min(one.value for one in seen if one) < 0.5
    # An emulated call takes seconds: of 200 samples a few are asked.
    assert {one.accuracy.count for one in plain.evidence.elsewhere} <= {EMULATED_MOST}
    assert min(one.own_snr_db or 0.0 for one in seen if one) < 10.0


def test_without_emulation_what_it_would_have_measured_is_not_built(shared: Path, tmp_path: Path) -> None:
    if may_saturate(read_machine().arch, read_machine().isa):
        pytest.skip("this machine's own kernels saturate")
    options = BuildOptions(base=tmp_path, out=tmp_path / "release", emulates=False)

    report = build(keywords(shared), options, lambda *_: None)

    verdicts = {row.variant: row.verdict for row in report.rows}
    assert (verdicts["ort-int8-full"], verdicts["ort-int8"]) == ("refused:unmeasured", "shipped")
    assert not {stage.kind for stage in report.stages} & {"emulate", "probe"}


@pytest.mark.needs_qemu
def test_a_device_with_a_dot_product_gets_all_eight_bits(shared: Path, tmp_path: Path) -> None:
    recipe = msgspec.structs.replace(keywords(shared), targets=["raspberry-pi-5"])

    _, rows = built(recipe, tmp_path / "release")

    plain = rows["ort-int8-full"]
    machine = read_machine()
    assert plain.verdict == "shipped"
    assert plain.evidence
    assert plain.evidence.accuracy
    assert plain.evidence.accuracy.value > 0.85
    execution = "fake_quant" if may_saturate(machine.arch, machine.isa) else "native"
    assert plain.evidence.where.execution == execution


@pytest.mark.needs_qemu
def test_a_quantised_tflite_model_saturates_in_openvino_and_ships_for_litert(shared: Path, tmp_path: Path) -> None:
    photos = shared / "models" / "data" / "calib"
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    for photo in sorted(photos.glob("*.jpg"))[:24]:
        (evaluation / photo.name).write_bytes(photo.read_bytes())
    image = {
        "tensor": "input_1_int8", "kind": "image", "color": "rgb", "exif": "ignore", "layout": "NHWC",
        "resize": {"mode": "stretch", "size": [32, 32], "filter": "bilinear", "antialias": True},
        "normalize": {"scale": 1.0, "mean": [0.0], "std": [1.0]},
    }  # fmt: skip
    raw = {
        "model": str(shared / "models" / "tflite" / "resnet8_cifar10_int8.tflite"),
        "name": "resnet8", "version": "1", "task": "image_classification", "targets": ["cpu"],
        "evaluation": {"folder": str(evaluation)},
        "inputs": {"image": image},
        "outputs": {"label": {"tensor": "Identity_int8", "kind": "classes", "activation": "none"}},
        "limits": {"min_agreement": {"*": 0.9}}, "golden": {"count": 8},
    }  # fmt: skip

    _, rows = built(parse_recipe(msgspec.json.encode(raw), ".json"), tmp_path / "release")

    assert rows["litert-int8"].verdict == "shipped"
    assert rows["openvino-int8"].verdict == "refused:saturation"
