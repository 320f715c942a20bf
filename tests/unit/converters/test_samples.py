"""Sets as people keep them: array files, tables, COCO, masks; and sets that must stay apart."""

import io
import json
import struct
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from converters.data.datasets import Dataset, open_dataset, without_shared
from converters.data.samples import array_files
from converters.data.samples.array_files import read_arrays
from converters.data.samples.sample import TruthKind, Wanted, digest_of_arrays
from converters.data.truth import MaskFile, TrueBoxes, truth_text
from converters.errors import BadDataset
from converters.planning.recipe import CalibrationRecipe, EvaluationRecipe, StoredRecipe
from edge_runtime.contract.tensor import InputSpec, Signature
from edge_runtime.inference.preprocessing.preprocess import Preprocessor, compile_preprocess
from tests.fakes.models import release_manifest

NAN = float("nan")


def opened(
    place: EvaluationRecipe | CalibrationRecipe,
    base: Path,
    *,
    inputs: Mapping[str, str] | None = None,
    truth: TruthKind | None = "class",
    labels: tuple[str, ...] | None = None,
) -> Dataset:
    return open_dataset(place, base, Wanted(inputs or {"x": "tensor"}, truth, labels))


def takes(**shapes: list[int | str]) -> Preprocessor:
    """A preprocessor that hands float32 tensors of these shapes on."""
    release = release_manifest(["v"])
    inputs = [InputSpec(name=name, kind="tensor", dtype="float32", shape=shape) for name, shape in shapes.items()]
    tensor = release.tensors["x"]
    return compile_preprocess(
        msgspec.structs.replace(
            release,
            signature=Signature(inputs=inputs, outputs=release.signature.outputs, axes=release.signature.axes),
            tensors={
                **{name: msgspec.structs.replace(tensor, shape=shape, layout=None) for name, shape in shapes.items()},
                "logits": release.tensors["logits"],
            },
            preprocess={name: [] for name in shapes},
        )
    )


def test_one_array_file_holds_a_set_and_a_range_splits_it(tmp_path) -> None:
    np.savez(tmp_path / "set.npz", x=np.arange(20.0).reshape(10, 2), y=np.arange(10) % 3, labels=["a", "b", "c"])

    first = opened(EvaluationRecipe(file="set.npz", range=":4"), tmp_path)
    others = opened(EvaluationRecipe(file="set.npz", range="4:"), tmp_path)

    assert [sample.truth for sample in first.samples] == [0, 1, 2, 0]
    assert [sample.row for sample in others.samples] == [4, 5, 6, 7, 8, 9]
    assert next(others.decoded(takes(x=["N", 2])))["x"].tolist() == [[8.0, 9.0]]


def test_labels_may_be_words_and_lie_in_a_file_of_their_own(tmp_path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    np.save(tmp_path / "names.npy", np.array(["dog", "cat"]))

    dataset = opened(EvaluationRecipe(file="x.npy", truth="names.npy"), tmp_path, labels=("cat", "dog"))

    assert [sample.truth for sample in dataset.samples] == [1, 0]


def test_class_numbers_may_be_written_as_floats(tmp_path) -> None:
    np.savez(tmp_path / "set.npz", x=np.zeros((3, 1)), y=np.array([0.0, 2.0, 1.0]))

    assert [sample.truth for sample in opened(EvaluationRecipe(file="set.npz"), tmp_path).samples] == [0, 2, 1]


def test_integers_of_a_quantised_set_become_the_real_numbers_they_stand_for(tmp_path) -> None:
    np.savez(tmp_path / "set.npz", x=np.array([[83], [85]], np.int8))
    stored = StoredRecipe(scale=0.5, zero_point=83)

    dataset = opened(EvaluationRecipe(file="set.npz", stored=stored), tmp_path)

    assert [sample["x"].item() for sample in dataset.decoded(takes(x=["N", 1]))] == [0.0, 1.0]


def test_a_set_is_another_one_when_its_integers_stand_for_other_numbers(tmp_path) -> None:
    np.savez(tmp_path / "set.npz", x=np.array([[83], [85]], np.int8))

    digests = {
        opened(EvaluationRecipe(file="set.npz", stored=StoredRecipe(scale=scale)), tmp_path).digest()
        for scale in (0.5, 0.25)
    }

    assert len(digests) == 2


@pytest.mark.parametrize(
    ("arrays", "place", "says"),
    [
        ({"x": np.zeros((3, 1)), "y": np.zeros(2, int)}, {}, "hold .2, 3. samples"),
        ({"a": np.zeros((3, 1)), "b": np.zeros((3, 1))}, {}, "has arrays a, b, the model takes x"),
        ({"x": np.zeros((3, 1))}, {"truth": "target"}, "no array 'target'"),
        ({"x": np.zeros((3, 1)), "y": np.array([0, 0.5, 1])}, {}, "says '0.5', which is none of the 2 labels"),
        ({"x": np.zeros((3, 1)), "y": np.array([0, 1, 9])}, {}, "says '9', which is none of the 2 labels"),
        ({"x": np.zeros((3, 1)), "y": np.zeros((3, 2), int)}, {}, "write one class per sample"),
        ({"x": np.zeros((3, 1)), "y": np.zeros(3, int)}, {"range": "7:"}, "holds none of its 3 samples"),
    ],
)
def test_an_array_file_that_does_not_fit_is_refused_with_the_reason(tmp_path, arrays, place, says) -> None:
    np.savez(tmp_path / "set.npz", **arrays)

    with pytest.raises(BadDataset, match=says):
        opened(EvaluationRecipe(file="set.npz", **place), tmp_path, labels=("cat", "dog"))


def test_an_array_file_of_python_objects_runs_no_code(tmp_path) -> None:
    np.savez(tmp_path / "set.npz", x=np.array([{"a": 1}], dtype=object))

    with pytest.raises(BadDataset, match="not numbers"):
        opened(EvaluationRecipe(file="set.npz"), tmp_path)


def test_a_table_gives_one_vector_of_all_columns_but_the_truth(tmp_path) -> None:
    (tmp_path / "hands.csv").write_text("2,0.5,1.5\n0,0.25,0.75\n")

    dataset = opened(EvaluationRecipe(file="hands.csv", header=False, truth="0"), tmp_path)

    assert [sample.truth for sample in dataset.samples] == [2, 0]
    assert next(dataset.decoded(takes(x=["N", 2])))["x"].tolist() == [[0.5, 1.5]]


def test_named_columns_feed_the_inputs_of_their_name_and_may_miss_a_value(tmp_path) -> None:
    (tmp_path / "houses.csv").write_text("rooms,area,price\n3,80.5,100\n,60,80\n")
    place = EvaluationRecipe(file="houses.csv", truth="price", missing="nan")

    dataset = opened(place, tmp_path, inputs={"area": "tensor", "rooms": "tensor"}, truth="values")
    first, second = dataset.decoded(takes(area=["N", 1], rooms=["N", 1]))

    assert [sample.truth for sample in dataset.samples] == [(100.0,), (80.0,)]
    assert (first["area"].item(), first["rooms"].item()) == (80.5, 3.0)
    assert np.isnan(second["rooms"].item())


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("a,b\n1,2\n,4\n", {}, r"use t.csv\[1\]: column 'a' is empty; fill it in, or write missing = 'nan'"),
        ("a,b\n1,red\n", {}, r"column 'b' holds text \('red'\)"),
        ("a,b\n1\n", {}, "row 0 has 1 cells, the first line has 2"),
        ("a,b\n", {}, "holds no row"),
        ("a,a\n1,2\n", {}, "two columns have the same name"),
        ("a,b\n1,2\n", {"truth": "c"}, "no column 'c'; it has 'a', 'b'"),
        ("a,b\n1,x\n", {"truth": "b"}, "says 'x', which is none of the numeric labels"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_the_place(tmp_path, text, place, says) -> None:
    (tmp_path / "t.csv").write_text(text)

    with pytest.raises(BadDataset, match=says):
        list(opened(EvaluationRecipe(file="t.csv", **place), tmp_path).decoded(takes(x=["N", 2])))


def coco(folder: Path, **changes: object) -> None:
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "a.png")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "b.png")
    instances = {
        "images": [{"id": 7, "file_name": "b.png"}, {"id": 8, "file_name": "a.png"}],
        "annotations": [{"image_id": 8, "category_id": 3, "bbox": [1, 2, 10, 5], "iscrowd": 0, "area": 50}],
        "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}],
    }
    (folder / "instances.json").write_text(json.dumps({**instances, **changes}))


def test_coco_boxes_become_corners_and_categories_the_labels_of_that_name(tmp_path) -> None:
    coco(tmp_path)
    place = EvaluationRecipe(folder=".", annotations="instances.json")

    dataset = opened(place, tmp_path, inputs={"image": "image"}, truth="boxes", labels=("bird", "cat", "dog"))

    empty, dog = (sample.truth for sample in dataset.samples)
    assert isinstance(empty, TrueBoxes)
    assert isinstance(dog, TrueBoxes)
    assert [sample.path.name for sample in dataset.samples] == ["b.png", "a.png"]
    assert (empty.corners.shape, dog.corners.tolist(), dog.classes) == ((0, 4), [[1.0, 2.0, 11.0, 7.0]], (2,))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"categories": [{"id": 3, "name": "horse"}]}, "category 'horse' is none of the 3 labels"),
        ({"categories": [{"id": 1, "name": "cat"}]}, "category 3 is used and not declared"),
        ({"images": [{"id": 7, "file_name": "../b.png"}]}, "no picture '../b.png'"),
        ({"images": []}, "names no picture"),
        ({"images": 5}, "COCO's instances format"),
    ],
)
def test_coco_files_that_do_not_fit_are_refused_with_the_reason(tmp_path, changes, says) -> None:
    coco(tmp_path, **changes)
    place = EvaluationRecipe(folder=".", annotations="instances.json")

    with pytest.raises(BadDataset, match=says):
        opened(place, tmp_path, inputs={"image": "image"}, truth="boxes", labels=("bird", "cat", "dog"))


def test_a_mask_belongs_to_the_picture_of_its_name(tmp_path) -> None:
    for folder in ("photos", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "photos" / "a.jpg")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "masks" / "a.png")
    place = EvaluationRecipe(folder="photos", masks="masks")

    dataset = opened(place, tmp_path, inputs={"image": "image"}, truth="mask")

    assert [sample.truth for sample in dataset.samples] == [MaskFile(tmp_path / "masks" / "a.png")]
    (tmp_path / "masks" / "a.png").unlink()
    with pytest.raises(BadDataset, match=r"none for a\.jpg"):
        opened(place, tmp_path, inputs={"image": "image"}, truth="mask")


def test_numbers_to_regress_stand_in_the_table_of_labels(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(2))
    (tmp_path / "labels.csv").write_text("file,left,right\na.npy,1.5,-2\n")

    dataset = opened(EvaluationRecipe(folder="."), tmp_path, truth="values")

    assert [sample.truth for sample in dataset.samples] == [(1.5, -2.0)]


@pytest.mark.parametrize(("value", "says"), [(NAN, "holds NaN"), (float("inf"), "holds infinity")])
def test_a_sample_that_is_not_a_number_is_named(tmp_path, value, says) -> None:
    np.savez(tmp_path / "set.npz", x=np.array([[1.0], [value]]))

    with pytest.raises(BadDataset, match=rf"use set\.npz\[1\]: input x {says}"):
        list(opened(EvaluationRecipe(file="set.npz"), tmp_path).prepared(takes(x=["N", 1])))


def test_equal_samples_are_found_whatever_file_holds_them(tmp_path) -> None:
    rows = np.arange(40.0).reshape(10, 4)
    np.savez(tmp_path / "all.npz", x=rows)
    (tmp_path / "single").mkdir()
    for number in range(10):
        np.savez(tmp_path / "single" / f"{number}.npz", x=rows[number] if number < 2 else rows[number] + 100)

    calibration = opened(CalibrationRecipe(folder="single"), tmp_path)
    kept, note = without_shared(calibration, opened(EvaluationRecipe(file="all.npz"), tmp_path))

    assert [sample.path.name for sample in kept.samples] == [f"{number}.npz" for number in range(2, 10)]
    assert note == "left out of the calibration set: 2 of 10 (0.npz is all.npz[0] of the evaluation set)"


def test_a_set_that_mostly_judges_itself_is_refused(tmp_path) -> None:
    np.savez(tmp_path / "all.npz", x=np.arange(10.0).reshape(10, 1))

    with pytest.raises(BadDataset, match=r"6 of its 10 samples are in the evaluation set too \(all\.npz\[4\] is"):
        without_shared(
            opened(CalibrationRecipe(file="all.npz"), tmp_path),
            opened(EvaluationRecipe(file="all.npz", range="4:"), tmp_path),
        )


def test_a_table_input_takes_the_columns_that_its_steps_name(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("b,label,a\n1,0,2\n")
    wanted = Wanted({"row": "table"}, "class", None, columns={"row": ("a", "b")})

    dataset = open_dataset(EvaluationRecipe(file="t.csv", truth="label"), tmp_path, wanted)

    assert next(dataset.decoded(takes(row=["N", 2])))["row"].tolist() == [[2.0, 1.0]]


def test_a_table_without_header_gives_a_table_input_its_columns_in_order(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("0,1.5,2.5\n")
    wanted = Wanted({"row": "table"}, "class", None, columns={"row": ("a", "b")})

    dataset = open_dataset(EvaluationRecipe(file="t.csv", truth="0", header=False), tmp_path, wanted)

    assert next(dataset.decoded(takes(row=["N", 2])))["row"].tolist() == [[1.5, 2.5]]


def test_gaps_are_kept_for_steps_that_fill_them(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,\n")
    wanted = Wanted({"row": "table"}, None, None, columns={"row": ("a", "b")}, fills_gaps=True)

    dataset = open_dataset(EvaluationRecipe(file="t.csv"), tmp_path, wanted)

    assert np.isnan(next(dataset.decoded(takes(row=["N", 2])))["row"]).tolist() == [[False, True]]


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6), st.integers(0, 5))
def test_the_digest_of_a_sample_changes_with_any_of_its_numbers(values, position) -> None:
    row = np.array(values)
    other = row.copy()
    other[position % len(row)] += 1.0

    assert digest_of_arrays({"x": row}) == digest_of_arrays({"x": row[None]})
    assert digest_of_arrays({"x": row}) != digest_of_arrays({"x": other})


def test_a_set_is_another_one_when_a_box_moves() -> None:
    still = TrueBoxes(np.array([[0.0, 0.0, 1.0, 1.0]]), (0,), (False,))
    moved = TrueBoxes(np.array([[0.0, 0.0, 1.0, 2.0]]), (0,), (False,))

    assert truth_text(still) != truth_text(moved)


def npy(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + body


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def flipped(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :]


_HUGE = "{'descr':'<f4','fortran_order':False,'shape':(1000000000000,)}"
_ROWS = npy("{'descr':'<f4','fortran_order':False,'shape':(8,1)}", np.arange(8, dtype="<f4").tobytes())
_ZERO_D = npy("{'descr':'<f4','fortran_order':False,'shape':()}", bytes(4))
_DAMAGED = {
    "flipped.npz": flipped(zipped(x=_ROWS), 70),
    "cut.npz": zipped(x=_ROWS)[:-30],
    "array.npz": _ROWS,
    "huge.npz": zipped(x=npy(_HUGE)),
    "token.npz": zipped(x=npy("{'descr': (")),
    "single.npz": zipped(x=_ZERO_D),
    "truth.npz": zipped(x=_ROWS, y=_ZERO_D),
    "text.npz": zipped(x=_ROWS, y=npy("{'descr':'<U0','fortran_order':False,'shape':(8,)}")),
    "empty.npz": b"",
    "token.npy": npy("{'descr': ("),
    "huge.npy": npy(_HUGE),
    "single.npy": _ZERO_D,
    "archive.npy": zipped(x=_ROWS),
    "empty.npy": b"",
}


@pytest.mark.parametrize("name", _DAMAGED)
def test_a_damaged_array_file_is_one_clear_error(tmp_path, name) -> None:
    (tmp_path / name).write_bytes(_DAMAGED[name])

    with pytest.raises(BadDataset, match=f"cannot read .*{name}"):
        opened(EvaluationRecipe(file=name), tmp_path)


@pytest.mark.parametrize("name", [name for name in _DAMAGED if "single" not in name and "truth" not in name])
def test_a_damaged_array_file_in_a_folder_is_one_clear_error(tmp_path, name) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_bytes(_DAMAGED[name])
    dataset = opened(CalibrationRecipe(folder="set"), tmp_path, truth=None)

    with pytest.raises(BadDataset, match=f"cannot use {name}"):
        dataset.digest()
    with pytest.raises(BadDataset, match=f"cannot use {name}"):
        list(dataset.decoded(takes(x=["N", 1])))


def test_an_archive_that_unfolds_without_end_takes_no_memory(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(array_files, "UNPACKED_MAX_BYTES", 1000)
    (tmp_path / "bomb.npz").write_bytes(zipped(x=bytes(2000)))

    with pytest.raises(BadDataset, match="it unfolds to more than 1000 bytes"):
        opened(EvaluationRecipe(file="bomb.npz"), tmp_path)


def test_a_small_archive_takes_little_memory(tmp_path) -> None:
    (tmp_path / "x.npz").write_bytes(zipped(x=_ROWS))
    tracemalloc.start()

    arrays = read_arrays(tmp_path / "x.npz")

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert arrays["x"].shape == (8, 1)
    assert peak < 10_000_000


def test_a_large_array_stays_on_disk(tmp_path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((8, 1), np.float32))

    assert not read_arrays(tmp_path / "x.npy")[""].flags.owndata
    assert read_arrays(tmp_path / "x.npy")[""].shape == (8, 1)


@pytest.mark.parametrize(
    "table",
    [b"file,label\na.png\n", b"label,file\ncat\n", b"file,label\na.png,\xe9\n", b"file,label\na\0.png,cat\n",
     b"file,label\na.png," + b"c" * 200_000 + b"\n", b"file,label\n" + b"a" * 5000 + b",cat\n", b"file,label\n", b""],
    ids=["short", "no file", "latin-1", "nul", "long cell", "long name", "no row", "empty"],
)  # fmt: skip
def test_a_table_that_no_reader_gets_through_is_one_clear_error(tmp_path, table) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "labels.csv").write_bytes(table)

    with pytest.raises(BadDataset, match=r"cannot read .*labels\.csv"):
        opened(EvaluationRecipe(folder="."), tmp_path, inputs={"x": "image"}, labels=("cat",))


def instances(name: str, box: object = (0, 0, 1, 1)) -> str:
    image, category = {"id": 1, "file_name": name}, {"id": 1, "name": "cat"}
    annotation = {"image_id": 1, "category_id": 1, "bbox": box}
    return json.dumps({"images": [image], "annotations": [annotation], "categories": [category]})


@pytest.mark.parametrize(
    "document",
    [
        '{"zz":' + "[" * 100_000,
        instances("a\0.png"),
        instances("a" * 5000),
        instances("a.png", [1e308] * 4),
        instances("."),
    ],
    ids=["deep", "nul", "long name", "endless box", "folder"],
)
def test_annotations_that_no_reader_gets_through_are_one_clear_error(tmp_path, document) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "instances.json").write_text(document)

    with pytest.raises(BadDataset, match=r"cannot read .*instances\.json"):
        opened(EvaluationRecipe(folder=".", annotations="instances.json"), tmp_path, truth="boxes")


@pytest.mark.parametrize("name", ["a" * 5000, "a\0"])
def test_a_place_that_no_path_can_name_is_one_clear_error(tmp_path, name) -> None:
    with pytest.raises(BadDataset, match="there is no such folder"):
        opened(EvaluationRecipe(folder=name), tmp_path)
    with pytest.raises(BadDataset, match="there is no such file"):
        opened(EvaluationRecipe(file=name), tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((8, 1), np.float32))
    with pytest.raises(BadDataset, match="cannot read"):
        opened(EvaluationRecipe(file="x.npy", truth=name + ".npy"), tmp_path)
