"""Every real model gives what its README says, asked with `edge-runtime run`, on each engine that can load it."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edge_runtime.cli.main import assemble
from tests.fakes.shared_recipes import RECIPES
from tests.fakes.shared_releases import ENGINES, shared_release

pytestmark = [pytest.mark.needs_shared, pytest.mark.slow]

NEAR = 0.01
"""Probability by which an answer may differ from the README's."""
ROUGH = {
    ("tflite/mobilenet_v1_0.25_224_quant.tflite", "openvino"): 0.03,
    ("tflite/mobilenet_v1_0.25_128_quant.tflite", "openvino"): 0.03,
    ("tflite/deeplabv3_mnv2_dm05_pascal_quant.tflite", "openvino"): 0.02,
}
"""OpenVINO rounds after every layer in its own way: by up to 7 steps of 1/256 in the end."""

Scores = Mapping[str, tuple[tuple[str | int, float], ...]]
"""By photo: labels, or numbers of classes, with their probability, best first."""

MACAW, CAT = (("macaw", 0.940),), (("Egyptian cat", 0.472),)
FLOAT_NET: Scores = {
    "parrot.jpg": MACAW, "cat_720p.jpg": CAT, "bird.bmp": (("chickadee", 0.899),), "sunflower.bmp": (("daisy", 0.956),),
}  # fmt: skip
SCORES: Mapping[str, Scores] = {
    "tflite/mobilenet_v1_0.25_224_float.tflite": FLOAT_NET,
    "onnx/mobilenet_v1_0.25_224_fp32.onnx": FLOAT_NET,
    "tflite/mobilenet_v1_0.25_224_quant.tflite": {
        "parrot.jpg": (("macaw", 0.844),), "cat_720p.jpg": (("Egyptian cat", 0.449),),
        "bird.bmp": (("chickadee", 0.902),), "sunflower.bmp": (("daisy", 0.949),),
        "hot_dog.jpg": (("hotdog, hot dog, red hot", 0.180),),
    },
    "tflite/mobilenet_v1_0.25_128_quant.tflite": {
        "parrot.jpg": (("macaw", 0.762),), "sunflower.bmp": (("daisy", 0.699),), "bird.bmp": (("chickadee", 0.410),),
    },
    "tflite/mobilenet_v2_1.0_224_quant.tflite": {
        "parrot.jpg": (("macaw", 0.996),), "cat_720p.jpg": (("Egyptian cat", 0.809),),
        "hot_dog.jpg": (("hotdog, hot dog, red hot", 0.906),), "grace_hopper.bmp": (("military uniform", 0.930),),
        "bird.bmp": (("chickadee", 0.984),), "sunflower.bmp": (("daisy", 0.988),),
    },
    "tflite/vww_96_float.tflite": {
        "grace_hopper.bmp": ((1, 0.888),), "humans_0.jpg": ((1, 0.998),), "peds_2.jpg": ((1, 0.901),),
        "parrot.jpg": ((0, 1 - 0.043),), "fruit_0.jpg": ((0, 1 - 0.024),), "room_0.jpg": ((0, 1 - 0.114),),
    },
    "tflite/vww_96_int8.tflite": {
        "grace_hopper.bmp": ((1, 0.895),), "humans_0.jpg": ((1, 0.977),), "peds_2.jpg": ((1, 0.902),),
        "parrot.jpg": ((0, 1 - 0.062),), "fruit_0.jpg": ((0, 1 - 0.051),), "room_0.jpg": ((0, 1 - 0.125),),
    },
    # The README has logits of both classes; these are their softmax.
    "onnx/mlperf_tiny_vww.onnx": {
        "grace_hopper.bmp": ((1, 0.9875),), "peds_2.jpg": ((1, 0.9830),), "humans_0.jpg": ((1, 0.594),),
        "parrot.jpg": ((0, 0.582),), "fruit_0.jpg": ((0, 0.9886),), "room_0.jpg": ((0, 0.664),),
    },
    "tflite/ssd_mobilenet_v1_coco_quant.tflite": {
        "pets.jpg": (("dog", 0.82), ("dog", 0.74)), "cat_720p.jpg": (("cat", 0.72),),
        "grace_hopper.bmp": (("person", 0.71), ("tie", 0.64)), "dog_0.jpg": (("person", 0.81), ("dog", 0.70)),
    },
    "onnx/fastestdet_coco_352.onnx": {
        "pets.jpg": ((16, 0.90), (16, 0.83)), "cat_720p.jpg": ((15, 0.70),), "dog_0.jpg": ((0, 0.88), (16, 0.84)),
        "grace_hopper.bmp": ((0, 0.87), (27, 0.85)),
    },
    "onnx/ultraface_rfb320.onnx": {
        "grace_hopper.bmp": ((1, 1.000),), "face.jpg": ((1, 1.000), (1, 1.000), (1, 0.999), (1, 0.996)),
        "parrot.jpg": (),
    },
    "tflite/ultraface_rfb320.tflite": {"grace_hopper.bmp": ((1, 1.000),), "parrot.jpg": ()},
    "tflite/kws_ref_model_float32.tflite": {"yes_1000ms.wav": ((9, 0.998),)},
    "tflite/kws_ref_model_int8.tflite": {"yes_1000ms.wav": ((9, 0.996),)},
    "onnx/mlperf_tiny_kws.onnx": {"yes_1000ms.wav": ((9, 0.996),)},
}  # fmt: skip


def cases(names: Any, unable: tuple[tuple[str, str], ...] = ()) -> list[Any]:
    """Each model with each engine that reads it."""
    pairs = [(name, engine) for name in names for engine in ENGINES[Path(name).suffix] if (name, engine) not in unable]
    return [pytest.param(name, engine, id=f"{Path(name).stem}-{engine}") for name, engine in pairs]


SSD = "tflite/ssd_mobilenet_v1_coco_quant.tflite"
UNABLE = ((SSD, "openvino"),)
"""OpenVINO has no translator for its TFLite_Detection_PostProcess; the build says so (test_shared_builds.py)."""


@pytest.fixture(scope="module")
def ask(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[Any]]:
    """Answers of the command line, one for each file or row."""
    releases: dict[tuple[str, str], Path] = {}

    def asked(name: str, engine: Any, files: list[Path]) -> list[Any]:
        if (name, engine) not in releases:
            folder = tmp_path_factory.mktemp("release")
            releases[name, engine] = shared_release(name, shared / "models", folder, engines=[engine])
        arguments = ["run", str(releases[name, engine]), *map(str, files), "--threads", "1", "--json"]
        ran = CliRunner().invoke(assemble(), arguments)
        assert ran.exit_code == 0, ran.output
        document = json.loads(ran.stdout)
        assert document["variant"] == engine
        return [next(iter(one["answer"].values())) for one in document["answers"]]

    return asked


def asset(shared: Path, name: str) -> Path:
    folders = (shared / "models/data" / part for part in ("images", "calib", "audio"))
    return next(folder / name for folder in folders if (folder / name).is_file())


def test_every_model_with_a_recipe_is_asked() -> None:
    beside = {ANOMALY, *SINES, "tflite/ad01_int8.tflite", "onnx/mlperf_tiny_ad.onnx", HANDS, *TEN, DIGITS, BIRDS}

    assert sorted({*SCORES, *beside}) == sorted(name for name in RECIPES if "silero" not in name)


@pytest.mark.parametrize(("name", "engine"), cases(SCORES, UNABLE))
def test_what_is_in_a_photo_or_sound_has_the_score_that_was_published(ask, shared, name: str, engine: str) -> None:
    files = [asset(shared, file) for file in SCORES[name]]

    answers = ask(name, engine, files)

    for file, expected, answer in zip(files, SCORES[name].values(), answers, strict=True):
        found = [(one["label"] if isinstance(wanted[0], str) else one["index"], one["score"])
                 for wanted, one in zip(expected, answer, strict=False)]  # fmt: skip
        assert [label for label, _ in found] == [label for label, _ in expected], file.name
        near = ROUGH.get((name, engine), NEAR)
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=near), file.name
        assert answer or not expected


ANOMALY = "tflite/ad01_fp32.tflite"
DISTANCES = {ANOMALY: 9.707, "tflite/ad01_int8.tflite": 10.265, "onnx/mlperf_tiny_ad.onnx": 12.08}


@pytest.mark.parametrize(("name", "engine"), cases(DISTANCES))
def test_the_sound_of_a_machine_is_as_strange_as_published(ask, shared, tmp_path, name: str, engine: str) -> None:
    raw = np.fromfile(shared / "models/data/ad01/normal_id_01_00000000_hist_librosa.bin", np.float32)
    np.save(tmp_path / "frames.npy", raw.reshape(200, 128))

    (answer,) = ask(name, engine, [tmp_path / "frames.npy"])

    assert answer["score"] == pytest.approx(DISTANCES[name], abs=0.01)


SINES = {"tflite/hello_world_float.tflite": 0.039, "tflite/hello_world_int8.tflite": 0.113}


@pytest.mark.parametrize(("name", "engine"), cases(SINES))
def test_the_sine_is_as_far_off_as_published(ask, tmp_path, name: str, engine: str) -> None:
    points = np.linspace(0, 6.28, 50, dtype=np.float32)
    np.save(tmp_path / "points.npy", points[:, None])

    answers = ask(name, engine, [tmp_path / "points.npy"])

    told = [answer["values"][0] for answer in answers]
    assert np.abs(told - np.sin(points)).max() == pytest.approx(SINES[name], abs=0.002)


HANDS = "tflite/keypoint_classifier.tflite"


@pytest.mark.parametrize(("name", "engine"), cases([HANDS]))
def test_hand_poses_are_told_from_a_csv_file(ask, shared, tmp_path, name: str, engine: str) -> None:
    with (shared / "models/data/hand_keypoint.csv").open(newline="") as source:
        rows = list(csv.reader(source))[::10]
    heading = [f"{axis}{point}" for point in range(21) for axis in "xy"]
    with (tmp_path / "hands.csv").open("w", newline="") as target:
        csv.writer(target).writerows([heading, *(row[1:] for row in rows)])

    answers = ask(name, engine, [tmp_path / "hands.csv"])

    right = [answer[0]["index"] == int(row[0]) for answer, row in zip(answers, rows, strict=True)]
    assert np.mean(right) == pytest.approx(0.9652, abs=0.01)


TEN = ("tflite/resnet8_cifar10_float.tflite", "tflite/resnet8_cifar10_int8.tflite", "onnx/mlperf_tiny_ic.onnx")


@pytest.mark.parametrize(("name", "engine"), cases(TEN))
def test_aeroplanes_and_horses_are_told_apart(ask, shared, name: str, engine: str) -> None:
    expected = {"airplane_0.jpg": 0, "airplane_1.jpg": 0, "horse_0.jpg": 7, "horse_1.jpg": 7}

    answers = ask(name, engine, [asset(shared, file) for file in expected])

    right = [answer[0]["index"] == index for answer, index in zip(answers, expected.values(), strict=True)]
    assert np.mean(right) >= 0.75


DIGITS = "onnx/mnist-8.onnx"


@pytest.mark.parametrize(("name", "engine"), cases([DIGITS]))
def test_digits_are_read_from_picture_files(ask, shared, tmp_path, name: str, engine: str) -> None:
    from PIL import Image

    folder = shared / "models/data/mnist"
    pixels = np.frombuffer(gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    right = np.frombuffer(gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    files = [tmp_path / f"{number:03}.png" for number in range(200)]
    for file, picture in zip(files, pixels.reshape(-1, 28, 28), strict=False):
        Image.fromarray(picture).save(file)

    answers = ask(name, engine, files)

    # 0.9891 of all ten thousand.
    assert np.mean([answer[0]["index"] for answer in answers] == right[:200]) >= 0.98


BIRDS = "tflite/deeplabv3_mnv2_dm05_pascal_quant.tflite"
SHARES = {
    "bird_segmentation.bmp": ("bird", 0.171), "dog_segmentation.bmp": ("dog", 0.520), "cat_720p.jpg": ("cat", 0.373),
}  # fmt: skip


@pytest.mark.parametrize(("name", "engine"), cases([BIRDS]))
def test_animals_cover_as_much_of_their_photos_as_published(ask, shared, name: str, engine: str) -> None:
    answers = ask(name, engine, [asset(shared, file) for file in SHARES])

    for (label, share), answer in zip(SHARES.values(), answers, strict=True):
        shares = {one["label"]: one["share"] for one in answer["classes"]}
        assert shares[label] == pytest.approx(share, abs=ROUGH.get((name, engine), NEAR))


@pytest.mark.parametrize(
    "name", ["mobilenet_v1_0.25_128_quant", "mobilenet_v2_1.0_224_quant", "deeplabv3_mnv2_dm05_pascal_quant"]
)
def test_a_file_for_an_edge_tpu_says_what_it_lacks(shared: Path, tmp_path: Path, name: str) -> None:
    told = RECIPES[f"tflite/{name}.tflite"]
    release = shared_release(
        f"tflite/{name}_edgetpu.tflite", shared / "models", tmp_path, engines=["litert"], told=told
    )

    ran = command(release, asset(shared, "parrot.jpg"))

    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("edge-runtime: cannot open release shared 1")
    assert "edgetpu-custom-op" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_process_of_its_own_hears_yes(shared: Path, tmp_path: Path) -> None:
    release = shared_release("onnx/mlperf_tiny_kws.onnx", shared / "models", tmp_path)

    ran = command(release, asset(shared, "yes_1000ms.wav"), "--json")

    assert (ran.returncode, ran.stderr) == (0, "")
    ((best, *_),) = [one["answer"]["classes"] for one in json.loads(ran.stdout)["answers"]]
    assert best["index"] == 9
    assert best["score"] >= 0.95


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "edge_runtime.cli", "run", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)
