"""The two sets of a recipe: large enough, kept apart, and of numbers that look like what the recipe says."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from converters.data.data_ranges import range_notes
from converters.data.datasets import Dataset
from converters.data.samples.files import Files
from converters.data.samples.sample import Sample
from converters.data.sets import open_sets
from converters.errors import BadDataset, BadRecipe
from converters.planning.recipe import Recipe
from edge_runtime.contract.steps import RawStep
from edge_runtime.inference.preprocessing.preprocess import compile_preprocess
from tests.fakes.models import release_manifest

CLASSES = {"tensor": "logits", "kind": "classes", "activation": "softmax"}


def recipe(**changes: Any) -> Recipe:
    raw = {
        "model": "m.onnx", "name": "m", "version": "1", "task": "t", "targets": ["cpu"],
        "inputs": {"x": {"tensor": "x", "kind": "tensor"}}, "outputs": {"out": CLASSES},
        "calibration": {"file": "all.npz", "range": ":40"}, "evaluation": {"file": "all.npz", "range": "40:"},
        **changes,
    }  # fmt: skip
    return msgspec.convert(raw, Recipe)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "all.npz", x=np.arange(200.0).reshape(200, 1), y=np.arange(200) % 2)
    return tmp_path


def test_one_file_gives_both_sets(data) -> None:
    sets = open_sets(recipe(), data, None)

    assert sets.calibration
    assert (len(sets.calibration.samples), len(sets.evaluation.samples), sets.notes) == (40, 160, ())


def test_a_calibration_set_of_a_few_samples_is_refused(data) -> None:
    few = recipe(calibration={"file": "all.npz", "range": ":7"})

    with pytest.raises(BadDataset, match=r"7 examples are too few.*collect 32 to 200 typical ones"):
        open_sets(few, data, None)


def test_small_sets_are_used_and_noted(data) -> None:
    small = recipe(calibration={"file": "all.npz", "range": ":10"}, evaluation={"file": "all.npz", "range": "150:"})

    calibrated, judged = open_sets(small, data, None).notes

    assert calibrated == "calibrated on 10 examples only; 32 to 200 are usual"
    assert judged == "judged on 50 samples: one of them is 2.0 % of accuracy"


def test_what_max_samples_leaves_out_is_noted(data) -> None:
    large = recipe(calibration={"file": "all.npz", "range": ":120", "max_samples": 50},
                   evaluation={"file": "all.npz", "range": "120:", "max_samples": 79})  # fmt: skip

    notes = open_sets(large, data, None).notes

    assert "79 of 80 evaluation samples are used (max_samples)" in notes
    assert "50 of 120 calibration samples are used (max_samples)" in notes


def test_a_sorted_file_whose_first_samples_are_of_one_class_is_noted(tmp_path) -> None:
    np.savez(tmp_path / "all.npz", x=np.arange(200.0).reshape(200, 1), y=np.arange(200) // 50)

    (note,) = open_sets(recipe(), tmp_path, None).notes

    assert note.startswith("calibrated on 1 of 4 classes: is the file sorted? range = '::5' takes every 5th sample")


def test_every_tenth_sample_and_the_others_make_two_sets(data) -> None:
    split = recipe(
        calibration={"file": "all.npz", "range": "::10"}, evaluation={"file": "all.npz", "range": "not ::10"}
    )

    sets = open_sets(split, data, None)

    assert sets.calibration
    assert [sample.row for sample in sets.calibration.samples] == list(range(0, 200, 10))
    assert [sample.row for sample in sets.evaluation.samples] == [row for row in range(200) if row % 10]


def test_ranges_that_overlap_are_refused(data) -> None:
    with pytest.raises(BadDataset, match="38 of its 40 samples are in the evaluation set too"):
        open_sets(recipe(evaluation={"file": "all.npz", "range": "2:"}), data, None)


def test_a_drop_cannot_be_judged_without_labels(tmp_path) -> None:
    np.savez(tmp_path / "all.npz", x=np.arange(200.0).reshape(200, 1))
    with_drop = recipe(limits={"max_drop": {"*": 0.01}})

    with pytest.raises(BadRecipe, match=r"all\.npz has no labels; write labels\.csv, or use min_agreement"):
        open_sets(with_drop, tmp_path, None)


def test_a_drop_cannot_be_judged_where_an_output_has_no_metric(data) -> None:
    bare = recipe(outputs={"out": {"tensor": "y", "kind": "tensor"}}, limits={"max_drop": {"*": 0.01}})

    with pytest.raises(BadRecipe, match="kind tensor has no metric of its own"):
        open_sets(bare, data, None)


def test_an_anomaly_detector_needs_labels_of_both_kinds(tmp_path) -> None:
    np.savez(tmp_path / "all.npz", x=np.arange(200.0).reshape(200, 1), y=np.ones(200, int))
    score = recipe(outputs={"out": {"tensor": "y", "kind": "score"}})

    with pytest.raises(BadDataset, match=r"its labels are \[1\], where 0 says normal and 1 anomalous"):
        open_sets(score, tmp_path, None)


@pytest.mark.parametrize(("missing", "allows"), [("error", False), ("value", False), ("keep", True)])
def test_only_a_model_that_fills_gaps_itself_is_fed_what_is_not_a_number(tmp_path, missing, allows) -> None:
    (tmp_path / "t.csv").write_text("a,b,kind\n" + "1,,0\n" * 20)
    step = {"op": "columns", "names": ["a", "b"], "dtype": "float32", "missing": missing, "value": 0.0}
    table = recipe(
        inputs={"row": {"tensor": "x", "kind": "table", "steps": [step]}},
        evaluation={"file": "t.csv", "truth": "kind"},
        calibration=None,
        precisions=["float32"],
    )

    assert open_sets(table, tmp_path, None).evaluation.allows_nan is allows


NORMALIZE: RawStep = {"id": "norm", "op": "normalize", "scale": 1.0, "mean": [0.0], "std": [255.0]}


def noted(tmp_path: Path, pixels: int, calibration: int | None = None, **normalize: Any) -> tuple[str, ...]:
    """Notes about a set of 2 by 2 pictures whose brightest pixel is this."""
    release = release_manifest(["v"])
    steps = [release.preprocess["x"][0], {**NORMALIZE, **normalize}, release.preprocess["x"][2]]
    release = msgspec.structs.replace(release, preprocess={"x": steps})

    def pictures(brightest: int) -> Dataset:
        path = tmp_path / f"{brightest}.npy"
        np.save(path, np.array([[0, 0], [0, brightest]], np.uint8)[..., None])
        return Dataset(tmp_path, (Sample(path),), Files())

    calibration_set = pictures(calibration) if calibration is not None else None
    return range_notes(release, compile_preprocess(release), pictures(pixels), calibration_set)


def test_pictures_that_are_normalised_as_in_training_need_no_note(tmp_path) -> None:
    assert noted(tmp_path, 255, 200) == ()
    assert noted(tmp_path, 255, mean=[0.0], std=[1.0]) == ()


@pytest.mark.parametrize(
    ("pixels", "calibration", "normalize", "says"),
    [
        (1, None, {"std": [1.0]}, "pixels look like 0..1 where 0..255 is declared"),
        (255, None, {"mean": [0.485], "std": [0.229]}, "write scale = 0.00392157 with them"),
        (255, None, {"scale": 1 / 255, "mean": [127.5], "std": [127.5]}, "write scale = 1.0 with them"),
    ],
)
def test_numbers_that_look_wrong_are_noted(tmp_path, pixels, calibration, normalize, says) -> None:
    (note,) = noted(tmp_path, pixels, calibration, **normalize)

    assert says in note


def test_sound_beyond_its_declared_range_is_noted(tmp_path) -> None:
    release = release_manifest(["v"])
    (taken,) = release.signature.inputs
    sound = msgspec.structs.replace(
        taken, kind="audio", dtype="float32", shape=["N", 1, 2, 2], layout=None, range=[-1.0, 1.0], color=None
    )
    signature = msgspec.structs.replace(release.signature, inputs=[sound])
    release = msgspec.structs.replace(release, signature=signature, preprocess={"x": []})
    np.save(tmp_path / "a.npy", np.full((1, 1, 2, 2), 12000, np.float32))
    loud = Dataset(tmp_path, (Sample(tmp_path / "a.npy"),), Files())

    (note,) = range_notes(release, compile_preprocess(release), loud, None)

    assert note == "input image: numbers from 12000 to 12000 where -1..1 is declared"


@pytest.mark.parametrize(("numbers", "notes"), [(64, 1), (4, 0)])
def test_sets_that_were_prepared_differently_are_noted_unless_they_are_rows_of_a_table(
    tmp_path, numbers, notes
) -> None:
    release = release_manifest(["v"])
    (taken,) = release.signature.inputs
    rows = msgspec.structs.replace(taken, kind="tensor", dtype="float32", shape=["N", numbers], layout=None, color=None)
    tensors = {**release.tensors, "x": msgspec.structs.replace(release.tensors["x"], shape=["N", numbers], layout=None)}
    signature = msgspec.structs.replace(release.signature, inputs=[rows])
    release = msgspec.structs.replace(release, signature=signature, tensors=tensors, preprocess={"x": []})

    def reaching(largest: float) -> Dataset:
        path = tmp_path / f"{largest}.npy"
        np.save(path, np.linspace(0, largest, numbers, dtype=np.float32))
        return Dataset(tmp_path, (Sample(path),), Files())

    found = range_notes(release, compile_preprocess(release), reaching(250.0), reaching(1.0))

    assert len(found) == notes
    assert all(
        "calibration reaches from 0 to 1, evaluation from 0 to 250; prepare both sets alike" in one for one in found
    )
