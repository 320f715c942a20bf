"""Tensors to answers."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.tensor import OutputSpec
from edge_runtime.inference.postprocessing.plain_answers import _best_first
from edge_runtime.inference.postprocessing.postprocess import compile_postprocess, parse_labels
from edge_runtime.inference.postprocessing.question_results import Boxes
from edge_runtime.inference.postprocessing.rendering import as_json, as_text
from edge_runtime.inference.postprocessing.results import Classes, Result, Scored, TensorAnswer, Values
from tests.fakes.models import release_manifest

LABELS = ("zero", "one", "two", "three")


def answers(step, tensor, labels=LABELS):
    manifest = release_manifest(["v"])
    outputs = [OutputSpec(name="out", kind="classes")]
    manifest = msgspec.structs.replace(
        manifest,
        signature=msgspec.structs.replace(manifest.signature, outputs=outputs),
        postprocess={"out": [{"from": "logits"} | step]},
    )
    tensors = {"logits": np.asarray(tensor, np.float32)}
    return [answer["out"] for answer in compile_postprocess(manifest, {"out": labels})(tensors)]


def test_the_best_classes_come_first_with_their_labels() -> None:
    (answer,) = answers({"op": "top_k", "activation": "none", "k": 2}, [[0.1, 0.7, 0.2, 0.0]])

    assert (answer.indices, answer.labels) == ((1, 2), ("one", "two"))
    assert answer.scores == pytest.approx((0.7, 0.2))


def test_softmax_adds_up_to_one_even_for_huge_logits() -> None:
    (answer,) = answers({"op": "top_k", "activation": "softmax", "k": 4}, [[1000.0, 1000.0, -1000.0, 0.0]])

    assert answer.scores[:2] == pytest.approx((0.5, 0.5))
    assert answer.indices[:2] == (0, 1)


def test_sigmoid_scores_each_class_alone() -> None:
    (answer,) = answers({"op": "top_k", "activation": "sigmoid", "k": 1}, [[0.0, -2000.0, -1.0, -5.0]])

    assert answer == Classes((0,), ("zero",), (0.5,))


def test_ignored_and_weak_classes_are_left_out() -> None:
    step = {"op": "top_k", "activation": "none", "k": 4, "min_score": 0.15, "ignore": [1]}

    (answer,) = answers(step, [[0.1, 0.7, 0.2, 0.0]])

    assert answer.indices == (2,)


def test_labels_may_start_after_the_background_and_missing_ones_show_the_index() -> None:
    (answer,) = answers({"op": "top_k", "activation": "none", "k": 4, "labels_offset": 2}, [[0.4, 0.3, 0.2, 0.1]])

    assert answer.labels == ("two", "three", "4", "5")


def test_no_more_classes_are_looked_at_than_are_asked_for_however_many_have_equal_scores() -> None:
    scores = np.zeros(1001)
    scores[[700, 30]] = 0.25, 0.75

    assert _best_first(scores, 5).tolist() == [30, 700, 0, 1, 2]


@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
def test_scores_that_are_not_numbers_are_no_answer(activation: str) -> None:
    (answer,) = answers({"op": "top_k", "activation": activation, "k": 4}, [[float("nan")] * 4])

    assert answer.top is None


def test_each_sample_of_a_batch_gets_its_own_answer() -> None:
    rows = np.eye(4)[[3, 1]]

    assert [one.top for one in answers({"op": "top_k", "activation": "none", "k": 1}, rows)] == [3, 1]


def test_one_number_is_a_score_and_more_are_refused() -> None:
    assert answers({"op": "score"}, [[0.25]]) == [Scored(0.25)]
    with pytest.raises(InferenceError, match="4 numbers"):
        answers({"op": "score"}, [[0, 0, 0, 0]])


def test_regression_has_scale_and_unit() -> None:
    assert answers({"op": "regression", "unit": "mm", "scale": 10.0}, [[0.5, 2.0]]) == [Values((5.0, 20.0), "mm")]


def test_an_embedding_may_be_made_of_unit_length() -> None:
    (unit,) = answers({"op": "embedding", "normalise": "l2"}, [[3.0, 4.0]])
    (zero,) = answers({"op": "embedding", "normalise": "l2"}, [[0.0, 0.0]])

    assert unit.array.tolist() == pytest.approx([0.6, 0.8])
    assert zero.array.tolist() == [0.0, 0.0]


def test_raw_tensors_travel_as_json_without_what_json_cannot_say() -> None:
    (answer,) = answers({"op": "raw"}, [[1.0, float("nan"), float("inf"), 2.0]])

    assert as_json(answer) == [1.0, None, None, 2.0]


def test_scores_and_boxes_travel_as_json_without_what_json_cannot_say() -> None:
    boxes = Boxes(np.array([[np.nan, 0.125, np.inf, 2]]), (0,), ("cat",), (0.5,))

    assert as_json(Classes((0,), ("cat",), (np.inf,))) == [{"index": 0, "label": "cat", "score": None}]
    assert as_json(boxes) == [{"index": 0, "label": "cat", "score": 0.5, "box": [None, 0.12, None, 2.0]}]


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (Classes((7, 3), ("seven", "3"), (0.98, 0.0061)), "seven (0.980), 3 (0.006)"),
        (Classes((), (), ()), "no class"),
        (Classes((7, 3, 1), ("seven", "3", "1"), (0.996, 0.0005, 0.0004)), "seven (0.996), 3 (0.001)"),
        (Classes((7, 3), ("seven", "3"), (0.0, 0.0)), "seven (0.000)"),
        (Classes((7, 3), ("seven", "3"), (-1.0, -2.0)), "seven (-1.000), 3 (-2.000)"),
        (Classes((7, 3), ("cougar, puma", "3"), (0.5, 0.25)), '"cougar, puma" (0.500), 3 (0.250)'),
        (Boxes(np.array([[0, 1, 2, 3]]), (0,), ("cat, big",), (0.5,)), '"cat, big" (0.500) at [0, 1, 2, 3]'),
        (Scored(0.5), "0.500"),
        (Values((5.0, 20.25), "mm"), "5, 20.25 mm"),
        (TensorAnswer(np.zeros((1, 5), np.float32)), "float32 [1, 5]: 0, 0, 0, 0, …"),
    ],
)
def test_a_person_reads_an_answer_in_one_short_line(result: Result, text: str) -> None:
    assert as_text(result) == text


def test_a_step_that_is_not_built_yet_is_named() -> None:
    step = {"op": "hysteresis", "on": 0.5, "off": 0.3, "min_on_ms": 1.0, "min_off_ms": 1.0, "pad_ms": 0.0}

    with pytest.raises(UnsupportedFeature, match="step hysteresis"):
        answers(step, [[0.0]])


def test_an_output_without_steps_is_refused_when_the_release_is_opened() -> None:
    manifest = msgspec.structs.replace(release_manifest(["v"]), postprocess={})

    with pytest.raises(ContractError, match="no postprocess steps"):
        compile_postprocess(manifest, {})


def test_a_label_list_is_text_with_one_label_a_line() -> None:
    assert parse_labels("é\r\nb\n".encode()) == ("é", "b")
    with pytest.raises(ContractError, match="not UTF-8"):
        parse_labels(b"\xff\xfe")


def test_an_empty_answer_is_refused() -> None:
    with pytest.raises(InferenceError, match="the model gave an empty tensor logits"):
        answers({"op": "top_k", "activation": "softmax", "k": 1}, np.zeros((1, 0)))


def test_a_label_cannot_steer_a_terminal() -> None:
    assert as_text(Classes((0,), ("\x1b]0;mine\x07dög\n",), (0.5,))) == r"\x1b]0;mine\x07dög\n (0.500)"
