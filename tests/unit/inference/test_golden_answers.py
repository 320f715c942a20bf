"""Golden checks on answers: what people labelled judges every kind of model, and nothing hostile gets in by a label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.codec import decode, encode
from edge_runtime.contract.errors import ContractError, UnsupportedFeature
from edge_runtime.contract.golden import TrueMask, Truth
from edge_runtime.contract.question_steps import Segment
from edge_runtime.inference.checks.golden import pack_golden, unpack_golden
from edge_runtime.inference.checks.golden_answers import (
    against_answers,
    against_truth,
    pack_mask,
    true_objects,
    unpack_mask,
)
from edge_runtime.inference.postprocessing import stream_results
from edge_runtime.inference.postprocessing.question_results import Anomaly, Boxes, Mask
from edge_runtime.inference.postprocessing.results import Answer, Classes, Result, Scored, Values
from edge_runtime.inference.postprocessing.segment import classes_of
from edge_runtime.inference.postprocessing.stream_results import Segments

NAN = float("nan")


def out(result: Result) -> Answer:
    return {"out": result}


def boxes(*found: tuple[list[float], int]) -> Boxes:
    corners = np.array([corners for corners, _ in found], np.float64).reshape(-1, 4)
    classes = tuple(label for _, label in found)
    return Boxes(corners, classes, tuple(map(str, classes)), (0.9,) * len(found))


def mask(*rows: list[int]) -> Mask:
    return Mask(np.array(rows), (), frozenset())


DOG = ([10.0, 10.0, 50.0, 60.0], 2)
CAT = ([80.0, 10.0, 99.0, 60.0], 1)
OBJECTS = Truth(objects={"out": [true_objects(np.array([DOG[0], CAT[0]]), [2, 1]), None]})
LABELS = Truth(labels={"out": [1, 0]})


@pytest.mark.parametrize(
    ("metric", "answers", "truth", "value"),
    [
        ("top1", [Classes((1, 0), ("1", "0"), (0.9, 0.1)), Classes((1,), ("1",), (0.9,))], LABELS, 0.5),
        ("top5", [Classes((0, 1), ("0", "1"), (0.9, 0.1)), Classes((), (), ())], LABELS, 0.5),
        ("box_f1", [boxes(DOG, CAT), boxes()], OBJECTS, 1.0),
        ("box_f1", [boxes(([12.0, 10.0, 50.0, 60.0], 2)), boxes(DOG)], OBJECTS, 2 / 3),
        ("box_f1", [boxes((DOG[0], 1)), boxes()], OBJECTS, 0.0),
        ("r2", [Values((1.0,), ""), Values((3.0,), "")], Truth(values={"out": [[1.0], [3.0]]}), 1.0),
        ("mae", [Values((1.0,), ""), Scored(3.0)], Truth(values={"out": [[1.5], [2.5]]}), 0.5),
        ("auc", [Anomaly(3.0, None), Scored(1.0)], LABELS, 1.0),
        ("auc", [Anomaly(1.0, None), Anomaly(1.0, None)], LABELS, 0.5),
        ("mean_iou", [mask([0, 1], [1, 1])], Truth(masks={"out": [pack_mask(np.array([[0, 1], [1, -1]]))]}), 1.0),
        ("mean_iou", [mask([1])], Truth(masks={"out": [pack_mask(np.array([[0, 1], [1, 1]]))]}), 3 / 8),
    ],
)
def test_truth_judges_every_kind_of_answer(metric, answers, truth, value) -> None:
    assert against_truth(metric, [out(one) for one in answers], truth) == pytest.approx(value)


@pytest.mark.parametrize(
    ("metric", "truth"),
    [
        ("top1", Truth(labels={"out": [None]})),
        ("r2", Truth(values={"out": [None]})),
        ("auc", Truth(labels={"out": [1]})),
        ("mean_iou", Truth(masks={"out": [None]})),
        ("top5", Truth()),
    ],
)
def test_a_metric_without_anything_to_judge_is_not_a_number_and_so_never_passes(metric, truth) -> None:
    kinds = {"r2": Values((1.0,), ""), "auc": Scored(1.0), "mean_iou": mask([0])}
    answer = kinds.get(metric, Classes((0,), ("0",), (1.0,)))

    assert np.isnan(against_truth(metric, [out(answer)], truth))


def test_an_answer_that_is_not_a_number_ranks_nowhere() -> None:
    assert np.isnan(against_truth("auc", [out(Anomaly(NAN, None)), out(Anomaly(1.0, None))], LABELS))


@pytest.mark.parametrize(
    ("metric", "answers", "references", "value"),
    [
        ("top1", [Classes((1,), ("1",), (0.9,))], [Classes((1,), ("1",), (0.6,))], 1.0),
        ("box_agreement", [boxes(DOG, CAT)], [boxes(DOG)], 2 / 3),
        ("box_agreement", [boxes()], [boxes()], 1.0),
        ("pixel_agreement", [mask([0, 1])], [mask([0, 2])], 0.5),
    ],
)
def test_two_variants_agree_by_what_they_answer(metric, answers, references, value) -> None:
    found = against_answers(metric, [out(one) for one in answers], [out(one) for one in references])

    assert found == pytest.approx(value)


@pytest.mark.parametrize("metric", ["word_error_rate", "snr_db", ""])
def test_a_metric_that_is_not_built_is_refused_rather_than_skipped(metric) -> None:
    with pytest.raises(UnsupportedFeature, match="against truth is not built"):
        against_truth(metric, [], Truth())
    with pytest.raises(UnsupportedFeature, match="on answers is not built"):
        against_answers(metric, [], [])


def test_a_truth_about_another_kind_of_answer_is_refused() -> None:
    with pytest.raises(ContractError, match="labels 'out', which gives no boxes"):
        against_truth("box_f1", [out(mask([0])), out(mask([0]))], OBJECTS)


def test_a_truth_of_another_length_is_refused_when_the_set_is_read() -> None:
    packed = pack_golden([{"x": np.zeros(1)}], [{"y": np.zeros(1)}], OBJECTS)

    with pytest.raises(ContractError, match="does not hold one entry for each of 1 samples"):
        unpack_golden(packed)


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_a_mask_comes_back_from_its_runs(height, width, data) -> None:
    classes = np.array(data.draw(st.lists(st.integers(-1, 3), min_size=height * width, max_size=height * width)))

    packed = decode(encode(pack_mask(classes.reshape(height, width))), TrueMask)

    assert unpack_mask(packed).tolist() == classes.reshape(height, width).tolist()


@pytest.mark.parametrize(
    "hostile",
    [
        TrueMask(height=2, width=2, runs=[(0, 3)]),
        TrueMask(height=2, width=2, runs=[(0, 5), (1, -1)]),
        TrueMask(height=0, width=0, runs=[]),
        TrueMask(height=1 << 20, width=1 << 20, runs=[(0, 1 << 40)]),
        TrueMask(height=1, width=1, runs=[(1 << 40, 1)]),
    ],
)
def test_a_mask_that_is_no_picture_takes_no_memory(hostile) -> None:
    with pytest.raises(ContractError, match="a mask"):
        unpack_mask(hostile)


def segmented(*rows: list[float]) -> Mask:
    step = Segment(from_="map", source="classmap", resize_to="input")
    return Mask(classes_of(step, np.array(rows, np.float32), None), (), frozenset())


def test_a_pixel_that_a_model_leaves_without_a_class_is_wrong_not_beyond_judgement() -> None:
    truth = Truth(masks={"out": [pack_mask(np.array([[0, 1], [1, 1]]))]})
    silent, negative = segmented([0, -1], [-1, -1]), segmented([-1, -7], [NAN, 1e30])

    assert against_truth("mean_iou", [out(silent)], truth) == pytest.approx(0.5)
    assert against_truth("mean_iou", [out(negative)], truth) == 0.0
    assert against_answers("pixel_agreement", [out(negative)], [out(mask([0, 1], [1, 1]))]) == 0.0
    assert against_answers("pixel_agreement", [out(negative)], [out(negative)]) == 0.0


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "int64", "float16", "float32", "float64"])
def test_a_class_map_of_any_type_is_read_without_overflow(dtype: str) -> None:
    step = Segment(from_="map", source="classmap", resize_to="input")

    with np.errstate(all="raise"):
        classes = classes_of(step, np.array([[0, 1], [20, 100]], dtype), None)

    assert classes.dtype == np.int32
    assert classes.tolist() == [[0, 1], [20, 100]]


def test_pixels_outside_a_crop_are_not_counted_and_another_size_agrees_nowhere() -> None:
    cropped = mask([1, -1], [2, -1])

    assert against_answers("pixel_agreement", [out(cropped)], [out(mask([1, -1], [3, -1]))]) == 0.5
    assert against_answers("pixel_agreement", [out(cropped)], [out(mask([1, 2, 3]))]) == 0.0


def test_masks_that_a_short_document_promises_take_no_memory_together() -> None:
    wide = TrueMask(height=4096, width=4096, runs=[(0, 1 << 24)])
    answers = [out(mask([0]))] * 16

    with pytest.raises(ContractError, match="its masks have over 16777216 pixels"):
        against_truth("mean_iou", answers, Truth(masks={"out": [wide] * 16}))


@pytest.mark.parametrize(
    ("metric", "answers", "truth", "because"),
    [
        ("box_f1", [boxes(DOG)], '{"objects":{"out":[[{"label":0,"box":[1,2,3]}]]}}', "not four"),
        ("box_f1", [boxes(DOG)], '{"objects":{"out":[[{"label":0,"box":[1]},{"label":0,"box":[]}]]}}', "not four"),
        ("r2", [Values((1.0,), ""), Values((1.0, 2.0), "")], '{"values":{"out":[[1],[1,2]]}}', "more or fewer numbers"),
    ],
)
def test_a_truth_of_another_form_is_one_clear_error(metric, answers, truth, because) -> None:
    with pytest.raises(ContractError, match=because):
        against_truth(metric, [out(one) for one in answers], decode(truth.encode(), Truth))


def test_streams_agree_by_the_time_in_which_both_find_segments() -> None:
    def said(*pieces: tuple[float, float]) -> dict[str, Segments]:
        return {"speech": Segments(tuple(stream_results.Segment(*piece) for piece in pieces), None)}

    assert against_answers("segment_iou", [said((0, 1), (2, 4))], [said((0, 1), (3, 5))]) == pytest.approx(2 / 4)
    assert against_answers("segment_iou", [said((0, 1)), said()], [said((0, 1)), said((0, 3))]) == pytest.approx(1 / 4)
    assert against_answers("segment_iou", [said()], [said()]) == 1.0
