"""Asking the evaluation set: one sample in memory at a time, scored by labels and by the source model's answers."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.data.answers import AnswerWriter, check_answer_file, read_answers
from converters.data.datasets import Dataset
from converters.data.samples.files import Files
from converters.data.samples.sample import Sample
from converters.errors import BadRecipe, CannotWrite
from converters.evaluation.evaluate import Examination, interpreter_of, judge_answers
from converters.evaluation.metrics.choose import Task, task_of
from edge_runtime.contract.errors import InferenceError
from edge_runtime.inference.backend import Tensors
from edge_runtime.inference.postprocessing.results import Values
from edge_runtime.inference.preprocessing.preprocess import compile_preprocess
from tests.fakes.models import release_manifest

RELEASE = release_manifest(["v"])
SCORES = [np.eye(4, dtype=np.float32)[[label]] for label in (0, 1, 2, 3)]
"""The source model's answers: class k for sample k."""


def examination(folder: Path, *, labels: bool = True) -> Examination:
    with AnswerWriter(folder / "answers") as answers:
        for scores in SCORES:
            answers.append({"logits": scores})
    samples = tuple(Sample(Path(f"{number}.png"), number if labels else None) for number in range(len(SCORES)))
    task = task_of(RELEASE, metric=None, is_labelled=labels, folder=folder)
    dataset = Dataset(Path(), samples, Files())
    return Examination(dataset, compile_preprocess(RELEASE), interpreter_of(RELEASE), task, folder / "answers")


def answered(*scores: Any) -> Iterator[tuple[Tensors, Tensors]]:
    return ((({}), {"logits": one}) for one in scores)


def test_a_candidate_is_scored_by_labels_and_by_the_source_model(tmp_path) -> None:
    found = judge_answers(answered(SCORES[0], SCORES[1], SCORES[2], SCORES[0]), examination(tmp_path))

    assert found.score
    assert (found.score.metric, found.score.value, found.score.count) == ("top1", 0.75, 4)
    assert (found.agreement.metric, found.agreement.value) == ("top1_agreement", 0.75)
    # One of four unit vectors is another one: signal 4, noise 2.
    assert found.snr_db == pytest.approx(10 * np.log10(4 / 2))
    assert found.cosine == pytest.approx(3 / 4)


def test_a_part_of_the_set_is_spread_over_it_and_judged_by_what_the_source_model_said_to_it(tmp_path) -> None:
    whole = examination(tmp_path)
    part = whole.part(2)

    found = judge_answers(answered(SCORES[0], SCORES[1]), part)

    assert part.positions == (0, 2)
    assert found.score
    assert (found.score.value, found.score.count, found.agreement.value) == (0.5, 2, 0.5)
    assert whole.part(4) is whole


def test_without_labels_there_is_agreement_and_no_score(tmp_path) -> None:
    found = judge_answers(answered(*SCORES), examination(tmp_path, labels=False))

    assert (found.score, found.agreement.value, found.snr_db) == (None, 1.0, 200.0)


def test_answers_are_taken_one_at_a_time(tmp_path) -> None:
    alive: list[int] = []
    most = 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            if alive:
                alive.pop()

    def one_by_one() -> Iterator[tuple[Tensors, Tensors]]:
        nonlocal most
        for scores in SCORES:
            alive.append(1)
            most = max(most, len(alive))
            yield {}, {"logits": scores.copy().view(Counted)}

    judge_answers(one_by_one(), examination(tmp_path))

    # The one that is judged, and the one before it until the next is there.
    assert most <= 2


def test_an_answer_of_another_shape_is_no_answer(tmp_path) -> None:
    with pytest.raises(InferenceError, match=r"the reference has shape \[1, 4\], the answer \[1, 3\]"):
        judge_answers(answered(*[scores[:, :3] for scores in SCORES]), examination(tmp_path))


def test_answers_that_are_not_numbers_have_no_score(tmp_path) -> None:
    raw = examination(tmp_path)
    numbers = tuple(
        Sample(sample.path, (1.0, 2.0, 3.0, float(place))) for place, sample in enumerate(raw.dataset.samples)
    )
    task = Task("out", "values", "logits", "mae")
    asked = Examination(
        Dataset(Path(), numbers, Files()), raw.preprocessor,
        lambda tensors, _: [{"out": Values(tuple(tensors["logits"][0].tolist()), "")}], task, raw.answers,
    )  # fmt: skip

    with pytest.raises(InferenceError, match="its mae is nan, because answers are not numbers"):
        judge_answers(answered(*[scores * np.nan for scores in SCORES]), asked)


def test_answers_for_other_samples_than_were_asked_are_noticed(tmp_path) -> None:
    with pytest.raises(ValueError, match="argument 3 is shorter"):
        judge_answers(answered(*SCORES[:3]), examination(tmp_path))


def test_answers_come_back_from_disk_as_they_were(tmp_path) -> None:
    with AnswerWriter(tmp_path / "a") as writer:
        writer.append({"x": np.array([[1.5]], np.float32), "classes": np.zeros((40, 40), np.int64)})
        writer.append({"x": np.array([[2.5]], np.float32), "classes": np.ones((40, 40), np.int64)})

    first, second = read_answers(tmp_path / "a")

    assert (first["x"].item(), second["x"].item(), second["classes"].sum()) == (1.5, 2.5, 1600)
    assert (tmp_path / "a").stat().st_size < 1000


@pytest.mark.parametrize("count", [1, 1000])
def test_a_full_disk_is_said_to_be_full(count) -> None:
    def keep() -> None:
        with AnswerWriter(Path("/dev/full")) as writer:
            for _ in range(count):
                writer.append({"x": np.random.default_rng(0).standard_normal(1000)})

    with pytest.raises(CannotWrite, match="No space left on device; free some space"):
        keep()


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        ("map", "it is no metric of output classes; write top1 or top5 or module:function"),
        ("accuracy", "write top1 or top5"),
        ("absent_module:metric", "No module named 'absent_module'"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused_before_anything_runs(tmp_path, metric, says) -> None:
    with pytest.raises(BadRecipe, match=says):
        task_of(RELEASE, metric=metric, is_labelled=True, folder=tmp_path)


def test_a_task_without_labels_has_no_metric(tmp_path) -> None:
    assert task_of(RELEASE, metric="top5", is_labelled=False, folder=tmp_path) == Task(
        "classes", "classes", "logits", None, folder=tmp_path, is_long=False
    )


def test_weak_boxes_are_kept_for_the_precision_of_a_detector() -> None:
    from converters.evaluation.evaluate import _weaker

    detect = {"op": "detect", "min_score": 0.7, "max": 10}

    assert _weaker(detect) == {"op": "detect", "min_score": 0.01, "max": 100}
    assert _weaker({"op": "nms", "iou": 0.5}) == {"op": "nms", "iou": 0.5}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:5],
        lambda content: content[:8] + b"\0" * (len(content) - 8),
        lambda _: (1 << 60).to_bytes(8, "little") + b"x",
        lambda _: (len(zlib.compress(b"x"))).to_bytes(8, "little") + zlib.compress(b"x"),
    ],
)
def test_a_damaged_file_of_answers_is_known_before_anybody_is_judged_by_it(tmp_path: Path, damage) -> None:
    with AnswerWriter(tmp_path / "a") as writer:
        writer.append({"y": np.zeros((1, 3), np.float32)})
    check_answer_file(tmp_path / "a")
    (tmp_path / "a").write_bytes(damage((tmp_path / "a").read_bytes()))

    with pytest.raises(ValueError):
        check_answer_file(tmp_path / "a")
