"""A device takes a model that remembers over only when whole sequences come out right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_runtime import Model
from edge_runtime.agent.live import LiveModel
from edge_runtime.contract import reasons
from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import SlotId
from edge_runtime.contract.release import GoldenCheck
from edge_runtime.inference.checks.golden import pack_golden
from edge_runtime.update.ports import TrialRequest
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore
from tests.fakes.streams import FRAME, RATE_HZ, Hearing, noise, recording, remembering_model
from tests.unit.agent.stores import FACTS, LIMITS, stored
from tests.unit.agent.test_workload import bench

CHECKS = [
    GoldenCheck(against="float", metric="snr_db", on="output", min=30.0),
    GoldenCheck(against="own", metric="segment_iou", min=0.95),
]
SPEECH = noise(0.5) / 4
"""What the golden set asks."""


def golden(sound: np.ndarray, folder: Path) -> bytes:
    """A question, with what the model that is right answers to it."""
    Hearing().write(folder)
    with Model.open(folder, backends=["onnxruntime"]) as model:
        return pack_golden([{"audio": sound}], [model.predictor.run_decoded({"audio": sound})])


def installed(store: ContentStore, folder: Path, *, sound: np.ndarray = SPEECH, **wrong: float) -> Activation:
    """A release of a model that may be wrong, judged by the right one's answers."""
    hearing = Hearing(content=remembering_model(**wrong))
    hearing.write(folder / "layout", golden=golden(sound, folder / "right"), checks=CHECKS)
    return stored(store, folder / "layout", 1)


def test_a_model_that_remembers_is_taken_over_and_hears_a_whole_recording(store: ContentStore, tmp_path: Path) -> None:
    live = LiveModel(SlotId("main"), store, LIMITS, FACTS)

    live.activate(installed(store, tmp_path))
    answered = live.ask_encoded(recording(SPEECH, RATE_HZ))

    assert answered is not None
    assert answered.error is None
    assert answered.answer is not None
    track = answered.answer["speech"]
    assert len(track["scores"]) == -(-len(SPEECH) // FRAME)


@pytest.mark.parametrize("wrong", [{"begins_with": 1.0}, {"remembers": 0.0}])
def test_a_state_that_begins_elsewhere_or_is_forgotten_fails_the_golden_set(
    store: ContentStore, tmp_path: Path, wrong: dict[str, float]
) -> None:
    live = LiveModel(SlotId("main"), store, LIMITS, FACTS)
    candidate = installed(store, tmp_path, **wrong)

    with pytest.raises(InferenceError) as refusal:
        live.activate(candidate)

    assert refusal.value.code == reasons.GOLDEN_FAILED
    LiveModel(SlotId("main"), store, LIMITS, FACTS, check_golden=False).activate(candidate)


def test_a_question_of_a_single_step_would_not_have_noticed_a_state_that_is_forgotten(
    store: ContentStore, tmp_path: Path
) -> None:
    candidate = installed(store, tmp_path, sound=SPEECH[:FRAME], remembers=0.0)

    LiveModel(SlotId("main"), store, LIMITS, FACTS).activate(candidate)


def test_a_trial_asks_whole_sequences(root: Path, store: ContentStore, tmp_path: Path) -> None:
    candidate = installed(store, tmp_path, begins_with=1.0)
    running = installed(store, tmp_path / "running", sound=noise(4.0) / 4)

    measured = bench(root).trial(TrialRequest(candidate, running=running))

    assert measured.failure is None
    assert False in [check.passed for check in measured.checks]
    assert measured.p50_ms is not None
    assert measured.running_p50_ms is not None
