"""Models in processes of their own: they answer as in this one, and their hangs, crashes and hunger stay theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest

from edge_runtime.contract import reasons
from edge_runtime.contract.errors import InferenceError
from edge_runtime.inference.backend import BACKENDS
from edge_runtime.inference.blame import BadInput
from edge_runtime.inference.requests.accounting import SAMPLES, Record
from edge_runtime.inference.requests.refusals import DeadlinePassed
from edge_runtime.serving.backoff import Backoff
from edge_runtime.serving.calls import Call, Reply, SequenceStep
from edge_runtime.serving.events import Event, Happened
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.seating import ServedState
from edge_runtime.serving.served import Served
from edge_runtime.serving.worker import WorkerInstance
from edge_runtime.serving.worker_limits import WorkerLimits
from tests.fakes.faulty_backend import ENGINE, FAULT_FILE, accelerated_facts
from tests.fakes.models import WEIGHTS, Build, four_pixel_classifier
from tests.fakes.pixels import write_pixels
from tests.fakes.streams import Hearing, noise
from tests.unit.serving.releases import about, accelerated, brightest, plain, png

FACTS = accelerated_facts()
ROOT = Path(__file__).resolve().parents[2]
REGISTRY = {**BACKENDS, ENGINE: "tests.fakes.faulty_backend:FileFaultyBackend"}
NEVER = Backoff(first_s=1e6, cap_s=1e6)
AT_ONCE = Backoff(first_s=0.01, cap_s=0.05)
PATIENT = WorkerLimits(answer_within_s=100.0)
HASTY = WorkerLimits(answer_within_s=3.0, load_within_s=60.0)


@pytest.fixture(autouse=True)
def fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets what goes wrong in the workers from now on."""
    path = tmp_path / "fault"
    path.write_text("")
    monkeypatch.setenv(FAULT_FILE, str(path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def set_fault(name: str) -> None:
        path.write_text(name)

    return set_fault


class Stage:
    """A host whose models run in workers, and what it told its listener."""

    def __init__(self, limits: WorkerLimits = PATIENT, backoff: Backoff = NEVER) -> None:
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.host = ModelHost(
            facts=FACTS, backoff=backoff, worker_limits=limits, on_event=self.events.put, registry=REGISTRY
        )

    def load(self, release: Path) -> Served:
        return self.host.load(release, isolation="process")

    def wait_for(self, what: Happened) -> Event:
        while (event := self.events.get(timeout=60)).what is not what:
            pass
        return event


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    stage = Stage()
    with stage.host:
        yield stage


@pytest.fixture(scope="module")
def served(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A healthy model in a worker."""
    return stage.load(plain(tmp_path_factory.mktemp("plain"), "1.0.0"))


def worker_of(served: Served) -> WorkerInstance:
    seat = served._place.live.seating.seat
    assert seat is not None
    assert isinstance(seat.instance, WorkerInstance)
    return seat.instance


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_model_in_a_process_of_its_own_answers_as_in_this_one(stage: Stage, served: Served, tmp_path: Path) -> None:
    here = stage.host.load(plain(tmp_path, "1.0.0"), name="here")
    before = served.statistics()
    calls = [about(2), Call({"image": [png(3), png(0)]}, ("logits", "classes"))]

    pairs = [(served.call(call), here.call(call)) for call in calls]

    for there, reference in pairs:
        assert there.tensors.keys() == reference.tensors.keys()
        np.testing.assert_array_equal(there.tensors["logits"], reference.tensors["logits"])
    assert pairs[1][0].tensors["classes"] == pairs[1][1].tensors["classes"]
    assert worker_of(served)._child.pid != os.getpid()
    statistics = served.statistics()
    assert statistics.success.count - before.success.count == 2
    assert statistics.inference_count - before.inference_count == 3
    assert statistics.compute_infer.ns > before.compute_infer.ns


def test_replies_keep_their_numbers_while_others_follow(served: Served) -> None:
    replies = [served.call(about(number % 4)) for number in range(8)]

    assert [brightest(reply) for reply in replies] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_calls_of_any_size_pass(served: Served) -> None:
    counts = [
        len(served.call(Call({"image": np.zeros((count, 2, 2, 1), np.uint8)})).tensors["logits"]) for count in (1, 8, 3)
    ]
    many = served.call(Call({"image": [png(number % 4) for number in range(200)]}))

    assert counts == [1, 8, 3]
    assert len(many.tensors["logits"]) == 200


def test_a_bad_call_is_refused_as_such_and_the_worker_goes_on(served: Served) -> None:
    pid = worker_of(served)._child.pid

    for bad in (Call({"picture": np.zeros(1)}), Call({"image": [b"no picture"]}), Call({"image": np.array([None])})):
        with pytest.raises(BadInput):
            served.call(bad)

    assert brightest(served.call(about(1))) == 1
    assert worker_of(served)._child.pid == pid


def test_a_worker_does_not_ask_its_engine_after_the_deadline(served: Served) -> None:
    record = Record()

    with pytest.raises(DeadlinePassed):
        # Past the waiting line, which would have refused it: it passes while the worker prepares the inputs.
        worker_of(served).answer(about(0, deadline=time.monotonic() - 1), record)

    assert record.counters[SAMPLES] == 0
    assert brightest(served.call(about(1, deadline=time.monotonic() + 600))) == 1


def test_a_worker_looks_for_nan_in_what_nobody_vouches_for(tmp_path: Path) -> None:
    unknown = {"x": np.full((1, 1, 2, 2), np.nan, np.float32)}
    with ModelHost(facts=FACTS, nan="reject", isolation="process") as host:
        served = host.load(plain(tmp_path, "1.0.0"))

        with pytest.raises(InferenceError, match="NaN"):
            served.call(Call(unknown))
        vouched = served.call(Call(unknown, is_vouched_for=True))

    assert np.isnan(vouched.tensors["logits"]).any()


def test_sequences_are_remembered_in_the_worker(stage: Stage, tmp_path: Path) -> None:
    Hearing().write(tmp_path / "vad")
    served, here = stage.load(tmp_path / "vad"), stage.host.load(tmp_path / "vad", name="also here")

    def heard(one: Served) -> list[Reply]:
        parts = np.array_split(noise(0.3), 3)
        steps = [SequenceStep(5, start=turn == 0, end=turn == 2) for turn in range(3)]
        return [one.call(Call({"audio": part}, sequence=step)) for part, step in zip(parts, steps, strict=True)]

    for there, reference in zip(heard(served), heard(here), strict=True):
        np.testing.assert_array_equal(there.tensors["output"], reference.tensors["output"])


def test_who_asks_for_the_sequences_of_a_worker_that_hangs_is_told_at_once(stage: Stage, tmp_path: Path) -> None:
    heard: dict[str, WorkerInstance] = {}
    for name, idle_ms in (("forgetful", 1.0), ("patient", 1e9)):
        Hearing().streaming(idle_ms=idle_ms).write(tmp_path / name)
        served = stage.host.load(tmp_path / name, name=name, isolation="process")
        served.call(Call({"audio": noise(0.1)}, sequence=SequenceStep(5, start=True)))
        heard[name] = worker_of(served)
        os.kill(heard[name]._child.pid, signal.SIGSTOP)

    while heard["forgetful"].open_sequences():
        pass

    assert list(heard["patient"].open_sequences()) == [5]
    assert not any(worker.is_gone for worker in heard.values()), "nobody waited until it was given up"
    for name, worker in heard.items():
        os.kill(worker._child.pid, signal.SIGCONT)
        stage.host.unload(name)


@pytest.mark.parametrize(("name", "reason"), [("hang", reasons.HUNG), ("crash", reasons.ENGINE_FAILED)])
def test_an_engine_that_hangs_or_crashes_loses_its_process_and_no_call(
    fault: Callable[[str], None], tmp_path: Path, name: str, reason: str
) -> None:
    stage = Stage(HASTY)
    with stage.host:
        served = stage.load(accelerated(tmp_path))
        pid = worker_of(served)._child.pid
        fault(name)

        reply = served.call(about(3))

        assert brightest(reply) == 3
        assert (served.state, served.variant) == (ServedState.DEGRADED, "cpu")
        event = stage.wait_for(Happened.DEGRADED)
        assert (event.reason, event.variant) == (reason, "cpu")
        assert not is_running(pid)
        statistics = served.statistics()
        assert (statistics.success.count, statistics.fail.count) == (1, 0)


def test_an_engine_that_hangs_while_it_loads_leaves_the_model_on_the_cpu(
    fault: Callable[[str], None], tmp_path: Path
) -> None:
    stage = Stage(WorkerLimits(load_within_s=10.0))
    with stage.host:
        fault("hang at load")

        served = stage.load(accelerated(tmp_path))

        assert (served.state, served.variant) == (ServedState.DEGRADED, "cpu")
        assert stage.wait_for(Happened.DEGRADED).reason == reasons.HUNG


def test_an_accelerator_that_works_again_gets_its_model_back(fault: Callable[[str], None], tmp_path: Path) -> None:
    stage = Stage(HASTY, AT_ONCE)
    with stage.host:
        served = stage.load(accelerated(tmp_path))
        fault("crash")
        served.call(about(0))

        fault("")
        event = stage.wait_for(Happened.RECOVERED)

        assert event.variant == "npu"
        assert (served.state, brightest(served.call(about(0)))) == (ServedState.READY, 0)


def test_a_worker_that_is_killed_costs_no_call_and_is_started_again_at_once(tmp_path: Path) -> None:
    stage = Stage()
    with stage.host:
        served = stage.load(plain(tmp_path, "1.0.0"))
        killed = worker_of(served)._child.pid
        os.kill(killed, signal.SIGKILL)

        reply = served.call(about(3))

        assert brightest(reply) == 3
        assert (served.state, worker_of(served)._child.pid != killed) == (ServedState.READY, True)
        assert "ended with signal 9" in stage.wait_for(Happened.RECOVERED).detail
        assert served.statistics().fail.count == 0


def test_a_worker_that_dies_again_soon_leaves_its_model_to_another_variant_for_the_cpu(tmp_path: Path) -> None:
    builds = [Build("first"), Build("second", content=four_pixel_classifier((WEIGHTS * 1.001).astype(np.float32)))]
    write_pixels(tmp_path / "two", "1.0.0", builds=builds)
    stage = Stage()
    with stage.host:
        served = stage.load(tmp_path / "two")
        meant = served.variant
        for pixel in (1, 2):
            os.kill(worker_of(served)._child.pid, signal.SIGKILL)
            assert brightest(served.call(about(pixel))) == pixel

        assert (served.state, served.variant != meant) == (ServedState.DEGRADED, True)
        assert served.statistics().fail.count == 0


def test_without_a_stand_in_a_crash_is_refused_until_the_worker_is_back(
    fault: Callable[[str], None], tmp_path: Path
) -> None:
    stage = Stage(HASTY, AT_ONCE)
    with stage.host:
        served = stage.load(accelerated(tmp_path, has_stand_in=False))
        fault("crash")

        with pytest.raises(InferenceError, match="signal 11") as refusal:
            served.call(about(0))
        fault("")
        stage.wait_for(Happened.RECOVERED)

        assert refusal.value.code == reasons.ENGINE_FAILED
        assert brightest(served.call(about(1))) == 1


def test_a_model_whose_worker_cannot_have_the_memory_is_refused_and_others_go_on(tmp_path: Path) -> None:
    stage = Stage(WorkerLimits(memory_bytes=24 * 2**20))
    with stage.host:
        other = stage.host.load(plain(tmp_path, "1.0.0"), name="other")

        with pytest.raises(InferenceError) as refusal:
            stage.host.load(plain(tmp_path, "2.0.0"), name="hungry", isolation="process")

        assert refusal.value.code == reasons.MEMORY
        assert "into the 24 MiB that its process may take" in str(refusal.value)
        assert brightest(other.call(about(2))) == 2
        assert [one.name for one in stage.host.models()] == ["other"]


@pytest.mark.parametrize("state", ["idle", "hang"])
def test_workers_die_with_their_host_whatever_they_are_doing(
    fault: Callable[[str], None], tmp_path: Path, state: str
) -> None:
    host = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.worker_host", str(accelerated(tmp_path)), state],
        stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    with host:
        assert host.stdout is not None
        pid = int(host.stdout.readline())
        assert is_running(pid)

        os.kill(host.pid, signal.SIGKILL)
        host.wait(60)

        # The kernel kills it at once, and init reaps it when it comes by.
        while is_running(pid):
            pass


def test_a_swap_stays_in_processes_and_leaves_none_behind(stage: Stage, served: Served, tmp_path: Path) -> None:
    before = worker_of(served)._child.pid

    fresh = stage.host.swap(plain(tmp_path, "2.0.0", 1.001))
    after = worker_of(fresh)._child.pid
    reply = fresh.call(about(1))
    was_running = is_running(after)
    stage.host.unload("pixels")

    assert (reply.version, was_running) == ("2.0.0", True)
    assert not is_running(before)
    assert not is_running(after)
