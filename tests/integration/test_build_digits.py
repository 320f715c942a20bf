"""The demo's three releases, built for real from the committed model: what ships, what is refused, what is recorded."""

import io
import shutil
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from converters.errors import BadDataset, BadModel, BadRecipe, CannotWrite, GoldenRefused
from converters.pipeline import rounds
from converters.report.build_report import BuildReport, as_json
from edge_runtime.contract.evidence import EVIDENCE_LAYER, EvidenceFile
from edge_runtime.contract.ids import LayerName
from edge_runtime.contract.layout import LayoutFolder, open_variant, read_checked
from edge_runtime.inference.model import Model
from tests.fakes.digits import RECIPES, BuiltDigits, build_digits, recipe_of

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fleet_on_a_laptop"


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> BuiltDigits:
    return build_digits(tmp_path_factory.mktemp("careful") / "release-1", recipe_of(1))


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> BuiltDigits:
    return build_digits(tmp_path_factory.mktemp("careless") / "release-2", recipe_of(2), accuracy_gate=False)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> BuiltDigits:
    return build_digits(tmp_path_factory.mktemp("gated") / "release-2", recipe_of(2))


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory, careful: BuiltDigits) -> BuiltDigits:
    out = tmp_path_factory.mktemp("shuffled") / "release-3"
    return build_digits(out, recipe_of(3), golden_from=careful.folder, allow_failed_golden=True)


def picture_of(width: int, height: int) -> bytes:
    encoded = io.BytesIO()
    Image.new("L", (width, height)).save(encoded, "PNG")
    return encoded.getvalue()


def evidence_of(release: BuiltDigits) -> EvidenceFile:
    folder = LayoutFolder(release.folder)
    layer = folder.open().layers.descriptor(LayerName(EVIDENCE_LAYER))
    return msgspec.json.decode(read_checked(folder, layer, max_bytes=1 << 20), type=EvidenceFile)


def test_a_careful_build_ships_float_and_int8_with_evidence_keyed_by_variant_digest(careful: BuiltDigits) -> None:
    opened = LayoutFolder(careful.folder).open()

    evidence = evidence_of(careful)

    assert [row.verdict for row in careful.report.rows] == ["shipped", "shipped"]
    assert {entry.id: entry.digest for entry in opened.index.variants} == {
        name: one.variant for name, one in evidence.variants.items()
    }
    int8 = evidence.variants["ort-int8"]
    assert int8.accuracy
    assert int8.accuracy.value >= 0.9
    assert (int8.accuracy.own_snr_db or 0) > 30
    assert int8.latency_ms
    assert int8.latency_ms.ratio_to_float
    assert int8.where.engine.startswith("onnxruntime ")
    assert int8.where.isa
    assert opened.manifest.waivers == []
    assert opened.manifest.reference
    assert opened.manifest.reference.value > 0.9


def test_every_shipped_variant_answers_its_golden_set_in_the_runtime(careful: BuiltDigits) -> None:
    for name in ("ort-float32", "ort-int8"):
        with Model.open(careful.folder, variant=name, threads=1) as model:
            checks = model.golden_check()

            assert {check.against for check in checks} == {"own", "float", "truth"}
            assert all(check.passed for check in checks)


def test_pictures_go_in_as_they_are_because_the_graph_normalises_exactly(careful: BuiltDigits) -> None:
    folder = LayoutFolder(careful.folder)
    for entry in folder.open().index.variants:
        binding = open_variant(folder, entry).manifest.io.inputs["input"]

        assert (binding.dtype, binding.layout, binding.exact) == ("uint8", "NHWC", True)
        assert binding.absorbs == ["norm", "layout"]

    with Model.open(careful.folder, variant="ort-int8", threads=1) as model:
        answer = model.infer({"image": next((EXAMPLE / "model" / "live").glob("*.png")).read_bytes()})
    assert answer["digit"].top is not None


def test_a_careless_build_ships_a_bad_int8_that_the_golden_set_gives_away(careless: BuiltDigits) -> None:
    manifest = LayoutFolder(careless.folder).open().manifest
    assert [waiver.check for waiver in manifest.waivers] == ["accuracy_gate"]
    assert manifest.calibration
    assert manifest.calibration.name == "wrong_calibration"
    assert "ort-int8" in manifest.variants

    with Model.open(careless.folder, variant="ort-int8", threads=1) as model:
        failed = {check.against for check in model.golden_check() if not check.passed}
    with Model.open(careless.folder, variant="ort-float32", threads=1) as model:
        sound = all(check.passed for check in model.golden_check())

    assert "float" in failed
    assert "own" not in failed
    assert sound


def test_the_same_careless_int8_is_refused_where_the_gate_stands(gated: BuiltDigits) -> None:
    verdicts = {row.variant: row.verdict for row in gated.report.rows}

    assert verdicts == {"ort-float32": "shipped", "ort-int8": "refused:golden_failed"}
    assert LayoutFolder(gated.folder).open().manifest.variants == ["ort-float32"]
    assert evidence_of(gated).refused["ort-int8"].verdict == "refused:golden_failed"


def test_two_builds_give_the_same_bytes(careless: BuiltDigits, gated: BuiltDigits) -> None:
    first, second = evidence_of(careless), evidence_of(gated)

    assert first.variants["ort-float32"].variant == second.variants["ort-float32"].variant
    assert first.variants["ort-int8"].variant == second.refused["ort-int8"].variant


def test_a_model_that_contradicts_its_labels_is_refused(careful: BuiltDigits, tmp_path: Path) -> None:
    with pytest.raises(GoldenRefused, match="top1 against truth"):
        build_digits(tmp_path / "out", recipe_of(3), golden_from=careful.folder)

    assert list(tmp_path.iterdir()) == []


def test_allowing_it_is_recorded_and_keeps_the_questions_of_the_older_release(
    careful: BuiltDigits, shuffled: BuiltDigits
) -> None:
    manifest = LayoutFolder(shuffled.folder).open().manifest

    assert [waiver.check for waiver in manifest.waivers] == ["golden"]
    with Model.open(shuffled.folder, threads=1) as model:
        failed = {check.against for check in model.golden_check() if not check.passed}
    assert failed == {"truth"}
    assert manifest.golden
    assert manifest.golden.count == LayoutFolder(careful.folder).open().manifest.golden.count


def test_the_report_reads_as_json(careful: BuiltDigits) -> None:
    report = msgspec.json.decode(as_json(careful.report), type=BuildReport)

    assert report.digest == LayoutFolder(careful.folder).open().digest


def test_an_existing_release_is_not_overwritten(careful: BuiltDigits) -> None:
    before = LayoutFolder(careful.folder).open().digest

    with pytest.raises(CannotWrite, match="exists already"):
        build_digits(careful.folder, recipe_of(1))

    assert LayoutFolder(careful.folder).open().digest == before


def test_a_truncated_model_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    whole = (EXAMPLE / "model" / "digits.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(BadModel, match=r"cut\.onnx .* is not a whole ONNX file"):
        build_digits(tmp_path / "out", recipe_of(1, model=str(tmp_path / "cut.onnx")))

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["empty", "text"])
def test_a_calibration_folder_without_pictures_is_named(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "calibration"
    folder.mkdir()
    if content == "text":
        (folder / "readme.txt").write_text("none here")
    recipe = recipe_of(1)
    calibration = msgspec.structs.replace(recipe.calibration, folder=str(folder))

    with pytest.raises(BadDataset, match=r"holds no \.bmp or"):
        build_digits(tmp_path / "out", msgspec.structs.replace(recipe, calibration=calibration))


def test_a_damaged_picture_is_named_even_when_candidates_are_compiled_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "fitting_at_once", lambda *_: 2)
    folder = tmp_path / "calibration"
    shutil.copytree(EXAMPLE / "model" / "calibration", folder)
    broken = sorted(folder.iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:60])
    recipe = recipe_of(1, engines=["onnxruntime", "openvino"])
    calibration = msgspec.structs.replace(recipe.calibration, folder=str(folder))

    with pytest.raises(BadDataset, match=broken.name):
        build_digits(tmp_path / "out", msgspec.structs.replace(recipe, calibration=calibration))


@pytest.mark.parametrize("which", ["calibration", "evaluation"])
def test_a_picture_of_another_size_is_named_when_nothing_is_resized(tmp_path: Path, which: str) -> None:
    recipe = recipe_of(1)
    table = getattr(recipe, which)
    shutil.copytree(RECIPES / table.folder, tmp_path / which)
    wrong = sorted((tmp_path / which).rglob("*.png"))[3]
    wrong.write_bytes(picture_of(64, 48))
    size = recipe.inputs["image"].resize.size
    unresized = msgspec.structs.replace(recipe.inputs["image"].resize, mode="none")
    inputs = {"image": msgspec.structs.replace(recipe.inputs["image"], resize=unresized)}
    changed = {which: msgspec.structs.replace(table, folder=str(tmp_path / which), max_samples=1000)}

    with pytest.raises(BadDataset) as refused:
        build_digits(tmp_path / "out", msgspec.structs.replace(recipe, inputs=inputs, **changed))

    assert str(refused.value) == (
        f"cannot use {wrong.relative_to(tmp_path / which)}: it is 64 wide and 48 high and the model resizes nothing; "
        f"give one that is {size[1]} wide and {size[0]} high, or remove it from {tmp_path / which}"
    )


def test_labels_that_do_not_match_the_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("zero\none\n")
    recipe = recipe_of(1)
    output = msgspec.structs.replace(recipe.outputs["digit"], labels=str(tmp_path / "labels.txt"))

    with pytest.raises(BadDataset, match="2 labels, the model's output logits has 10 classes"):
        build_digits(tmp_path / "out", msgspec.structs.replace(recipe, outputs={"digit": output}))


def test_a_gate_without_a_bound_is_a_question_not_a_guess(tmp_path: Path) -> None:
    recipe = recipe_of(1)

    with pytest.raises(BadRecipe, match="--max-drop"):
        build_digits(tmp_path / "out", msgspec.structs.replace(recipe, limits=type(recipe.limits)()))
