"""A shadow: a candidate answers live calls besides, what it says is compared, and clients see nothing of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from edge_runtime.contract.errors import ContractError, EdgeError, InferenceError
from edge_runtime.contract.ids import VariantId
from edge_runtime.inference.backend import BACKENDS
from edge_runtime.serving import seating
from edge_runtime.serving import shadow as shadow_module
from edge_runtime.serving.calls import Call, Reply, UnknownModel
from edge_runtime.serving.comparison import AnswerAgreement, Comparison, TensorAgreement
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.shadow import Shadow, ShadowReport
from tests.fakes.faulty_backend import ENGINE, Faults, FaultyBackend, accelerated_facts
from tests.unit.serving.releases import about, accelerated, brightest, plain

FACTS = accelerated_facts()
ALL_ROOM = 1000


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain(tmp_path_factory.mktemp("live"), "1.0.0")


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def host(live: Path, faults: Faults) -> Iterator[ModelHost]:
    with ModelHost(facts=FACTS, registry={**BACKENDS, ENGINE: FaultyBackend(faults)}) as host:
        host.load(live)
        yield host


def settled(shadow: Shadow, seen: int) -> ShadowReport:
    """The report once everything that was offered is compared, dropped or failed."""
    while (report := shadow.report()).compared + report.dropped + report.failed < seen:
        pass
    return report


def test_a_candidate_that_answers_alike_agrees(host: ModelHost, tmp_path: Path) -> None:
    shadow = host.shadow(plain(tmp_path, "2.0.0", 1.001), share=1.0, room=ALL_ROOM)
    served = host.find("pixels")

    replies = [served.call(about(number % 4, ("logits", "classes"))) for number in range(8)]
    report = settled(shadow, 8)

    assert {reply.version for reply in replies} == {"1.0.0"}
    assert (report.live, report.candidate) == ("1.0.0", "2.0.0")
    assert (report.seen, report.compared, report.dropped, report.failed) == (8, 8, 0, 0)
    logits, classes = report.agreement["logits"], report.agreement["classes"]
    assert isinstance(logits, TensorAgreement)
    assert logits.same_top == 1.0
    assert logits.snr_db == pytest.approx(60.0, abs=0.1)
    assert classes == AnswerAgreement(8, 1.0)


def test_a_candidate_that_sees_something_else_is_found_out(host: ModelHost, tmp_path: Path, faults: Faults) -> None:
    release = accelerated(tmp_path, "2.0.0", has_stand_in=False)
    shadow = host.shadow(release, share=1.0, room=ALL_ROOM)
    served = host.find("pixels")

    for number in range(4):
        served.call(about(number, ("classes",)))
    before = settled(shadow, 4)
    faults.at_run = RuntimeError("the accelerator was unplugged")
    reply = served.call(about(2))
    after = settled(shadow, 5)

    assert before.agreement["classes"] == AnswerAgreement(4, 1.0)
    assert brightest(reply) == 2
    assert (after.failed, after.reasons) == (1, {"engine_failed": 1})


def test_a_share_is_taken_evenly(host: ModelHost, tmp_path: Path) -> None:
    shadow = host.shadow(plain(tmp_path, "2.0.0"), share=0.25, room=ALL_ROOM)
    served = host.find("pixels")

    for _ in range(40):
        served.call(about(1))
    report = settled(shadow, 10)

    assert (report.seen, report.compared) == (40, 10)


def test_live_calls_do_not_wait_for_a_candidate_that_hangs(host: ModelHost, tmp_path: Path, faults: Faults) -> None:
    shadow = host.shadow(accelerated(tmp_path, "2.0.0", has_stand_in=False), share=1.0, room=2)
    faults.blocks = threading.Event()
    served = host.find("pixels")
    outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()

    replies = [served.call(about(number % 4)) for number in range(10)]
    served.submit(about(3), outcomes.put)
    submitted = outcomes.get(timeout=60)
    dropped = shadow.report().dropped
    faults.blocks.set()

    assert [brightest(reply) for reply in replies] == [number % 4 for number in range(10)]
    assert isinstance(submitted, Reply)
    # One runs, two wait.
    assert dropped >= 7


def test_what_a_caller_does_with_its_arrays_later_changes_no_comparison(
    host: ModelHost, tmp_path: Path, faults: Faults
) -> None:
    shadow = host.shadow(accelerated(tmp_path, "2.0.0", has_stand_in=False), share=1.0, room=ALL_ROOM)
    faults.blocks = threading.Event()
    pixels = np.full((1, 2, 2, 1), 7, np.uint8)

    reply = host.find("pixels").call(Call({"image": pixels}))
    pixels[:] = 255
    np.asarray(reply.tensors["logits"])[:] = 0
    faults.blocks.set()
    report = settled(shadow, 1)

    logits = report.agreement["logits"]
    assert isinstance(logits, TensorAgreement)
    assert logits.max_abs == 0.0


def test_a_stopped_shadow_leaves_and_another_may_come(host: ModelHost, tmp_path: Path) -> None:
    release = plain(tmp_path, "2.0.0")
    shadow = host.shadow(release, share=1.0)
    with pytest.raises(ContractError, match="one runs already"):
        host.shadow(release)
    used = host.used_bytes

    shadow.stop()
    host.find("pixels").call(about(0))

    assert shadow.report().seen == 0
    assert host.used_bytes < used
    host.shadow(release).stop()


def test_a_candidate_that_fails_its_golden_set_casts_no_shadow(host: ModelHost, tmp_path: Path) -> None:
    with pytest.raises(InferenceError) as refusal:
        host.shadow(plain(tmp_path, "2.0.0", -1.0))

    assert refusal.value.code == "golden_failed"
    with pytest.raises(UnknownModel):
        host.shadow(plain(tmp_path, "3.0.0"), name="nobody")
    with pytest.raises(ContractError, match="share"):
        host.shadow(plain(tmp_path, "4.0.0"), share=0.0)


def reply(**tensors: object) -> Reply:
    return Reply(tensors, "m", "1", VariantId("v"))  # type: ignore[arg-type]


def test_objects_agree_by_place_and_class() -> None:
    comparison = Comparison({"boxes": "detections"})
    here = [{"index": 1, "box": [0, 0, 10, 10]}, {"index": 2, "box": [50, 50, 60, 60]}]
    there = [{"index": 1, "box": [0, 0, 10, 9]}, {"index": 3, "box": [50, 50, 60, 60]}]

    comparison.add(*(reply(boxes=[json.dumps(one).encode()]) for one in (here, there)))

    assert comparison.read() == {"boxes": AnswerAgreement(1, 0.5)}


def test_answers_of_another_form_cannot_be_compared() -> None:
    comparison = Comparison({})
    numbers = np.zeros((1, 4), np.float32)

    for other in (reply(b=numbers), reply(a=[b"1"]), reply(a=np.zeros((2, 4), np.float32))):
        with pytest.raises(InferenceError):
            comparison.add(reply(a=numbers), other)


def test_a_candidate_that_hangs_does_not_hold_up_for_ever_whoever_stops_it(
    host: ModelHost, tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seating, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(shadow_module, "_PATIENCE_S", 0.01)
    shadow = host.shadow(accelerated(tmp_path, "2.0.0", has_stand_in=False), share=1.0)
    while faults.running.acquire(blocking=False):
        pass
    faults.blocks = threading.Event()
    host.find("pixels").call(about(1))
    faults.running.acquire(timeout=60)
    stopping = threading.Thread(target=shadow.stop, daemon=True)

    stopping.start()
    stopping.join(30)
    is_held_up = stopping.is_alive()
    faults.blocks.set()

    assert not is_held_up
