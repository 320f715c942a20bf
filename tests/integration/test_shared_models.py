"""Real models, described by recipes, through the runtime's own front and back end; results are their README's."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from converters.building.workshop import open_source
from converters.data.datasets import read_labels
from converters.pipeline.build import BuildOptions, build
from converters.planning.recipe import (
    CalibrationRecipe,
    EvaluationRecipe,
    GoldenRecipe,
    LimitsRecipe,
    Recipe,
    parse_recipe,
)
from converters.reading import read_source
from converters.release.draft import draft_release
from edge_runtime import Model
from edge_runtime.contract.digest import digest_of
from edge_runtime.inference.postprocessing.question_results import Boxes
from edge_runtime.inference.postprocessing.rendering import as_json, as_text
from edge_runtime.inference.postprocessing.results import Result
from edge_runtime.inference.postprocessing.suppression import iou_with
from edge_runtime.inference.predictor import Predictor, load_predictor
from tests.fakes.shared_recipes import RECIPES

pytestmark = pytest.mark.needs_shared

COCO_80 = {0: "person", 15: "cat", 16: "dog", 27: "tie"}
"""The classes of FastestDet that these photos show, by index."""


def recipe_of(name: str) -> Recipe:
    told = {"model": name, "name": "shared", "version": "1", "task": "any", "targets": ["cpu"],
            "evaluation": {"folder": "e"}, "precisions": ["float32"]}  # fmt: skip
    return parse_recipe(json.dumps({**told, **RECIPES[name]}).encode(), ".json")


@pytest.fixture(scope="module")
def opened(shared: Path):
    """A model with its recipe's front and back end, loaded once for all questions."""
    predictors: dict[str, Predictor] = {}

    def get(name: str) -> Predictor:
        if name not in predictors:
            recipe = recipe_of(name)
            imported = read_source(shared / "models" / name)
            draft = draft_release(recipe, imported, digest_of(b""), is_labelled=False)
            source = open_source(draft, imported.model)
            labels = {key: read_labels(shared / "models" / entry.labels) for key, entry in recipe.outputs.items()
                      if entry.labels}  # fmt: skip
            model = imported.model
            content = model if isinstance(model, bytes) else model.SerializeToString()
            source.close()
            predictors[name] = load_predictor(draft.manifest, source.variant, {"model": content}, labels=labels)
        return predictors[name]

    yield get
    for predictor in predictors.values():
        predictor.close()


def ask(predictor: Predictor, content) -> Result:
    decoded = predictor.preprocess.decode({predictor.preprocess.inputs[0].name: content})
    (answer,) = predictor.interpret(predictor.run_decoded(decoded), decoded)
    (result,) = answer.values()
    return result


def photo(shared: Path, name: str) -> bytes:
    folders = (shared / "models/data/images", shared / "models/data/calib")
    return next(folder / name for folder in folders if (folder / name).is_file()).read_bytes()


MACAW, CAT = ("parrot.jpg", "macaw"), ("cat_720p.jpg", "Egyptian cat")
CHICKADEE, DAISY = ("bird.bmp", "chickadee"), ("sunflower.bmp", "daisy")


@pytest.mark.parametrize(
    ("model", "scores"),
    [
        ("tflite/mobilenet_v1_0.25_224_float.tflite", {MACAW: 0.940, CAT: 0.472, CHICKADEE: 0.899, DAISY: 0.956}),
        ("onnx/mobilenet_v1_0.25_224_fp32.onnx", {MACAW: 0.940, CAT: 0.472, CHICKADEE: 0.899, DAISY: 0.956}),
        ("tflite/mobilenet_v1_0.25_224_quant.tflite", {MACAW: 0.844, CAT: 0.449, CHICKADEE: 0.902, DAISY: 0.949}),
        ("tflite/mobilenet_v1_0.25_128_quant.tflite", {MACAW: 0.762, CHICKADEE: 0.410, DAISY: 0.699}),
        ("tflite/mobilenet_v2_1.0_224_quant.tflite", {MACAW: 0.996, CAT: 0.809, CHICKADEE: 0.984, DAISY: 0.988}),
    ],
)
def test_classifiers_name_what_a_photo_shows(opened, shared: Path, model: str, scores) -> None:
    for (name, label), score in scores.items():
        answer = ask(opened(model), photo(shared, name))

        assert answer.labels[0].endswith(label)
        assert answer.scores[0] == pytest.approx(score, abs=0.005)


PEOPLE = ("grace_hopper.bmp", "humans_0.jpg", "peds_2.jpg", "parrot.jpg", "fruit_0.jpg")


@pytest.mark.parametrize(
    ("model", "shares"),
    [
        ("tflite/vww_96_float.tflite", (0.888, 0.998, 0.901, 0.043, 0.024)),
        ("tflite/vww_96_int8.tflite", (0.895, 0.977, 0.902, 0.062, 0.051)),
    ],
)
def test_a_person_is_told_from_none(opened, shared: Path, model: str, shares: tuple[float, ...]) -> None:
    for name, share in zip(PEOPLE, shares, strict=True):
        answer = ask(opened(model), photo(shared, name))

        by_class = dict(zip(answer.indices, answer.scores, strict=True))
        assert by_class[1] == pytest.approx(share, abs=0.005)


def test_another_persons_model_agrees_on_the_same_photos(opened, shared: Path) -> None:
    model = opened("onnx/mlperf_tiny_vww.onnx")

    assert [ask(model, photo(shared, name)).top for name in PEOPLE] == [1, 1, 1, 0, 0]


def test_digits_are_read_from_grey_pictures(opened, shared: Path) -> None:
    folder = shared / "models/data/mnist"
    pictures = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    labels = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    model = opened("onnx/mnist-8.onnx")

    asked = zip(pictures.reshape(-1, 28, 28, 1)[:1000], labels[:1000], strict=True)
    right = [ask(model, picture).top == label for picture, label in asked]

    assert np.mean(right) == pytest.approx(0.987)


@pytest.mark.parametrize(
    "model", ["tflite/resnet8_cifar10_float.tflite", "tflite/resnet8_cifar10_int8.tflite", "onnx/mlperf_tiny_ic.onnx"]
)
def test_small_classifiers_see_the_birds_and_frogs_of_their_ten_classes(opened, shared: Path, model: str) -> None:
    expected = {"airplane_0.jpg": 0, "airplane_1.jpg": 0, "horse_0.jpg": 7, "horse_1.jpg": 7}

    right = [ask(opened(model), photo(shared, name)).top == index for name, index in expected.items()]

    assert np.mean(right) >= 0.75


@pytest.mark.parametrize(
    ("model", "score"),
    [
        ("tflite/kws_ref_model_float32.tflite", 0.998),
        ("tflite/kws_ref_model_int8.tflite", 0.996),
        ("onnx/mlperf_tiny_kws.onnx", 0.996),
    ],
)
def test_yes_is_heard_in_a_sound_file(opened, shared: Path, model: str, score: float) -> None:
    answer = ask(opened(model), (shared / "models/data/audio/yes_1000ms.wav").read_bytes())

    assert answer.top == 9
    assert answer.scores[0] == pytest.approx(score, abs=0.002)


@pytest.mark.parametrize(
    ("model", "score"),
    [("tflite/ad01_fp32.tflite", 9.707), ("tflite/ad01_int8.tflite", 10.265), ("onnx/mlperf_tiny_ad.onnx", 12.08)],
)
def test_a_machine_is_as_strange_as_the_windows_of_its_sound(opened, shared: Path, model: str, score: float) -> None:
    content = (shared / "models/data/ad01/normal_id_01_00000000_hist_librosa.bin").read_bytes()

    answer = ask(opened(model), np.frombuffer(content, "<f4").reshape(200, 128))

    assert answer.score == pytest.approx(score, abs=0.005)


@pytest.mark.parametrize(
    ("model", "most", "usual"), [("hello_world_float", 0.039, 0.013), ("hello_world_int8", 0.113, 0.026)]
)
def test_a_regressor_follows_the_sine(opened, model: str, most: float, usual: float) -> None:
    points = np.linspace(0, 6.28, 50, dtype=np.float32)

    told = [ask(opened(f"tflite/{model}.tflite"), point.reshape(1, 1)).values[0] for point in points]

    errors = np.abs(np.asarray(told) - np.sin(points))
    assert errors.max() == pytest.approx(most, abs=0.002)
    assert errors.mean() == pytest.approx(usual, abs=0.002)


def test_hand_poses_are_told_from_a_table_of_points(opened, shared: Path) -> None:
    with (shared / "models/data/hand_keypoint.csv").open(newline="") as source:
        rows = [[float(cell) for cell in row] for row in csv.reader(source)][::10]
    model = opened("tflite/keypoint_classifier.tflite")

    right = [ask(model, np.asarray([row[1:]], np.float32)).top == int(row[0]) for row in rows]

    assert np.mean(right) == pytest.approx(0.9652, abs=0.01)


def test_a_bird_is_cut_out_of_its_photo(opened, shared: Path) -> None:
    from PIL import Image

    answer = ask(opened("tflite/deeplabv3_mnv2_dm05_pascal_quant.tflite"), photo(shared, "bird_segmentation.bmp"))

    with Image.open(shared / "models/data/images/bird_segmentation_mask.bmp") as image:
        truth = np.asarray(image.resize(answer.classes.shape[::-1], Image.Resampling.NEAREST))
    truth = truth if truth.ndim == 2 else truth[..., 0]
    found, meant = answer.classes == 3, truth == 3
    assert (found & meant).sum() / (found | meant).sum() == pytest.approx(0.819, abs=0.01)
    assert answer.shares()[3] == pytest.approx(0.171, abs=0.005)
    assert "bird 17" in as_text(answer)


def hits(answer: Result, expected, names: dict[int, str], overlap: float = 0.5) -> list[bool]:
    """Whether each expected object is found: right class, large enough an overlap, in pixels of the photo."""
    assert isinstance(answer, Boxes)
    labels = [names[index] if index in names else answer.labels[place] for place, index in enumerate(answer.indices)]
    return [
        any(
            label == wanted and iou_with(np.asarray(box, np.float64), answer.boxes[place : place + 1])[0] >= overlap
            for place, label in enumerate(labels)
        )
        for wanted, box in expected
    ]


FACES = {
    "grace_hopper.bmp": [("face", [172, 121, 357, 334])],
    "face.jpg": [("face", [131, 80, 222, 203]), ("face", [260, 47, 347, 168]), ("face", [439, 118, 489, 185]),
                 ("face", [7, 101, 50, 159])],
    "parrot.jpg": [],
}  # fmt: skip


@pytest.mark.parametrize("model", ["onnx/ultraface_rfb320.onnx", "tflite/ultraface_rfb320.tflite"])
def test_every_face_is_found_where_it_is_in_the_photo(opened, shared: Path, model: str) -> None:
    for name, expected in FACES.items():
        answer = ask(opened(model), photo(shared, name))

        assert hits(answer, expected, {1: "face"}) == [True] * len(expected)
        assert len(answer.scores) == len(expected)


OBJECTS = {
    "pets.jpg": [("dog", [118, 39, 259, 297]), ("dog", [336, 170, 493, 372])],
    "cat_720p.jpg": [("cat", [117, 101, 946, 720])],
    "dog_0.jpg": [("person", [20, 54, 225, 356]), ("dog", [201, 62, 424, 374])],
    "grace_hopper.bmp": [("person", [16, 16, 512, 596]), ("tie", [231, 428, 286, 531])],
}


@pytest.mark.parametrize(
    ("model", "names"),
    [("onnx/fastestdet_coco_352.onnx", COCO_80), ("tflite/ssd_mobilenet_v1_coco_quant.tflite", {})],
)
def test_every_object_is_found_where_it_is_in_the_photo(opened, shared: Path, model: str, names) -> None:
    for name, expected in OBJECTS.items():
        answer = ask(opened(model), photo(shared, name))

        assert hits(answer, expected, names) == [True] * len(expected), (name, as_text(answer))


CALIBRATION = ("humans_0", "humans_1", "humans_6", "humans_8", "peds_2", "dog_1", "dog_2", "cat_1", "horse_0", "room_0")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "method", "names", "photos"),
    [
        ("onnx/ultraface_rfb320.onnx", "ort-int8", {1: "face"}, FACES),
        ("onnx/fastestdet_coco_352.onnx", "ort-int8-wide", COCO_80, OBJECTS),
    ],
)
def test_int8_keeps_every_object(shared: Path, tmp_path: Path, model: str, method: str, names, photos) -> None:
    """Calibrated on ten photos without the judged ones, with default thresholds, and opened as a device does."""
    for part, chosen in (("c", [f"{name}.jpg" for name in CALIBRATION]), ("e", ["hot_dog.jpg", "parrot.jpg"])):
        (tmp_path / part).mkdir()
        for name in chosen:
            (tmp_path / part / name).write_bytes(photo(shared, name))
    recipe = msgspec.structs.replace(
        recipe_of(model),
        model=str(shared / "models" / model),
        precisions=["float32", "int8"],
        engines=["onnxruntime"],
        methods=[method],
        prefer="size",
        calibration=CalibrationRecipe(folder="c"),
        evaluation=EvaluationRecipe(folder="e"),
        limits=LimitsRecipe(min_agreement={"*": 0.0}),
        golden=GoldenRecipe(count=2),
    )

    report = build(recipe, BuildOptions(base=tmp_path, out=tmp_path / "r"), lambda *_: None)

    assert [row.verdict for row in report.rows] == ["shipped", "shipped"]
    with Model.open(tmp_path / "r", variant=method) as opened_model:
        for name, expected in photos.items():
            (answer,) = opened_model.infer({"image": photo(shared, name)}).values()
            assert hits(answer, expected, names, overlap=0.45) == [True] * len(expected), (name, as_text(answer))


def test_objects_look_well_in_json(opened, shared: Path) -> None:
    answer = ask(opened("tflite/ssd_mobilenet_v1_coco_quant.tflite"), photo(shared, "cat_720p.jpg"))

    (cat,) = as_json(answer)
    assert cat["label"] == "cat"
    assert cat["score"] == pytest.approx(0.72, abs=0.01)
    assert all(0 <= edge <= 1280 for edge in cat["box"])
