"""Detector families: boxes worked out by hand or by the family's own published code, in the caller's pixels."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.image_steps import Crop, Resize
from edge_runtime.contract.question_steps import Detect, Nms
from edge_runtime.inference.postprocessing.detect import Asked, Candidates, check_detect, find_candidates
from edge_runtime.inference.postprocessing.priors import square_priors
from edge_runtime.inference.postprocessing.suppression import iou_with, suppress
from edge_runtime.inference.preprocessing.geometry import place

SIZE = (20, 40)
"""Height, width of the model's input."""


def step(family="raw", **changes) -> Detect:
    plain = Detect(
        from_="boxes", family=family, score="cls", activation="none", box_format="xyxy", box_units="normalized",
        min_score=0.1, max=10,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def found(detect: Detect, priors=None, **tensors) -> Candidates:
    check_detect(detect)
    arrays = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
    return find_candidates(Asked(detect, arrays, SIZE, priors))


@pytest.mark.parametrize(
    ("form", "units", "box"),
    [
        ("xyxy", "normalized", [0.1, 0.2, 0.5, 0.8]),
        ("yxyx", "normalized", [0.2, 0.1, 0.8, 0.5]),
        ("cxcywh", "normalized", [0.3, 0.5, 0.4, 0.6]),
        ("xyxy", "input_px", [4, 4, 20, 16]),
        ("cxcywh", "input_px", [12, 10, 16, 12]),
    ],
)
def test_every_way_to_write_a_box_means_the_same_box(form: str, units: str, box: list[float]) -> None:
    one = found(step(scores="scores", box_format=form, box_units=units), boxes=[box], scores=[[0.2, 0.9]])

    assert one.boxes[0] == pytest.approx([4, 4, 20, 16], abs=1e-4)
    assert (one.classes.tolist(), one.scores.tolist()) == ([1], pytest.approx([0.9]))


def test_distances_from_cell_centres_are_boxes() -> None:
    distances = np.zeros((8, 4))
    distances[5] = [1, 0.5, 0.5, 0.5]
    detect = step(scores="scores", box_format="ltrb", box_units="grid", strides=[10])

    scores = np.eye(8)[5][:, None]

    assert found(detect, boxes=distances, scores=scores).boxes.tolist() == [[5, 10, 20, 20]]
    with pytest.raises(InferenceError, match="7 boxes for 8 cells"):
        found(detect, boxes=distances[:7], scores=scores[:7])


def test_rows_of_six_are_box_score_class() -> None:
    one = found(step(box_units="input_px"), boxes=[[1, 2, 3, 4, 0.8, 7], [1, 2, 3, 4, 0.05, 1]])

    assert (one.boxes.tolist(), one.classes.tolist()) == ([[1, 2, 3, 4]], [7])


def test_tflites_postprocessing_counts_its_boxes() -> None:
    detect = step("tflite_postprocess", box_format="yxyx", scores="scores", classes="classes", count="count")
    boxes = [[0.2, 0.1, 0.8, 0.5], [0, 0, 1, 1]]

    one = found(detect, boxes=boxes, scores=[0.7, 0.6], classes=[16, 3], count=[1])

    assert (one.classes.tolist(), one.boxes[0].tolist()) == ([16], pytest.approx([4, 4, 20, 16], abs=1e-4))


def test_ssd_offsets_start_from_priors_and_the_background_never_wins() -> None:
    priors = np.array([[0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.1, 0.1]])
    detect = step("ssd_priors", box_format="offsets", scores="scores", priors="layer:priors.npy", variances=[0.1, 0.2])
    offsets = [[1.0, -1.0, np.log(2) / 0.2, 0.0], [0, 0, 0, 0]]

    one = found(detect, priors, boxes=offsets, scores=[[0.6, 0.1, 0.3], [0.95, 0.02, 0.03]])

    assert one.classes.tolist() == [2]
    assert one.boxes[0] == pytest.approx([(0.52 - 0.2) * 40, (0.46 - 0.2) * 20, (0.52 + 0.2) * 40, (0.46 + 0.2) * 20])


def test_ultrafaces_priors_are_those_of_its_own_generator() -> None:
    strides, sides = [8, 16, 32, 64], [[10, 16, 24], [32, 48], [64, 96], [128, 192, 256]]
    expected = []
    for stride, lengths in zip(strides, sides, strict=True):
        for j in range(-(-240 // stride)):
            for i in range(-(-320 // stride)):
                for side in lengths:
                    expected.append([(i + 0.5) / (320 / stride), (j + 0.5) / (240 / stride), side / 320, side / 240])

    priors = square_priors((240, 320), strides, sides)

    assert priors.shape == (4420, 4)
    assert priors == pytest.approx(np.clip(expected, 0, 1))


def test_fastestdet_cells_hold_offset_share_objectness_and_classes() -> None:
    grid = np.full((7, 2, 4), -20.0)
    grid[0], grid[5:] = 0.0, 0.0
    grid[:, 1, 2] = [0.5, 0.3, -0.2, 0.0, -1.0, 0.4, 0.9]
    detect = step("fastestdet", score="obj^0.6*cls^0.4", box_format="offsets", box_units="grid")

    one = found(detect, boxes=grid)

    centre = np.array([(2 + np.tanh(0.3)) / 4 * 40, (1 + np.tanh(-0.2)) / 2 * 20])
    half = np.array([0.5 * 40, 1 / (1 + np.e) * 20]) / 2
    assert one.boxes[0] == pytest.approx([*(centre - half), *(centre + half)], rel=1e-6)
    assert (one.classes.tolist(), one.scores[0]) == ([1], pytest.approx(0.5**0.6 * 0.9**0.4))


def test_yolo_v5_and_v8_lie_across_each_other() -> None:
    row = [12, 10, 16, 12, 0.5, 0.2, 0.8]

    old = found(step("yolo_v5", score="obj*cls", box_format="cxcywh", box_units="input_px"), boxes=[row])
    new = found(step("yolo_v8", box_format="cxcywh", box_units="input_px"), boxes=np.array([row[:4] + row[5:]]).T)

    assert old.boxes[0] == pytest.approx([4, 4, 20, 16])
    assert (old.classes.tolist(), old.scores[0]) == ([1], pytest.approx(0.4))
    assert (new.boxes.tolist(), new.scores[0]) == (old.boxes.tolist(), pytest.approx(0.8))


def test_yolox_counts_from_the_corner_of_its_cells() -> None:
    rows = np.zeros((10, 6))
    rows[5] = [0.5, 0.25, np.log(2), 0.0, 0.9, 0.5]
    rows[9] = [0.5, 0.5, 0.0, 0.0, 0.8, 0.9]
    detect = step("yolox", score="obj*cls", box_format="cxcywh", box_units="grid", strides=[10, 20])

    one = found(detect, boxes=rows)

    assert one.boxes == pytest.approx(np.array([[5, 7.5, 25, 17.5], [20, 0, 40, 20]]))


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_logits_become_scores(activation: str) -> None:
    logits = np.array([[1.0, 3.0]])
    expected = {"sigmoid": 1 / (1 + np.exp(-3)), "softmax": np.exp(3) / (np.exp(1) + np.exp(3))}

    one = found(step(scores="scores", activation=activation), boxes=[[0, 0, 1, 1]], scores=logits)

    assert one.scores[0] == pytest.approx(expected[activation])


@pytest.mark.parametrize(
    ("changes", "because"),
    [
        ({"score": "cls-obj"}, "is no formula"),
        ({"score": "obj*cls"}, "its family has no objectness"),
        ({"family": "yolo_v5"}, "its family has objectness"),
        ({"family": "ultraface"}, "its family needs scores"),
        ({"family": "ultraface_raw", "scores": "s"}, "its family needs strides and anchor_sizes and variances"),
        ({"box_format": "ltrb"}, "need strides"),
        ({"variances": [0.1]}, "1 variances"),
    ],
)
def test_fields_that_make_no_detector_are_refused_before_a_model_is_loaded(changes, because: str) -> None:
    with pytest.raises(ContractError, match=because):
        check_detect(step(**changes))


def test_a_box_on_a_grid_that_no_family_publishes_is_refused() -> None:
    with pytest.raises(UnsupportedFeature, match="cxcywh on a grid is not built"):
        found(step("yolo_v8", box_format="cxcywh", box_units="grid"), boxes=np.ones((6, 1)))


def test_boxes_that_are_no_numbers_drop_out() -> None:
    assert len(found(step(), boxes=[[np.nan, 0, 1, 1, 0.9, 0], [0, 0, 1, 1, np.nan, 0]]).scores) == 0


def test_counts_and_classes_that_are_no_numbers_find_nothing() -> None:
    detect = step("tflite_postprocess", scores="scores", classes="classes", count="count")
    boxes, scores = [[0, 0, 1, 1]], [0.9]

    assert len(found(detect, boxes=boxes, scores=scores, classes=[1], count=[np.nan]).scores) == 0
    assert len(found(detect, boxes=boxes, scores=scores, classes=[np.nan], count=[1]).scores) == 0
    assert len(found(detect, boxes=boxes, scores=scores, classes=[1], count=[np.inf]).scores) == 1


def nms(**changes) -> Nms:
    plain = Nms(from_="detect", iou=0.5, per_class=False, kind="hard", in_graph=False)
    return msgspec.structs.replace(plain, **changes)


def candidates(rows) -> Candidates:
    numbers = np.asarray(rows, np.float64).reshape(-1, 6)
    return Candidates(numbers[:, :4], numbers[:, 4], numbers[:, 5].astype(np.int64))


OVERLAPPING = candidates(
    [[0, 0, 10, 10, 0.9, 0], [0, 0, 10, 9, 0.8, 1], [20, 0, 30, 10, 0.7, 0], [0, 0, 10, 4, 0.6, 0]]
)


def test_a_better_box_suppresses_what_it_covers() -> None:
    assert suppress(OVERLAPPING, nms(), min_score=0.1, most=10).scores.tolist() == [0.9, 0.7, 0.6]
    assert suppress(OVERLAPPING, nms(per_class=True), min_score=0.1, most=10).scores.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert suppress(OVERLAPPING, nms(), min_score=0.1, most=2).scores.tolist() == [0.9, 0.7]


def test_soft_suppression_lowers_scores_and_drops_what_becomes_too_weak() -> None:
    softened = suppress(OVERLAPPING, nms(kind="soft"), min_score=0.05, most=10)

    assert softened.scores == pytest.approx([0.9, 0.7, 0.6, 0.08])
    assert suppress(OVERLAPPING, nms(kind="soft"), min_score=0.1, most=10).scores == pytest.approx([0.9, 0.7, 0.6])


def test_a_model_that_suppressed_already_is_only_sorted() -> None:
    assert suppress(OVERLAPPING, nms(in_graph=True), min_score=0.1, most=10).scores.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert suppress(OVERLAPPING, None, min_score=0.1, most=1).scores.tolist() == [0.9]


PLACE, SIDE = st.integers(0, 20), st.integers(1, 20)
BOXES = st.lists(st.tuples(PLACE, PLACE, SIDE, SIDE, st.integers(1, 9), st.integers(0, 1)), max_size=12)


@given(BOXES, st.booleans())
def test_no_two_boxes_that_remain_overlap_too_much_and_the_best_always_remains(rows, per_class: bool) -> None:
    given_ = candidates([[x, y, x + w, y + h, s / 10, c] for x, y, w, h, s, c in rows])

    kept = suppress(given_, nms(iou=0.4, per_class=per_class), min_score=0.0, most=100)

    for first in range(len(kept.scores)):
        for second in range(first):
            apart = per_class and kept.classes[first] != kept.classes[second]
            assert apart or iou_with(kept.boxes[first], kept.boxes[second : second + 1])[0] <= 0.4
    assert list(kept.scores[:1]) == sorted(given_.scores, reverse=True)[:1]


def resize(mode, size, **rest) -> Resize:
    return Resize(id="r", mode=mode, size=size, filter="bilinear", antialias=True, **rest)


@pytest.mark.parametrize(
    ("steps", "box"),
    [
        ([resize("stretch", (50, 50))], [5, 10, 25, 50]),
        ([resize("fit_pad", (100, 100), pad_value=[0.0], pad_anchor="center")], [10, 35, 50, 75]),
        ([resize("fit_pad", (100, 100), pad_value=[0.0], pad_anchor="top_left")], [10, 10, 50, 50]),
        ([resize("fit_crop", (50, 50))], [-15, 10, 25, 50]),
        ([resize("shortest_side", (100, 100)), Crop(id="c", mode="center", size=(60, 60))], [-50, 0, 30, 80]),
    ],
)
def test_what_resizing_and_padding_did_is_undone(steps, box) -> None:
    """The picture is 50 high and 100 wide; the object covers x 10 to 50, y 10 to 50."""
    placement = place(steps, 50, 100)

    assert placement.to_picture(np.array([box], np.float64))[0] == pytest.approx([10, 10, 50, 50])


def test_boxes_are_cut_at_the_edges_of_the_picture() -> None:
    placement = place([resize("stretch", (50, 50))], 100, 100)

    assert placement.to_picture(np.array([[-5.0, -5.0, 60.0, 60.0]])).tolist() == [[0, 0, 100, 100]]


SIZES = st.tuples(st.integers(1, 300), st.integers(1, 300))


@given(SIZES, SIZES, st.sampled_from(["stretch", "fit_pad", "fit_crop"]))
def test_a_box_laid_into_the_input_comes_back_to_where_it_was(picture, wanted, mode: str) -> None:
    step_ = resize(mode, wanted, pad_value=[0.0], pad_anchor="center")
    placement = place([step_], *picture)
    height, width = picture
    there = np.array([[0.1 * width, 0.2 * height, 0.7 * width, 0.9 * height]])
    scale, offset = np.array([*placement.scale[::-1]] * 2), np.array([*placement.offset[::-1]] * 2)

    assert placement.to_picture(there * scale + offset) == pytest.approx(there)
    assert placement.size == wanted


@pytest.mark.parametrize(
    ("detect", "tensors"),
    [
        ({"family": "tflite_postprocess"}, {"scores": [0.5], "count": [2]}),
        ({"family": "tflite_postprocess"}, {"scores": [0.5, 0.5], "count": []}),
        ({"family": "raw"}, {"scores": [0.5]}),
        ({"family": "ultraface", "classes": None}, {"scores": [[0.5], [0.5]]}),
        ({"family": "raw", "classes": None}, {"scores": np.zeros((2, 0))}),
    ],
)
def test_tensors_that_do_not_fit_each_other_are_refused(detect, tensors) -> None:
    boxes = {"boxes": np.zeros((2, 4)), "classes": [1, 1]}

    with pytest.raises(InferenceError, match="cannot read the detector's tensors"):
        found(step(**({"scores": "scores", "classes": "classes", "count": "count"} | detect)), **(boxes | tensors))
