from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from converters.data.datasets import Dataset, open_dataset, read_labels
from converters.data.samples.sample import Wanted
from converters.errors import BadDataset
from converters.evaluation.golden import ask_from, choose_samples
from converters.planning.recipe import EvaluationRecipe
from edge_runtime.contract.release import GOLDEN_MAX_BYTES
from edge_runtime.contract.tensor import AxisRange
from edge_runtime.inference.preprocessing.preprocess import compile_preprocess
from tests.fakes.models import release_manifest


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)


def opened(folder: Path, labels: tuple[str, ...] | None = ("cat", "dog"), limit: int = 100) -> Dataset:
    place = EvaluationRecipe(folder=str(folder), max_samples=limit)
    return open_dataset(place, Path(), Wanted({"image": "image"}, "class", labels))


def test_class_folders_become_labels(tmp_path) -> None:
    picture(tmp_path / "dog" / "a.png")
    picture(tmp_path / "cat" / "b.png")

    assert [(s.path.name, s.label) for s in opened(tmp_path).samples] == [("b.png", 0), ("a.png", 1)]


def test_a_table_becomes_labels_by_word_or_number(tmp_path) -> None:
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,dog\nb.png,0\n")

    assert [s.label for s in opened(tmp_path).samples] == [1, 0]


def test_plain_files_have_no_labels(tmp_path) -> None:
    picture(tmp_path / "a.png")

    assert not opened(tmp_path).is_labelled


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("file,label\na.png,horse\n", "horse"),
        ("file,label\nmissing.png,cat\n", "no file"),
        ("file,label\n../a.png,cat\n", "no file"),
        ("name,class\na.png,cat\n", "no columns file,label"),
        ("file,label\na.png,7\n", "none of the 2 labels"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, table, says) -> None:
    picture(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "labels.csv").write_text(table)

    with pytest.raises(BadDataset, match=says):
        opened(tmp_path / "set")


def test_a_class_folder_that_is_no_label_is_refused(tmp_path) -> None:
    picture(tmp_path / "horse" / "a.png")

    with pytest.raises(BadDataset, match="folder horse"):
        opened(tmp_path)


def test_a_large_set_is_thinned_evenly(tmp_path) -> None:
    for label in ("cat", "dog"):
        for number in range(10):
            picture(tmp_path / label / f"{number}.png")

    assert [s.label for s in opened(tmp_path, limit=4).samples] == [0, 0, 1, 1]


def test_a_range_of_class_folders_holds_every_class(tmp_path) -> None:
    for label in ("cat", "dog"):
        for number in range(4):
            picture(tmp_path / label / f"{number}.png")
    place = EvaluationRecipe(folder=str(tmp_path), range=":4")

    dataset = open_dataset(place, Path(), Wanted({"image": "image"}, "class", ("cat", "dog")))

    assert [s.label for s in dataset.samples] == [0, 1, 0, 1]


def test_golden_samples_are_balanced_and_the_same_every_time(tmp_path) -> None:
    for label, count in (("cat", 9), ("dog", 3)):
        for number in range(count):
            picture(tmp_path / label / f"{number}.png")
    dataset = opened(tmp_path)

    chosen = choose_samples(dataset, 6)

    assert sorted(s.label for s in chosen if s.label is not None) == [0, 0, 0, 1, 1, 1]
    assert chosen == choose_samples(dataset, 6)


def test_the_digest_follows_content_and_labels(tmp_path) -> None:
    picture(tmp_path / "cat" / "a.png")
    before = opened(tmp_path).digest()

    (tmp_path / "cat" / "a.png").write_bytes(b"other")

    assert opened(tmp_path).digest() != before


def test_an_empty_label_list_is_refused(tmp_path) -> None:
    (tmp_path / "labels.txt").write_text("\n\n")

    with pytest.raises(BadDataset, match="is empty"):
        read_labels(tmp_path / "labels.txt")


def test_a_picture_that_no_step_can_work_on_is_named_with_its_width_first(tmp_path) -> None:
    picture(tmp_path / "square.png")
    steps = [
        {"op": "decode", "id": "decode", "from": "image", "color": "gray", "exif": "apply", "reduced": "never"},
        {"op": "resize", "id": "resize", "mode": "none", "size": [2, 3], "filter": "nearest", "antialias": False},
    ]
    release = msgspec.structs.replace(release_manifest(["v"]), preprocess={"x": steps})

    with pytest.raises(BadDataset) as refused:
        list(opened(tmp_path).prepared(compile_preprocess(release)))

    assert str(refused.value) == (
        "cannot use square.png: it is 2 wide and 2 high and the model resizes nothing; "
        f"give one that is 3 wide and 2 high, or remove it from {tmp_path}"
    )


@pytest.mark.parametrize(("mode", "kept"), [("none", (64, 64, 1)), ("stretch", (32, 32, 1))])
def test_a_golden_picture_is_scaled_down_only_for_a_model_that_resizes(tmp_path, mode, kept) -> None:
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "large.png")
    steps = [
        {"op": "decode", "id": "decode", "from": "image", "color": "gray", "exif": "apply", "reduced": "never"},
        {"op": "resize", "id": "resize", "mode": mode, "size": [64, 64], "filter": "nearest", "antialias": False},
    ]
    release = release_manifest(["v"])
    (taken,) = release.signature.inputs
    free = {"H": AxisRange(min=1, max=100), "W": AxisRange(min=1, max=100)}
    inputs = [msgspec.structs.replace(taken, shape=["N", "H", "W", 1])]
    signature = msgspec.structs.replace(release.signature, inputs=inputs, axes={**release.signature.axes, **free})
    release = msgspec.structs.replace(release, signature=signature, preprocess={"x": steps})

    taken = GOLDEN_MAX_BYTES * 9 // 10 - 1050
    asked = ask_from(opened(tmp_path), compile_preprocess(release), count=1, output="digit", reference_bytes=taken)

    (tensors,) = asked.inputs
    assert [array.shape for array in tensors.values()] == [kept]


def test_labels_that_are_not_there_are_named_once(tmp_path) -> None:
    path = tmp_path / "labels.txt"

    with pytest.raises(BadDataset) as refused:
        read_labels(path)

    assert str(refused.value) == f"cannot read labels {path}: No such file or directory; check the path"
