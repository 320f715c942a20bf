"""Several questions in one call of the engine, one question's samples in several: the answers stay the same."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_runtime import Model
from edge_runtime.inference.blame import BadInput
from edge_runtime.inference.postprocessing.results import Answer, Classes
from edge_runtime.inference.requests.refusals import DeadlinePassed
from edge_runtime.inference.requests.rows import cut, joined, kind_of, rows_of, split
from tests.fakes.faulty_backend import Faults, FaultyBackend
from tests.fakes.models import Build, averaging_classifier, write_release
from tests.fakes.pixels import picture
from tests.fakes.tuned import tuned_here


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write_release(tmp_path / "pixels", [Build("ort-fp32", samples=32)])
    return tmp_path / "pixels"


def opened(release: Path, faults: Faults, **wishes: Any) -> AbstractContextManager[Model]:
    """The release; `faults` counts the runs of its engine."""
    return Model.open(release, registry={"onnxruntime": FaultyBackend(faults, "onnxruntime")}, **wishes)


def png(brightest: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(brightest)[:, :, 0]).save(buffer, "png")
    return buffer.getvalue()


def asked(model: Model, brightest: Sequence[int], deadline: float | None = None) -> list[Answer]:
    questions = [{"image": png(one)} for one in brightest]
    return model.ask(lambda asker: asker.infer_all(questions, deadline))


def best(answers: list[Answer]) -> list[int]:
    classes = [answer["classes"] for answer in answers]
    return [one.indices[0] for one in classes if isinstance(one, Classes)]


@pytest.mark.parametrize(("count", "runs"), [(0, 0), (1, 1), (3, 1), (8, 1), (11, 2)])
def test_pictures_are_asked_at_once_and_answered_in_order(release: Path, count: int, runs: int) -> None:
    brightest = [(7 * number) % 4 for number in range(count)]
    faults = Faults()

    with opened(release, faults) as model:
        answers = asked(model, brightest)
        statistics = model.statistics()

    assert best(answers) == brightest
    assert (faults.runs, statistics.samples, statistics.failed) == (runs, count, 0)


def test_how_many_are_asked_at_once_is_as_tuned_unless_the_caller_wishes(release: Path, tmp_path: Path) -> None:
    tuned_here(release, tmp_path / "state", threads=None, batch=2)
    as_tuned, as_wished = Faults(), Faults()

    with opened(release, as_tuned, tuned=tmp_path / "state") as model:
        asked(model, [0] * 6)
    with opened(release, as_wished, tuned=tmp_path / "state", batch=3) as model:
        asked(model, [0] * 6)

    assert (as_tuned.runs, as_wished.runs) == (3, 2)


@pytest.mark.parametrize(("batch", "runs"), [(None, 1), (1, 5), (2, 3), (5, 1)])
def test_a_batch_is_fed_in_pieces_of_the_tuned_size(release: Path, batch: int | None, runs: int) -> None:
    pictures = np.stack([picture(number % 4) for number in range(5)])
    faults = Faults()

    with opened(release, faults, batch=batch) as model:
        first, again = model.infer_batch({"image": pictures}), model.infer_batch({"image": pictures})

    assert best(first) == best(again) == [0, 1, 2, 3, 0]
    assert faults.runs == 2 * runs


def test_a_variant_that_takes_one_at_a_time_is_asked_so(tmp_path: Path) -> None:
    write_release(tmp_path, [Build("ort-fp32")])
    faults = Faults()

    with opened(tmp_path, faults, batch=8) as model:
        answers = asked(model, [2, 1, 3])

    assert best(answers) == [2, 1, 3]
    assert faults.runs == 3


def test_a_variant_whose_answers_do_not_follow_its_rows_is_run_in_vain_once(tmp_path: Path) -> None:
    write_release(tmp_path, [Build("ort-fp32", samples=32, content=averaging_classifier())])
    faults = Faults()

    with opened(tmp_path, faults) as model:
        answers = [asked(model, [2, 1, 3]), asked(model, [0, 3])]

    assert [best(one) for one in answers] == [[2, 1, 3], [0, 3]]
    assert faults.runs == 1 + 3 + 2


def test_one_bad_question_fails_all_and_is_counted_once(release: Path) -> None:
    with opened(release, Faults()) as model:
        with pytest.raises(BadInput, match="decode an image"):
            model.ask(lambda asker: asker.infer_all([{"image": png(1)}, {"image": b"nonsense"}]))

        assert (model.statistics().bad_input, model.statistics().success) == (1, 0)


def test_questions_whose_deadline_passes_while_they_are_prepared_are_not_run(release: Path) -> None:
    faults = Faults()

    with opened(release, faults) as model, pytest.raises(DeadlinePassed):
        asked(model, [1, 2], deadline=time.monotonic())

    assert faults.runs == 0


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=6)


@given(SIZES, st.integers(1, 7))
def test_rows_that_are_joined_and_split_are_the_same(sizes: list[int], most: int) -> None:
    numbers = iter(range(100))
    parts = [
        {"x": np.array([[next(numbers)] for _ in range(size)]), "scale": np.array([2.0, 3.0])} for size in sizes
    ]

    whole = joined(parts, {"scale"})
    pieces = cut(whole, most, {"scale"})
    back = split({"x": whole["x"]}, sizes)

    assert len({kind_of(one, {"scale"}) for one in [*parts, whole, *pieces]}) == 1
    assert back is not None
    assert [one["x"].tolist() for one in back] == [one["x"].tolist() for one in parts]
    assert all(rows_of(piece, {"scale"}) <= most for piece in pieces)
    assert np.concatenate([piece["x"] for piece in pieces]).tolist() == whole["x"].tolist()
    assert all(piece["scale"].tolist() == [2.0, 3.0] for piece in pieces)
    assert split({"x": whole["x"][1:]}, sizes) is None
