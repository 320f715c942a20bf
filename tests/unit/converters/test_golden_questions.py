"""Which samples a golden set asks, and that what people say about them follows a picture that is scaled down."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from converters.data.datasets import Dataset
from converters.data.samples.files import Files
from converters.data.samples.sample import Sample
from converters.data.truth import MaskFile, TrueBoxes, Truth
from converters.evaluation.golden import ask_from, choose_samples
from converters.evaluation.golden_truth import Kept, truth_of
from edge_runtime.contract.release import GOLDEN_MAX_BYTES
from edge_runtime.contract.tensor import AxisRange
from edge_runtime.inference.checks.golden import narrowed
from edge_runtime.inference.checks.golden_answers import unpack_mask
from edge_runtime.inference.preprocessing.preprocess import Preprocessor, compile_preprocess
from tests.fakes.models import release_manifest


def dataset(*truths: Truth | None) -> Dataset:
    samples = tuple(Sample(Path(f"{number}.png"), truth) for number, truth in enumerate(truths))
    return Dataset(Path(), samples, Files())


def objects(*areas_and_classes: tuple[float, int], crowd: bool = False) -> TrueBoxes:
    corners = np.array([[0, 0, area, 1] for area, _ in areas_and_classes], np.float64).reshape(-1, 4)
    return TrueBoxes(corners, tuple(label for _, label in areas_and_classes), (crowd,) * len(areas_and_classes))


def names(chosen: tuple[Sample, ...]) -> list[str]:
    return [sample.path.stem for sample in chosen]


def test_classes_with_few_samples_leave_their_share_to_the_others() -> None:
    chosen = choose_samples(dataset(0, 0, 0, 0, 0, 0, 0, 0, 1), 6)

    assert sorted(sample.label or 0 for sample in chosen) == [0, 0, 0, 0, 0, 1]


def test_pictures_are_spread_over_the_classes_of_their_largest_objects_and_empty_ones() -> None:
    everything = dataset(objects((5, 2), (9, 1)), objects(), objects((3, 2)), objects((4, 2)), objects((2, 2)))

    assert names(choose_samples(everything, 3)) == ["1", "0", "2"]


def test_numbers_are_spread_from_the_smallest_to_the_largest() -> None:
    assert names(choose_samples(dataset((9.0,), (1.0,), (5.0,), (3.0,), (7.0,)), 3)) == ["1", "3", "4"]


def test_samples_that_nobody_labelled_are_spread_evenly() -> None:
    assert names(choose_samples(dataset(None, None, None, None), 2)) == ["0", "2"]


def resizing() -> Preprocessor:
    """Pictures of any size, to 8 by 8."""
    steps = [
        {"op": "decode", "id": "decode", "from": "image", "color": "gray", "exif": "apply", "reduced": "never"},
        {"op": "resize", "id": "resize", "mode": "stretch", "size": [8, 8], "filter": "nearest", "antialias": False},
    ]
    release = release_manifest(["v"])
    (taken,) = release.signature.inputs
    free = {"H": AxisRange(min=1, max=1000), "W": AxisRange(min=1, max=1000)}
    inputs = [msgspec.structs.replace(taken, shape=["N", "H", "W", 1])]
    signature = msgspec.structs.replace(release.signature, inputs=inputs, axes={**release.signature.axes, **free})
    return compile_preprocess(msgspec.structs.replace(release, signature=signature, preprocess={"x": steps}))


def test_boxes_and_masks_follow_a_picture_that_is_scaled_down_to_fit(tmp_path) -> None:
    Image.fromarray(np.zeros((40, 80), np.uint8)).save(tmp_path / "a.png")
    boxes = TrueBoxes(np.array([[8.0, 4.0, 80.0, 40.0]]), (3,), (False,))
    asked = Dataset(tmp_path, (Sample(tmp_path / "a.png", boxes),), Files())

    questions = ask_from(asked, resizing(), count=16, output="found", reference_bytes=GOLDEN_MAX_BYTES * 9 // 10 - 800)

    assert questions.inputs[0]["image"].shape == (20, 40, 1)
    assert questions.truth is not None
    ((thing,),) = [one for one in questions.truth.objects["found"] if one]
    assert (thing.label, thing.box) == (3, [4.0, 2.0, 40.0, 20.0])


def test_a_set_that_would_not_fit_asks_fewer_questions_rather_than_smaller_ones(tmp_path) -> None:
    for number in range(6):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(tmp_path / f"{number}.png")
    samples = tuple(Sample(path) for path in sorted(tmp_path.iterdir()))

    questions = ask_from(
        Dataset(tmp_path, samples, Files()), resizing(), count=6, output="found", reference_bytes=1_000_000
    )

    assert [one["image"].shape for one in questions.inputs] == [(8, 8, 1)] * 3


def test_void_pixels_of_a_mask_are_nobodys(tmp_path) -> None:
    Image.fromarray(np.array([[1, 255], [0, 2]], np.uint8)).save(tmp_path / "mask.png")
    kept = Kept(Sample(Path("a.png"), MaskFile(tmp_path / "mask.png")), (2.0, 2.0), (4, 4))

    truth = truth_of([kept], "classes")

    assert truth is not None
    (mask,) = truth.masks["classes"]
    assert mask is not None
    assert unpack_mask(mask).tolist() == [[1, 1, -1, -1], [1, 1, -1, -1], [0, 0, 2, 2], [0, 0, 2, 2]]


def test_a_crowd_is_no_single_object() -> None:
    truth = truth_of([Kept(Sample(Path("a.png"), objects((5, 2), crowd=True)))], "found")

    assert truth is not None
    assert truth.objects == {"found": [[]]}


@pytest.mark.parametrize(
    ("truths", "values"), [([(1.0,), None], {"y": [[1.0], None]}), ([None, None], None), ([1, None], {})]
)
def test_what_nobody_knows_stays_unknown(truths, values) -> None:
    truth = truth_of([Kept(Sample(Path("a"), truth)) for truth in truths], "y")

    assert (truth.values if truth else None) == values


@pytest.mark.parametrize(
    ("numbers", "dtype"), [([0, 20], "uint8"), ([-1, 100], "int8"), ([-1, 200], "int16"), ([0.5], "float64")]
)
def test_integers_are_stored_in_the_smallest_type_that_holds_them(numbers, dtype) -> None:
    stored = narrowed(np.array(numbers))

    assert (stored.dtype.name, stored.tolist()) == (dtype, numbers)
