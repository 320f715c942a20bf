"""The live model and its trials, with the real engine: swaps, blame, and candidates that take their process down."""

from __future__ import annotations

import io
import os
import struct
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.agent.workload import EngineLimits, LiveModel, ProcessBench, open_activation
from edge_runtime.contract import reasons
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.contract.ids import TargetPath, VariantId
from edge_runtime.contract.layout import LayoutFolder
from edge_runtime.inference.facts import engines, machine_facts
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.preprocessing.preprocess import Preprocessor
from edge_runtime.update.ports import Interrupted, TrialRequest
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore
from tests.fakes.models import WEIGHTS
from tests.fakes.pixels import picture, write_pixels

LIMITS = EngineLimits(("onnxruntime",), 1, None)
FACTS = machine_facts(engines(["onnxruntime"]))


def stored(store: ContentStore, layout: Path, seq: int) -> Activation:
    """A release in the device's store, as an installation leaves it."""
    folder = LayoutFolder(layout)
    release = folder.open()
    for blob in folder.blobs():
        store.put(folder.path_of(blob.digest).read_bytes())
    (entry,) = release.index.variants
    return Activation(
        seq=seq, target=TargetPath("models/pixels/1"), release=release.digest, release_bytes=release.index.size_bytes,
        variant=VariantId(entry.id), variant_digest=entry.digest, parameters={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("device") / "store"


@pytest.fixture(scope="module")
def store(root: Path) -> ContentStore:
    return ContentStore(root)


@pytest.fixture(scope="module")
def good(store: ContentStore, tmp_path_factory: pytest.TempPathFactory) -> Activation:
    layout = tmp_path_factory.mktemp("good") / "layout"
    write_pixels(layout, "1.0.0")
    return stored(store, layout, 1)


@pytest.fixture(scope="module")
def wrong(store: ContentStore, tmp_path_factory: pytest.TempPathFactory) -> Activation:
    layout = tmp_path_factory.mktemp("wrong") / "layout"
    write_pixels(layout, "2.0.0", weights=np.flipud(WEIGHTS).copy())
    return stored(store, layout, 2)


@pytest.fixture(scope="module")
def endless(store: ContentStore, good: Activation) -> Activation:
    """A candidate whose trial waits for ever, on a fast machine too: nobody writes into the pipe it reads."""
    activation = replace(good, release=digest_of(b"a pipe"))
    os.mkfifo(store.path_of(activation.release))
    return activation


def encoded(brightest: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(brightest)[:, :, 0]).save(buffer, "png")
    return buffer.getvalue()


def bench(root: Path, timeout_s: float = 100.0, limits: EngineLimits = LIMITS) -> ProcessBench:
    return ProcessBench(str(root), limits, FACTS, timeout_s)


def test_a_live_model_answers_and_a_picture_that_cannot_be_read_is_not_its_fault(
    store: ContentStore, good: Activation
) -> None:
    live = LiveModel(store, LIMITS, FACTS)
    assert live.ask_encoded(encoded(2)) is None

    live.activate(good)
    answered, refused = live.ask_encoded(encoded(2)), live.ask_encoded(b"no picture")

    assert answered is not None
    assert answered.answer is not None
    assert answered.answer["classes"].labels[0] == "two"  # type: ignore[union-attr]
    assert refused is not None
    assert (refused.answer, refused.error) == (None, "bad_input")
    health = live.health()
    assert (health.loaded, health.requests, health.errors) == (good.variant_digest, 1, 0)
    live.deactivate()
    assert live.health().loaded is None


def test_a_model_that_fails_its_golden_set_does_not_replace_what_answers(
    store: ContentStore, good: Activation, wrong: Activation
) -> None:
    live = LiveModel(store, LIMITS, FACTS)
    live.activate(good)

    with pytest.raises(InferenceError) as refusal:
        live.activate(wrong)

    assert refusal.value.code == reasons.GOLDEN_FAILED
    assert live.health().loaded == good.variant_digest
    LiveModel(store, LIMITS, FACTS, check_golden=False).activate(wrong)


def test_only_the_named_variant_of_the_named_release_is_opened(store: ContentStore, good: Activation) -> None:
    with open_activation(store, good, LIMITS, FACTS) as model:
        assert (model.release_digest, model.variant_digest) == (good.release, good.variant_digest)


def test_a_trial_measures_the_candidate_beside_what_runs(root: Path, good: Activation, wrong: Activation) -> None:
    measured = bench(root).trial(TrialRequest(wrong, running=good))

    assert measured.failure is None
    assert [check.passed for check in measured.checks] == [False, False]
    assert measured.p50_ms is not None
    assert measured.running_p50_ms is not None
    assert (measured.peak_bytes or 0) > 10 * 2**20
    assert measured.engine.startswith("onnxruntime ")


def test_a_trial_that_takes_too_long_is_ended_and_says_so(root: Path, endless: Activation) -> None:
    measured = bench(root, timeout_s=0.5).trial(TrialRequest(endless, running=None))

    assert measured.failure is not None
    assert measured.failure.code == reasons.TOO_SLOW


def test_a_trial_that_dies_says_nothing_else_than_that(root: Path, good: Activation) -> None:
    starved = bench(root, limits=EngineLimits(("onnxruntime",), 1, 24 * 2**20))

    failure = starved.trial(TrialRequest(good, running=None)).failure

    assert failure is not None
    assert failure.code in {reasons.MEMORY, reasons.LOAD_FAILED, reasons.CRASH_LOOP}


def test_a_trial_that_the_agent_ends_is_no_verdict_about_the_candidate(root: Path, endless: Activation) -> None:
    ended = bench(root)
    threading.Timer(0.2, ended.stop).start()

    with pytest.raises(Interrupted):
        ended.trial(TrialRequest(endless, running=None))


@pytest.mark.parametrize("fault", [ValueError("x"), IndexError("x"), MemoryError(), ContractError("x", "y")])
def test_whatever_a_broken_model_causes_is_counted_and_the_device_goes_on(
    store: ContentStore, good: Activation, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    live = LiveModel(store, LIMITS, FACTS)
    live.activate(good)

    def fail(*_: object) -> None:
        raise fault

    with monkeypatch.context() as broken:
        broken.setattr(Predictor, "interpret", fail)
        failed = live.ask_encoded(encoded(2))
    answered = live.ask_encoded(encoded(2))

    assert failed is not None
    assert failed.answer is None
    assert failed.error == ("contract" if isinstance(fault, ContractError) else "inference")
    assert answered is not None
    assert answered.answer is not None
    assert (live.health().requests, live.health().errors) == (2, 1)


def test_a_picture_that_breaks_its_parser_is_not_the_models_fault(
    store: ContentStore, good: Activation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveModel(store, LIMITS, FACTS)
    live.activate(good)

    def fail(*_: object) -> None:
        raise struct.error("unpack requires a buffer of 2 bytes")

    monkeypatch.setattr(Preprocessor, "decode", fail)
    answered = live.ask_encoded(encoded(2))

    assert answered is not None
    assert answered.error == "bad_input"
    assert (live.health().requests, live.health().errors) == (0, 0)


def test_a_model_that_breaks_at_its_golden_set_is_refused_as_the_update_machine_expects(
    store: ContentStore, good: Activation, wrong: Activation, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveModel(store, LIMITS, FACTS)
    live.activate(good)

    def fail(*_: object) -> None:
        raise ValueError("no class")

    with monkeypatch.context() as broken:
        broken.setattr(Predictor, "run_decoded", fail)
        with pytest.raises(InferenceError, match="it breaks at its golden set") as refusal:
            live.activate(wrong)

    assert refusal.value.code == reasons.LOAD_FAILED
    assert live.activation == good


def test_an_error_that_nobody_foresaw_is_one_line_with_a_reason(good: Activation) -> None:
    measurement = bench(Path("no\0folder")).trial(TrialRequest(candidate=good, running=None))

    assert measurement.failure
    assert measurement.failure.code == reasons.CRASH_LOOP
    assert "ValueError: " in measurement.failure.detail
    assert "Traceback" not in measurement.failure.detail
    assert "\n" not in measurement.failure.detail
