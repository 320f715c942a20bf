"""Real models on real data, evaluated as a build does it; what comes out is what their README says."""

from __future__ import annotations

import gzip
import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.building.workshop import open_source
from converters.evaluation.evaluate import evaluate
from converters.pipeline.build import plan_of
from converters.pipeline.material import Material, Reference, read_material, refer
from converters.planning.recipe import parse_recipe
from edge_runtime.contract.release import GoldenCheck
from edge_runtime.inference.postprocessing.question_results import Anomaly
from tests.fakes.shared_recipes import RECIPES

pytestmark = pytest.mark.needs_shared

KEYWORDS = {"file": "data/kws01_mfcc_int8.npz", "stored": {"scale": 0.5847029089927673, "zero_point": 83}}
MFCC = {
    "inputs": {"mfcc": {"tensor": "x:0", "kind": "tensor"}},
    "outputs": {"words": {"tensor": "Identity:0", "kind": "classes", "activation": "softmax"}},
}


def evaluated(shared: Path, work: Path, model: str, **told: Any) -> tuple[Material, Reference]:
    """A model that was asked an evaluation set, as the first stages of a build do it."""
    raw = {"model": model, "name": "shared", "version": "1", "task": "any", "targets": ["cpu"],
           "precisions": ["float32"], **RECIPES[model], **told}  # fmt: skip
    recipe, base = parse_recipe(json.dumps(raw).encode(), ".json"), shared / "models"
    material = read_material(recipe, base, plan_of(recipe, base))
    return material, refer(material, work / "answers", golden_from=None, allow_failed=False)


def truth_check(reference: Reference) -> GoldenCheck:
    (check,) = [check for check in reference.spec.checks if check.against == "truth"]
    return check


def test_keywords_one_file_calibrates_and_judges(shared: Path, tmp_path: Path) -> None:
    sets = {"calibration": {**KEYWORDS, "range": ":200"}, "evaluation": {**KEYWORDS, "range": "200:"}}

    material, reference = evaluated(
        shared, tmp_path, "onnx/mlperf_tiny_kws.onnx",
        **MFCC, **sets, precisions=["float32", "int8"], limits={"max_drop": {"*": 0.01}},
    )  # fmt: skip
    with closing(open_source(material.draft, material.model)) as source:
        again = evaluate(source, reference.examination)

    assert reference.score
    assert (reference.score.value, reference.score.count) == (0.9025, 800)
    assert reference.score.ci95 == pytest.approx([0.8799, 0.9213], abs=0.0002)
    assert again.score
    assert (again.score.value, again.agreement.value, again.snr_db) == (0.9025, 1.0, 200.0)
    # Sample 196 is sample 586 under another number: a copy must not set ranges and judge them.
    assert material.calibration
    assert len(material.calibration.samples) == 199


def test_sounds_go_through_the_releases_own_front_end(shared: Path, tmp_path: Path) -> None:
    for word in ("yes", "silence", "noise"):
        shutil.copy(shared / f"models/data/audio/{word}_1000ms.wav", tmp_path)
    (tmp_path / "labels.csv").write_text("file,label\nyes_1000ms.wav,9\nsilence_1000ms.wav,10\nnoise_1000ms.wav,11\n")

    _, reference = evaluated(shared, tmp_path, "onnx/mlperf_tiny_kws.onnx", evaluation={"folder": str(tmp_path)})

    assert reference.score
    assert (reference.score.metric, reference.score.value, reference.score.count) == ("top1", 1.0, 3)
    assert [len(sample.inputs["audio"]) for sample in reference.golden.samples] == [16000] * 3


def test_a_table_without_header_judges_the_hand_poses(shared: Path, tmp_path: Path) -> None:
    table = {"file": "data/hand_keypoint.csv", "header": False, "truth": "0", "max_samples": 5000}

    _, reference = evaluated(shared, tmp_path, "tflite/keypoint_classifier.tflite", evaluation=table)

    assert reference.score
    assert (reference.score.count, reference.score.value) == (4450, pytest.approx(0.9652, abs=0.0001))


def test_a_thousand_digits(shared: Path, tmp_path: Path) -> None:
    folder = shared / "models/data/mnist"
    with (
        gzip.open(folder / "t10k-images-idx3-ubyte.gz") as images,
        gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as labels,
    ):
        pixels = np.frombuffer(images.read(), np.uint8, offset=16).reshape(-1, 28, 28, 1)
        right = np.frombuffer(labels.read(), np.uint8, offset=8)
    np.savez(tmp_path / "digits.npz", image=pixels, y=right)
    place = {"file": str(tmp_path / "digits.npz"), "range": ":1000"}

    _, reference = evaluated(shared, tmp_path, "onnx/mnist-8.onnx", evaluation=place)

    assert reference.score
    assert reference.score.value == 0.987


@pytest.mark.parametrize(
    ("model", "mean_error"), [("tflite/ad01_fp32.tflite", 9.707), ("onnx/mlperf_tiny_ad.onnx", 12.08)]
)
def test_a_machine_sound_without_labels_is_judged_by_its_distance(shared, tmp_path, model, mean_error) -> None:
    raw = np.fromfile(shared / "models/data/ad01/normal_id_01_00000000_hist_librosa.bin", np.float32)
    (tmp_path / "sounds").mkdir()
    np.save(tmp_path / "sounds/normal.npy", raw.reshape(200, 128))

    material, reference = evaluated(shared, tmp_path, model, evaluation={"folder": str(tmp_path / "sounds")})
    with closing(open_source(material.draft, material.model)) as source:
        (decoded,) = material.evaluation.decoded(material.preprocessor)
        (answer,) = source.interpret(source.run_decoded(decoded), decoded)
        again = evaluate(source, reference.examination)

    (score,) = answer.values()
    assert isinstance(score, Anomaly)
    assert score.score == pytest.approx(mean_error, abs=0.005)
    assert (reference.score, again.score, again.snr_db) == (None, None, 200.0)
    assert (again.agreement.metric, again.agreement.value) == ("cosine", pytest.approx(1.0))


def test_a_mask_judges_the_segmenter_and_its_golden_set(shared: Path, tmp_path: Path) -> None:
    from PIL import Image

    images = shared / "models/data/images"
    for part, name in (("photos", "bird_segmentation"), ("masks", "bird_segmentation_mask")):
        (tmp_path / part).mkdir()
        picture = Image.open(images / f"{name}.bmp")
        if part == "masks":
            classes = np.array(picture)
            classes[classes != 3] = 0  # what the README counts: bird, and everything else
            picture = Image.fromarray(classes)
        picture.save(tmp_path / part / "bird.png")
    place = {"folder": str(tmp_path / "photos"), "masks": str(tmp_path / "masks")}

    _, reference = evaluated(shared, tmp_path, "tflite/deeplabv3_mnv2_dm05_pascal_quant.tflite", evaluation=place)

    assert reference.score
    # The mean of 0.819 for the bird and 0.975 for what is around it.
    assert (reference.score.metric, reference.score.value) == ("mean_iou", pytest.approx(0.897, abs=0.001))
    assert truth_check(reference).metric == "mean_iou"


def test_boxes_judge_a_detector_and_its_golden_set(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("background\nface\n")
    instances = {
        "images": [{"id": 1, "file_name": "grace_hopper.bmp"}, {"id": 2, "file_name": "parrot.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 9, "bbox": [172, 121, 185, 213], "iscrowd": 0, "area": 39405}],
        "categories": [{"id": 9, "name": "face"}],
    }
    (tmp_path / "faces.json").write_text(json.dumps(instances))
    place = {"folder": "data/images", "annotations": str(tmp_path / "faces.json"), "metric": "map50"}
    detector = RECIPES["onnx/ultraface_rfb320.onnx"]["outputs"]["objects"]
    outputs = {"objects": {**detector, "labels": str(tmp_path / "labels.txt")}}

    _, reference = evaluated(shared, tmp_path, "onnx/ultraface_rfb320.onnx", evaluation=place, outputs=outputs)

    assert reference.score
    assert (reference.score.metric, reference.score.value) == ("map50", pytest.approx(1.0))
    assert truth_check(reference).metric == "box_f1"
    assert sorted(len(found or []) for found in reference.golden.truth.objects["objects"]) == [0, 1]
