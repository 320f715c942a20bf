"""Accelerators that fail: the CPU answers meanwhile, nobody's call is lost, and the accelerator gets another chance."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from edge_runtime.contract import reasons
from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.inference.backend import BACKENDS
from edge_runtime.inference.blame import EngineFault
from edge_runtime.inference.requests.refusals import Cancelled, Closed
from edge_runtime.serving.backoff import Backoff
from edge_runtime.serving.calls import Reply
from edge_runtime.serving.events import Event, Happened
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.instance import LocalInstance
from edge_runtime.serving.seat import Seat
from edge_runtime.serving.seating import ServedState
from tests.fakes.faulty_backend import ENGINE, Faults, FaultyBackend, accelerated_facts
from tests.unit.serving.releases import about, accelerated, brightest, plain, png
from tests.unit.serving.threads import no_threads

FACTS = accelerated_facts()
BROKEN = EngineFault("run the model", "the accelerator was unplugged")
NEVER = Backoff(first_s=1e6, cap_s=1e6)
AT_ONCE = Backoff(first_s=0.01, cap_s=0.05)


class Stage:
    """A host whose accelerator fails on demand, and what it told its listener."""

    def __init__(self, backoff: Backoff) -> None:
        self.faults = Faults()
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.host = ModelHost(
            facts=FACTS, backoff=backoff, on_event=self.events.put,
            registry={**BACKENDS, ENGINE: FaultyBackend(self.faults)},
        )  # fmt: skip

    def wait_for(self, what: Happened) -> Event:
        while (event := self.events.get(timeout=60)).what is not what:
            pass
        return event


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return accelerated(tmp_path_factory.mktemp("accelerated"))


@pytest.fixture
def quiet() -> Iterator[Stage]:
    """Nothing is tried again on its own."""
    stage = Stage(NEVER)
    with stage.host:
        yield stage


@pytest.fixture
def eager() -> Iterator[Stage]:
    """What failed is tried again at once."""
    stage = Stage(AT_ONCE)
    with stage.host:
        yield stage


def test_a_healthy_accelerator_answers(quiet: Stage, release: Path) -> None:
    served = quiet.host.load(release)

    assert (served.state, served.variant) == (ServedState.READY, "npu")


def test_an_accelerator_that_fails_at_load_leaves_the_model_on_the_cpu_and_says_why(
    quiet: Stage, release: Path
) -> None:
    quiet.faults.at_open = InferenceError("load the delegate", "no device was found", code=reasons.LOAD_FAILED)

    served = quiet.host.load(release)

    assert (served.state, served.variant) == (ServedState.DEGRADED, "cpu")
    assert brightest(served.call(about(2))) == 2
    event = quiet.wait_for(Happened.DEGRADED)
    assert (event.reason, event.variant) == (reasons.LOAD_FAILED, "cpu")
    assert "no device was found" in event.detail


def test_a_call_whose_accelerator_fails_in_mid_run_is_answered_by_the_cpu(quiet: Stage, release: Path) -> None:
    served = quiet.host.load(release)
    quiet.faults.at_run = BROKEN

    reply = served.call(about(3))

    assert brightest(reply) == 3
    assert (served.state, served.variant) == (ServedState.DEGRADED, "cpu")
    statistics = served.statistics()
    assert (statistics.success.count, statistics.fail.count, statistics.faults) == (1, 0, 1)
    event = quiet.wait_for(Happened.DEGRADED)
    assert (event.reason, event.variant) == (reasons.ENGINE_FAILED, "cpu")


def test_a_fault_where_the_system_has_no_thread_to_give_is_made_good_all_the_same(
    eager: Stage, release: Path
) -> None:
    served = eager.host.load(release)
    former = served._place.live.seating.seat
    assert former is not None
    eager.faults.at_run = BROKEN

    with no_threads():
        reply = served.call(about(3))
        assert brightest(reply) == 3
        assert (served.state, served.variant) == (ServedState.DEGRADED, "cpu")
    eager.faults.at_run = None

    assert eager.wait_for(Happened.RECOVERED).variant == "npu"
    assert (served.state, brightest(served.call(about(0)))) == (ServedState.READY, 0)
    while not is_closed(former):
        pass


def is_closed(seat: Seat) -> bool:
    """Whether what answered there has left memory."""
    assert isinstance(seat.instance, LocalInstance)
    try:
        seat.instance.model.infer({"image": png(0)})
    except Closed:
        return True
    return False


def test_a_submitted_call_whose_accelerator_fails_is_answered_by_the_cpu(quiet: Stage, release: Path) -> None:
    served = quiet.host.load(release)
    quiet.faults.at_run = RuntimeError("whatever a driver raises")
    outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()

    served.submit(about(1), outcomes.put)

    outcome = outcomes.get(timeout=60)
    assert isinstance(outcome, Reply)
    assert brightest(outcome) == 1
    assert served.variant == "cpu"


def test_an_accelerator_that_works_again_gets_its_model_back(eager: Stage, release: Path) -> None:
    served = eager.host.load(release)
    eager.faults.at_run = BROKEN
    served.call(about(0))

    eager.faults.at_run = None
    event = eager.wait_for(Happened.RECOVERED)

    assert event.variant == "npu"
    assert (served.state, served.variant) == (ServedState.READY, "npu")
    assert brightest(served.call(about(0))) == 0
    served._place.live.seating.vacate()
    assert brightest(served.call(about(0))) == 0
    assert served.variant == "npu"


def test_an_accelerator_that_answers_wrongly_after_its_fault_does_not_come_back(eager: Stage, release: Path) -> None:
    served = eager.host.load(release)
    eager.faults.at_run = BROKEN
    served.call(about(0))
    opened = eager.faults.opened

    # It loads again, but its golden questions cannot be answered.
    while eager.faults.opened < opened + 3:
        served.call(about(1))

    assert (served.state, served.variant) == (ServedState.DEGRADED, "cpu")


def test_without_a_stand_in_the_fault_is_the_answer_and_the_next_call_is_tried(quiet: Stage, tmp_path: Path) -> None:
    served = quiet.host.load(accelerated(tmp_path, has_stand_in=False))
    quiet.faults.at_run = BROKEN

    with pytest.raises(InferenceError, match="unplugged") as refusal:
        served.call(about(0))
    quiet.faults.at_run = None
    reply = served.call(about(0))

    assert refusal.value.code == reasons.ENGINE_FAILED
    assert brightest(reply) == 0
    statistics = served.statistics()
    assert (statistics.success.count, statistics.fail.count) == (1, 1)


@pytest.mark.parametrize("fault", [MemoryError(), RuntimeError("nothing goes")], ids=["memory", "engine"])
def test_a_model_that_does_not_fit_is_one_clear_refusal_and_others_go_on(
    quiet: Stage, tmp_path: Path, fault: Exception
) -> None:
    other = quiet.host.load(plain(tmp_path, "1.0.0"), name="other")
    quiet.faults.at_open = fault

    with pytest.raises(InferenceError) as refusal:
        quiet.host.load(accelerated(tmp_path, has_stand_in=False))

    assert refusal.value.code == (reasons.MEMORY if isinstance(fault, MemoryError) else reasons.LOAD_FAILED)
    assert brightest(other.call(about(2))) == 2
    assert [one.name for one in quiet.host.models()] == ["other"]


def test_a_model_that_runs_out_of_memory_at_its_golden_set_is_refused_and_holds_none(
    quiet: Stage, tmp_path: Path
) -> None:
    quiet.faults.at_run = MemoryError()

    with pytest.raises(InferenceError) as refusal:
        quiet.host.load(accelerated(tmp_path, has_stand_in=False))

    assert refusal.value.code == reasons.MEMORY
    assert quiet.host.used_bytes == 0


def test_a_submitted_call_hears_that_its_model_runs_out_of_memory_as_it_comes_back(
    quiet: Stage, tmp_path: Path
) -> None:
    served = quiet.host.load(accelerated(tmp_path, has_stand_in=False))
    seating = quiet.host._names["pixels"].live.seating
    seating.vacate()
    seating._checked.clear()
    quiet.faults.at_run = MemoryError()
    outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()

    served.submit(about(1), outcomes.put)

    outcome = outcomes.get(timeout=60)
    assert isinstance(outcome, EdgeError)
    assert outcome.code == reasons.MEMORY


def test_a_call_that_waited_for_its_model_can_still_be_withdrawn_from_the_line(
    quiet: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = quiet.host.load(accelerated(tmp_path, has_stand_in=False))
    seating = quiet.host._names["pixels"].live.seating
    seating.vacate()
    quiet.faults.blocks = gate = threading.Event()
    outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()
    others: SimpleQueue[Reply | EdgeError] = SimpleQueue()

    def at_once(job: Callable[[], object]) -> None:
        monkeypatch.undo()
        for _ in range(seating.seated(None).admission.slots):
            served.submit(about(0), others.put)
        job()

    # The model is there, and busy, before whoever submitted the call has come back.
    monkeypatch.setattr(quiet.host._keeper.caretaker, "soon", at_once)
    ticket = served.submit(about(1), outcomes.put)
    is_withdrawn = ticket.cancel()
    gate.set()

    assert is_withdrawn
    assert isinstance(outcomes.get(timeout=60), Cancelled)
    assert isinstance(others.get(timeout=60), Reply)


def test_callers_of_a_model_that_cannot_come_back_do_not_share_one_error(quiet: Stage, tmp_path: Path) -> None:
    served = quiet.host.load(accelerated(tmp_path, has_stand_in=False))
    quiet.host._names["pixels"].live.seating.vacate()
    quiet.faults.at_open = RuntimeError("nothing goes")
    refusals: list[InferenceError] = []

    for _ in range(3):
        with pytest.raises(InferenceError, match="nothing goes") as refusal:
            served.call(about(0))
        refusals.append(refusal.value)

    assert served.state is ServedState.FAILED
    # One object would gather the tracebacks of all, and with them what they sent.
    assert len(set(map(id, refusals))) == len(refusals)
    outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()
    served.submit(about(0), outcomes.put)
    assert isinstance(outcomes.get(timeout=60), InferenceError)
    assert served.statistics().fail.count == len(refusals) + 1
