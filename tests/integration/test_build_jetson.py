"""A release for Jetsons: what a device would build its engine from, and what is said of it where nothing runs it."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper

from converters.compilers.job import CompileJob
from converters.compilers.tensorrt import compile_job
from converters.planning.methods import METHODS
from converters.report.page import report_page
from edge_runtime.contract.device_profile import DeviceFacts, EngineFact
from edge_runtime.contract.evidence import EVIDENCE_LAYER, EvidenceFile
from edge_runtime.contract.ids import LayerName
from edge_runtime.contract.layout import LayoutFolder, open_variant, read_checked
from edge_runtime.contract.release import VariantManifest
from edge_runtime.contract.variant_choice import find_misfit
from edge_runtime.inference.arrays import write_npz
from tests.fakes.digits import RECIPES, BuiltDigits, build_digits, recipe_of

ort = pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

JETSON = recipe_of(1, targets=["jetson"], engines=["onnxruntime", "tensorrt"])


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> BuiltDigits:
    return build_digits(tmp_path_factory.mktemp("jetson") / "release", JETSON)


def variants_of(release: BuiltDigits) -> dict[str, VariantManifest]:
    folder = LayoutFolder(release.folder)
    return {entry.id: open_variant(folder, entry).manifest for entry in folder.open().index.variants}


def orin(version: str) -> DeviceFacts:
    engine = EngineFact(name="tensorrt", version=version, providers=["native"])
    return DeviceFacts(
        arch="aarch64", isa=["asimd", "asimddp", "asimdhp"], cpu="Cortex-A78AE", cores=6, memory_bytes=8 << 30,
        engines=[engine], os="Linux", python="3.10", accelerators=["nvidia-gpu"],
    )  # fmt: skip


def test_a_release_for_jetsons_ships_both_files_beside_a_plain_cpu_variant(release: BuiltDigits) -> None:
    variants = variants_of(release)

    assert {"ort-float32", "jetson-weak", "jetson-strong"} <= variants.keys()
    assert all(one.build for name, one in variants.items() if name.startswith("jetson-"))
    assert variants["jetson-weak"].fallback == "ort-float32"
    assert release.report.failed_targets == {}


def test_each_board_is_offered_the_files_its_tensorrt_takes(release: BuiltDigits) -> None:
    weak, strong = (variants_of(release)[name] for name in ("jetson-weak", "jetson-strong"))

    fits = {version: [find_misfit(one, orin(version)) is None for one in (weak, strong)]
            for version in ("8.5.2", "10.3", "11.4")}  # fmt: skip

    assert fits == {"8.5.2": [True, False], "10.3": [True, True], "11.4": [False, True]}


def test_its_accuracy_is_said_to_be_emulated_and_its_speed_not_at_all(release: BuiltDigits) -> None:
    folder = LayoutFolder(release.folder)
    layer = folder.open().layers.descriptor(LayerName(EVIDENCE_LAYER))
    evidence = msgspec.json.decode(read_checked(folder, layer, max_bytes=1 << 20), type=EvidenceFile)

    weak = evidence.variants["jetson-weak"]

    assert weak.where.execution == "fake_quant"
    assert weak.accuracy
    assert weak.accuracy.value > 0.9
    assert (weak.latency_ms, weak.peak_bytes) == (None, None)


def test_the_report_says_how_to_build_by_hand(release: BuiltDigits) -> None:
    commands = [note for note in release.report.notes if "trtexec" in note]

    assert any("--onnx=jetson-weak.onnx --fp16 --int8" in command for command in commands)
    assert any("--stronglyTyped" in command for command in commands)


def test_the_page_shows_a_variant_that_nothing_here_can_time(release: BuiltDigits) -> None:
    page = report_page(release.report)

    assert "jetson-weak" in page
    assert "fake_quant" in page


def test_a_model_that_tensorrt_cannot_import_gets_the_cpu_variants_and_the_reason(tmp_path: Path) -> None:
    model = onnx.load(str(RECIPES / JETSON.model))
    model.graph.node.append(helper.make_node("Unique", [model.graph.output[0].name], ["loose"], name="strange"))
    onnx.save(model, str(tmp_path / "model.onnx"))
    recipe = msgspec.structs.replace(
        JETSON, targets=["cpu", "jetson"], model=str(tmp_path / "model.onnx"), precisions=["float32"]
    )

    report = build_digits(tmp_path / "release", recipe).report

    verdicts = {row.variant: row.verdict for row in report.rows}
    assert verdicts["ort-float32"] == "shipped"
    assert verdicts["jetson-weak-float16"] == "refused:preflight"
    assert any("TensorRT cannot import Unique: strange" in row.because for row in report.rows)


@pytest.mark.needs_shared
@pytest.mark.parametrize("name", ["weak", "strong"])
def test_both_files_keep_the_accuracy_of_a_real_keyword_model(name: str, shared: Path, tmp_path: Path) -> None:
    with np.load(shared / "models" / "data" / "kws01_mfcc_int8.npz") as data:
        samples = (data["x"].astype(np.float32) - 83) * np.float32(0.5847029089927673)
        labels = data["y"]
    (tmp_path / "samples").mkdir()
    for number, sample in enumerate(samples[:200]):
        (tmp_path / "samples" / f"{number:06d}.npz").write_bytes(write_npz({"x:0": sample[None]}))
    model = str(shared / "models" / "onnx" / "mlperf_tiny_kws.onnx")
    method = next(one for one in METHODS["tensorrt"] if one.name == name)

    files = compile_job(
        CompileJob(method=method, model=model, out=str(tmp_path), calibration=str(tmp_path / "samples"))
    ).files

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(files["model"], options)
    right = [
        int(session.run(None, {"x:0": sample[None]})[0].argmax()) == label
        for sample, label in zip(samples[200:], labels[200:], strict=True)
    ]
    assert sum(right) / len(right) > 0.9025 - 0.01
