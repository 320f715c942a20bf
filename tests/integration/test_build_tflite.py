"""Releases from TensorFlow Lite files, built for real: the file ships as it came and answers in the runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.pipeline.build import BuildOptions, build
from converters.planning.recipe import Recipe
from converters.report.build_report import BuildReport
from edge_runtime import Model
from edge_runtime.contract.layout import LayoutFolder, open_variant, read_checked
from tests.fakes.four_pixels import four_pixel_folder, four_pixel_recipe
from tests.fakes.shared_recipes import RECIPES
from tests.unit.converters.test_recipe import parsed

PHOTO = {"kind": "image", "color": "rgb", "exif": "apply", "layout": "NHWC",
         "resize": {"mode": "stretch", "size": [128, 128], "filter": "bilinear", "antialias": True},
         "normalize": {"scale": 1.0, "mean": [128.0], "std": [128.0]}}  # fmt: skip


def built(recipe: Recipe, base: Path, out: Path) -> BuildReport:
    return build(recipe, BuildOptions(base=base, out=out), lambda *_: None)


@pytest.fixture(scope="module")
def four_pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return four_pixel_folder(tmp_path_factory.mktemp("four"))


def test_a_quantised_file_ships_byte_for_byte_and_takes_pictures_as_they_are(four_pixels: Path, tmp_path: Path) -> None:
    report = built(four_pixel_recipe(), four_pixels, tmp_path / "r")

    folder = LayoutFolder(tmp_path / "r")
    release = folder.open()
    (entry,) = release.index.variants
    variant = open_variant(folder, entry)
    (file,) = variant.manifest.files
    assert [row.verdict for row in report.rows] == ["shipped"]
    assert (
        read_checked(folder, variant.layers.descriptor(file.layer), max_bytes=1 << 20)
        == (four_pixels / "m.tflite").read_bytes()
    )
    assert variant.manifest.io.inputs["x"].absorbs == ["norm"]
    assert variant.manifest.target.precision == "int8"
    assert release.manifest.source.format == "tflite"


def test_the_release_answers_in_the_runtime(four_pixels: Path, tmp_path: Path) -> None:
    built(four_pixel_recipe(), four_pixels, tmp_path / "r")

    with Model.open(tmp_path / "r") as model:
        answer = model.infer({"image": (four_pixels / "e" / "two" / "230.png").read_bytes()})

    assert answer["classes"].labels[0] == "two"


@pytest.mark.needs_shared
def test_a_published_quantised_file_sees_what_its_publisher_saw(shared: Path, tmp_path: Path) -> None:
    models = shared / "models"
    recipe = parsed(
        model=str(models / "tflite" / "mobilenet_v1_0.25_128_quant.tflite"),
        inputs={"image": {**PHOTO, "tensor": "input"}},
        outputs={"classes": {"tensor": "MobilenetV1/Predictions/Reshape_1", "kind": "classes", "activation": "none",
                             "labels": str(models / "labels" / "imagenet_labels.txt")}},
        engines=["litert"], calibration=None, limits={"min_agreement": {"*": 0.98}},
        evaluation={"folder": str(models / "data" / "calib"), "max_samples": 16},
    )  # fmt: skip

    report = built(recipe, tmp_path, tmp_path / "r")

    assert [(row.variant, row.verdict) for row in report.rows] == [("litert-int8", "shipped")]
    with Model.open(tmp_path / "r") as model:
        answer = model.infer({"image": (models / "data" / "images" / "parrot.jpg").read_bytes()})
    assert answer["classes"].labels[0] == "macaw"
    assert answer["classes"].scores[0] == pytest.approx(0.762, abs=0.01)


@pytest.mark.needs_shared
def test_outputs_whose_file_does_not_say_their_sizes_have_those_that_they_were_seen_with(
    shared: Path, tmp_path: Path
) -> None:
    name = "tflite/ssd_mobilenet_v1_coco_quant.tflite"
    recipe = parsed(
        model=name, engines=["litert"], calibration=None, limits={"min_agreement": {"*": 0.9}},
        evaluation={"folder": "data/calib", "max_samples": 2}, **RECIPES[name],
    )  # fmt: skip

    built(recipe, shared / "models", tmp_path / "r")

    tensors = LayoutFolder(tmp_path / "r").open().manifest.tensors
    detector = "TFLite_Detection_PostProcess"
    names = [detector, f"{detector}_1", f"{detector}_2", f"{detector}_3"]
    assert [tensors[name].shape for name in names] == [[1, 10, 4], [1, 10], [1, 10], [1]]
