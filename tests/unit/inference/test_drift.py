"""Sketches of confidence and inputs: sampled, merged, and seen through a real model."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import Model
from edge_runtime.contract.sketch import Sketch, merged
from edge_runtime.inference.postprocessing.question_results import Anomaly
from edge_runtime.inference.postprocessing.results import Answer, Scored, TensorAnswer
from edge_runtime.inference.requests.asker import LOOKED_AT
from edge_runtime.inference.requests.drift import Drift, grid_of
from tests.fakes.pipelines import boxes, classes
from tests.fakes.pixels import picture, write_pixels


def test_what_was_seen_goes_to_the_last_request_that_was_looked_at() -> None:
    drift = Drift()

    for number in (4, 12, 8):
        drift.look(number, [{"classes": classes("cat", 0.05 * number)}], {})

    found = drift.sketches()
    assert (found.seen, found.sampled) == (12, 3)
    assert Sketch.from_data(found.confidence["classes"]).mean == pytest.approx(0.4)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=3))
def test_what_is_kept_of_an_input_looks_like_the_whole_of_it(shape: list[int]) -> None:
    whole = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    of_whole, of_grid = Drift(), Drift()

    of_whole.look(1, [], {"image": whole})
    of_grid.look(1, [], {"image": grid_of(whole)})

    assert of_grid.sketches() == of_whole.sketches()
    assert max(grid_of(whole).shape) <= 64


def test_each_kind_of_answer_says_how_sure_it_is() -> None:
    drift = Drift()
    answer: Answer = {
        "objects": boxes(("a", 0.3, (0, 0, 1, 1)), ("b", 0.8, (0, 0, 1, 1))), "none": boxes(),
        "kind": classes("c", 0.5), "speech": Scored(0.25), "odd": Anomaly(7.0, None), "raw": TensorAnswer(np.zeros(3)),
    }  # fmt: skip

    drift.look(1, [answer], {})

    means = {name: Sketch.from_data(data).mean for name, data in drift.sketches().confidence.items()}
    assert means == {"objects": 0.8, "none": 0.0, "kind": 0.5, "speech": 0.25, "odd": 7.0}


def test_inputs_are_told_by_level_and_spread_in_their_own_units() -> None:
    drift = Drift()
    halves = np.concatenate([np.full((1, 50, 200, 3), 100, np.uint8), np.full((1, 50, 200, 3), 200, np.uint8)], axis=1)

    drift.look(1, [], {"image": halves, "file": b"bytes are not looked at", "empty": np.zeros(0)})

    found = {name: Sketch.from_data(data).mean for name, data in drift.sketches().inputs.items()}
    assert found == {"image.level": pytest.approx(150, rel=0.02), "image.spread": pytest.approx(50, rel=0.02)}


def test_sound_around_zero_has_a_level() -> None:
    drift = Drift()

    drift.look(1, [], {"audio": np.tile(np.array([0.5, -0.5], np.float32), 8000)})

    assert Sketch.from_data(drift.sketches().inputs["audio.level"]).mean == pytest.approx(0.5)


def test_numbers_that_are_none_are_left_out() -> None:
    drift = Drift()

    drift.look(1, [{"speech": Scored(float("nan"))}], {"x": np.full(4, np.nan)})

    assert Sketch.from_data(drift.sketches().confidence["speech"]).count == 0


def test_threads_lose_nothing_that_is_looked_at() -> None:
    drift = Drift()
    threads = [
        threading.Thread(target=lambda: [drift.look(1, [{"s": Scored(0.5)}], {}) for _ in range(200)]) for _ in range(4)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert (drift.sketches().sampled, Sketch.from_data(drift.sketches().confidence["s"]).count) == (800, 800)


def test_a_real_model_tells_and_two_devices_are_merged(tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    write_pixels(tmp_path, "1.0.0")
    told = []
    for shade in (0, 1):
        with Model.open(tmp_path, backends=["onnxruntime"]) as model:
            for _ in range(3 * LOOKED_AT - 1):
                model.infer({"image": picture(shade)})
            told.append(model.drift())

    both = merged(one.confidence["classes"] for one in told)
    assert [(one.seen, one.sampled) for one in told] == [(2 * LOOKED_AT, 2)] * 2
    assert both.count == 4
    assert 0.25 < (both.mean or 0) <= 1
    assert Sketch.from_data(told[0].inputs["image.level"]).mean == pytest.approx((250 + 3 * 20) / 4, rel=0.01)
