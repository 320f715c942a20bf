"""Trials of candidates, with the real engine, some of which take their process down."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edge_runtime.agent.workload import EngineLimits, ProcessBench, open_activation
from edge_runtime.contract import reasons
from edge_runtime.contract.digest import digest_of
from edge_runtime.update.ports import Interrupted, TrialRequest
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore
from tests.unit.agent.stores import FACTS, LIMITS


@pytest.fixture(scope="module")
def endless(store: ContentStore, good: Activation) -> Activation:
    """A candidate whose trial waits for ever, on a fast machine too: nobody writes into the pipe it reads."""
    activation = replace(good, release=digest_of(b"a pipe"))
    os.mkfifo(store.path_of(activation.release))
    return activation


def bench(root: Path, timeout_s: float = 100.0, limits: EngineLimits = LIMITS) -> ProcessBench:
    return ProcessBench(str(root), limits, FACTS, timeout_s)


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


def test_an_error_that_nobody_foresaw_is_one_line_with_a_reason(good: Activation) -> None:
    measurement = bench(Path("no\0folder")).trial(TrialRequest(candidate=good, running=None))

    assert measurement.failure
    assert measurement.failure.code == reasons.CRASH_LOOP
    assert "ValueError: " in measurement.failure.detail
    assert "Traceback" not in measurement.failure.detail
    assert "\n" not in measurement.failure.detail
