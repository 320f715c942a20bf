"""Which real model can be built for which target family, and for which reason not."""

import subprocess
import sys
from pathlib import Path

import pytest

from converters.model.tflite_file import read_tflite
from converters.preflight.edgetpu import find_edgetpu, map_to_edgetpu
from converters.preflight.findings import stops
from converters.preflight.inspect import inspect
from converters.preflight.tflite_graph import EDGE_TPU_OPERATOR

pytestmark = pytest.mark.needs_shared
FAMILIES = ("cpu", "coral", "jetson")
YES: frozenset[str] = frozenset()
DEEPLAB = "deeplabv3_mnv2_dm05_pascal_quant"

# Codes of the errors that may refuse a file, by family; YES: it must build.
ONNX = (YES, YES, YES)
TFLITE = (YES, YES, frozenset({"needs_onnx"}))
COMPILED = (frozenset({"already_compiled"}),) * 3
TABLE = {
    "onnx/fastestdet_coco_352.onnx": ONNX,
    "onnx/mlperf_tiny_ad.onnx": ONNX,
    "onnx/mlperf_tiny_ic.onnx": ONNX,
    "onnx/mlperf_tiny_kws.onnx": ONNX,
    "onnx/mlperf_tiny_vww.onnx": ONNX,
    "onnx/mnist-8.onnx": ONNX,
    "onnx/mobilenet_v1_0.25_224_fp32.onnx": ONNX,
    # Its whole body stands inside an If; the axis of the samples is free.
    "onnx/silero_vad.onnx": (YES, frozenset({"control_flow", "dynamic_axes", "edgetpu_nothing"}), YES),
    "onnx/ultraface_rfb320.onnx": ONNX,
    "tflite/ad01_fp32.tflite": TFLITE,
    "tflite/ad01_int8.tflite": TFLITE,
    "tflite/deeplabv3_mnv2_dm05_pascal_quant.tflite": TFLITE,
    "tflite/deeplabv3_mnv2_dm05_pascal_quant_edgetpu.tflite": COMPILED,
    "tflite/hello_world_float.tflite": TFLITE,
    "tflite/hello_world_int8.tflite": TFLITE,
    "tflite/keypoint_classifier.tflite": TFLITE,
    "tflite/kws_ref_model_float32.tflite": TFLITE,
    "tflite/kws_ref_model_int8.tflite": TFLITE,
    "tflite/mobilenet_v1_0.25_128_quant.tflite": TFLITE,
    "tflite/mobilenet_v1_0.25_128_quant_edgetpu.tflite": COMPILED,
    "tflite/mobilenet_v1_0.25_224_float.tflite": TFLITE,
    "tflite/mobilenet_v1_0.25_224_quant.tflite": TFLITE,
    "tflite/mobilenet_v2_1.0_224_quant.tflite": TFLITE,
    "tflite/mobilenet_v2_1.0_224_quant_edgetpu.tflite": COMPILED,
    "tflite/resnet8_cifar10_float.tflite": TFLITE,
    "tflite/resnet8_cifar10_int8.tflite": TFLITE,
    "tflite/ssd_mobilenet_v1_coco_quant.tflite": TFLITE,
    # Its sizes are computed while it runs.
    "tflite/ultraface_rfb320.tflite": (YES, frozenset({"edgetpu_dynamic"}), frozenset({"needs_onnx"})),
    "tflite/vww_96_float.tflite": TFLITE,
    "tflite/vww_96_int8.tflite": TFLITE,
}


def test_the_table_names_every_model(shared: Path) -> None:
    models = shared / "models"

    there = {str(path.relative_to(models)) for kind in ("onnx", "tflite") for path in models.glob(f"{kind}/*.{kind}")}

    assert there == TABLE.keys()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", TABLE)
def test_each_model_gets_the_verdict_it_deserves(name: str, family: str, shared: Path) -> None:
    findings = inspect(shared / "models" / name, max_opset=21, families=(family,))

    reasons = {finding.code for finding in findings if finding.severity == "error"}
    assert reasons == TABLE[name][FAMILIES.index(family)]
    assert stops(findings, family) == bool(reasons)


def test_a_compiled_file_says_how_much_was_mapped(shared: Path) -> None:
    path = shared / "models" / "tflite" / "deeplabv3_mnv2_dm05_pascal_quant_edgetpu.tflite"

    (finding,) = inspect(path, max_opset=21, families=FAMILIES)

    assert "1 compiled part, 8 operators left on the CPU" in finding.message


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128_quant", "mobilenet_v2_1.0_224_quant"])
def test_what_coral_compiled_whole_is_forecast_to_be_mapped_whole(name: str, shared: Path) -> None:
    folder = shared / "models" / "tflite"
    compiled = read_tflite(folder / f"{name}_edgetpu.tflite").main
    plain = read_tflite(folder / f"{name}.tflite").main

    mapping = map_to_edgetpu(plain)

    assert [operator.kind for operator in compiled.operators] == [EDGE_TPU_OPERATOR]
    assert mapping.mapped == plain.operators


def test_what_coral_left_to_the_cpu_is_refused_or_doubted_beforehand(shared: Path) -> None:
    folder = shared / "models" / "tflite"
    left = {operator.kind for operator in read_tflite(folder / f"{DEEPLAB}_edgetpu.tflite").main.operators}

    findings = {one.code: one for one in find_edgetpu(read_tflite(folder / f"{DEEPLAB}.tflite"))}

    # Everything else that stayed comes after the first resize.
    assert {"ARG_MAX", "RESIZE_BILINEAR"} <= left
    assert "ARG_MAX" in findings["edgetpu_operator"].message
    assert len(findings["edgetpu_resize"].nodes) == 3


def test_looking_at_every_model_loads_no_engine(shared: Path) -> None:
    code = """
import sys
from pathlib import Path
from converters.commands.check import check_model
for path in sorted(Path(sys.argv[1]).glob("*/*")):
    if path.suffix in {".onnx", ".tflite"}:
        check_model(path, ("cpu", "coral", "jetson"), {})
heavy = {"onnxruntime", "openvino", "nncf", "torch", "tensorflow", "scipy", "sklearn", "PIL"}
print(sorted(heavy & set(sys.modules)), [one for one in sys.modules if one.startswith("ai_edge_litert.")])
"""
    command = [sys.executable, "-c", code, str(shared / "models")]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[] ['ai_edge_litert.schema_py_generated']"
