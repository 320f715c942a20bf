"""The demo's committed model and pictures are what their card says."""

import csv
import re
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from PIL import Image

MODEL = Path(__file__).parents[3] / "examples" / "fleet_on_a_laptop" / "model"
PICTURE_COUNTS = {"calibration": 100, "evaluation": 360, "live": 60, "wrong_calibration": 48}


@cache
def logits_of(model: str, folder: str) -> npt.NDArray[np.float32]:
    """Return the model's answers float32 [n, 10] for the folder's pictures in order of their names."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more would spin against the other test processes
    session = onnxruntime.InferenceSession(str(MODEL / model), options, providers=["CPUExecutionProvider"])
    pictures = [np.asarray(Image.open(path)) for path in sorted((MODEL / folder).glob("*.png"))]
    canonical = np.stack(pictures).astype(np.float32)[:, None] / np.float32(255.0)
    # A few pictures at a time stay in a core's cache; all at once are many times slower on a busy machine.
    parts = [session.run(["logits"], {"input": canonical[at : at + 4]})[0] for at in range(0, len(canonical), 4)]
    return np.concatenate(parts)


def labels_of(folder: str) -> npt.NDArray[np.int64]:
    """Return the folder's labels int64 [n] in order of its pictures' names."""
    with (MODEL / folder / "labels.csv").open(encoding="utf-8") as stream:
        by_file = {row["file"]: int(row["label"]) for row in csv.DictReader(stream)}
    return np.array([by_file[path.name] for path in sorted((MODEL / folder).glob("*.png"))])


def accuracy_of(model: str, folder: str) -> float:
    """Return the share of the folder's pictures that the model answers with their label."""
    return float(np.mean(logits_of(model, folder).argmax(axis=1) == labels_of(folder)))


def accuracy_on_the_card(model: str) -> float:
    """Return the evaluation accuracy that the model card states."""
    row = re.search(rf"^\| `{re.escape(model)}` \| ([0-9.]+) \|", (MODEL / "MODEL_CARD.md").read_text(), re.MULTILINE)
    assert row is not None
    return float(row[1])


@pytest.mark.parametrize("model", ["digits.onnx", "shuffled.onnx"])
def test_a_demo_model_scores_on_the_held_out_pictures_what_its_card_says(model: str) -> None:
    assert accuracy_of(model, "evaluation") == pytest.approx(accuracy_on_the_card(model), abs=0.002)


def test_the_good_model_is_good_and_the_shuffled_one_is_guessing() -> None:
    assert accuracy_of("digits.onnx", "evaluation") >= 0.98
    assert accuracy_of("digits.onnx", "live") >= 0.95
    assert accuracy_of("shuffled.onnx", "evaluation") <= 0.2
    assert accuracy_of("shuffled.onnx", "live") <= 0.25


@pytest.mark.parametrize("model", ["digits.onnx", "shuffled.onnx"])
def test_a_demo_model_is_small_and_loads_in_old_engines(model: str) -> None:
    proto = onnx.load(str(MODEL / model), load_external_data=False)

    assert proto.ir_version <= 8
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 13)]
    assert not any(tensor.external_data for tensor in proto.graph.initializer)
    assert (MODEL / model).stat().st_size < 1_500_000


def test_both_demo_models_take_and_give_the_same_tensors() -> None:
    good, shuffled = (onnx.load(str(MODEL / name)).graph for name in ("digits.onnx", "shuffled.onnx"))

    assert list(good.input) == list(shuffled.input)
    assert list(good.output) == list(shuffled.output)


def test_no_picture_is_in_two_sets_or_twice_in_one() -> None:
    pixels = [np.asarray(Image.open(path)).tobytes() for path in MODEL.glob("*/*.png")]

    assert len({sha256(content).digest() for content in pixels}) == sum(PICTURE_COUNTS.values())


@pytest.mark.parametrize("folder", PICTURE_COUNTS)
def test_a_folder_holds_grey_pictures_of_the_models_size(folder: str) -> None:
    pictures = [Image.open(path) for path in sorted((MODEL / folder).glob("*.png"))]

    assert len(pictures) == PICTURE_COUNTS[folder]
    assert {(picture.mode, picture.size) for picture in pictures} == {("L", (32, 32))}


@pytest.mark.parametrize("folder", ["evaluation", "live"])
def test_every_labelled_picture_exists_and_every_class_occurs(folder: str) -> None:
    classes = (MODEL / "labels.txt").read_text().split()

    assert {classes[label] for label in labels_of(folder)} == set(classes)
