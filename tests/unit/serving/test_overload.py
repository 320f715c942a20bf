"""Overload: what comes too late is never begun, and what finds no room is told when to ask again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from time import monotonic

import pytest

from edge_runtime.contract.errors import EdgeError
from edge_runtime.inference.requests import asker
from edge_runtime.inference.requests.refusals import Cancelled, DeadlinePassed, Overloaded
from edge_runtime.serving import seating
from edge_runtime.serving.calls import Call, Reply
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.served import Served
from tests.fakes.faulty_backend import Faults, FaultyBackend
from tests.unit.serving.releases import about, plain

LIMIT = 20


class Jam:
    """A served model whose engine holds every call until the test lets go."""

    def __init__(self, release: Path) -> None:
        self.faults = Faults()
        self.host = ModelHost(queue_limit=LIMIT, registry={"onnxruntime": FaultyBackend(self.faults, "onnxruntime")})
        self.served: Served = self.host.load(release)
        self.outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()
        while self.faults.running.acquire(blocking=False):
            pass
        self.faults.runs = 0
        self.gate = self.faults.blocks = threading.Event()
        seat = self.served._place.live.seating.seat
        assert seat is not None
        self.slots = seat.admission.slots
        for _ in range(self.slots):
            self.submit()
        for _ in range(self.slots):
            assert self.faults.running.acquire(timeout=60)

    def submit(self, deadline: float | None = None) -> None:
        self.served.submit(about(0, deadline=deadline), self.outcomes.put)

    def outcome(self) -> Reply | EdgeError:
        return self.outcomes.get(timeout=60)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain(tmp_path_factory.mktemp("plain"), "1.0.0")


@pytest.fixture
def jam(release: Path) -> Iterator[Jam]:
    jam = Jam(release)
    with jam.host:
        yield jam
        jam.gate.set()


def test_no_work_is_done_after_its_deadline(jam: Jam) -> None:
    soon = monotonic() + 0.02
    for number in range(LIMIT):
        if number % 2:
            # Whoever began to prepare it would find out that it is no picture.
            jam.served.submit(Call({"image": [b"no picture"]}, deadline=soon), jam.outcomes.put)
        else:
            jam.submit()
    while monotonic() <= soon:
        pass

    jam.gate.set()
    outcomes = [jam.outcome() for _ in range(jam.slots + LIMIT)]

    refused = [one for one in outcomes if isinstance(one, EdgeError)]
    assert len(refused) == LIMIT // 2
    assert all(isinstance(one, DeadlinePassed) for one in refused)
    assert jam.faults.runs == jam.slots + LIMIT // 2
    assert jam.served.statistics().expired == LIMIT // 2


def test_a_call_that_finds_no_room_is_told_when_to_ask_again(jam: Jam) -> None:
    for _ in range(LIMIT):
        jam.submit()

    jam.submit()
    refusal = jam.outcome()

    assert isinstance(refusal, Overloaded)
    assert refusal.retry_after_s > 0
    assert jam.served.statistics().rejected == 1


def test_a_cancelled_call_is_never_begun(jam: Jam) -> None:
    ticket = jam.served.submit(about(0), jam.outcomes.put)

    is_cancelled = ticket.cancel()
    outcome = jam.outcome()
    jam.gate.set()
    for _ in range(jam.slots):
        jam.outcome()

    assert is_cancelled
    assert isinstance(outcome, Cancelled)
    assert jam.faults.runs == jam.slots


def test_the_engine_is_not_asked_when_preparing_took_too_long(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults()
    with ModelHost(registry={"onnxruntime": FaultyBackend(faults, "onnxruntime")}) as host:
        served = host.load(release)
        before = faults.runs
        monkeypatch.setattr(asker, "monotonic", lambda: float("inf"))

        with pytest.raises(DeadlinePassed):
            served.call(about(0, deadline=monotonic() + 60))

        assert faults.runs == before
        assert served.statistics().expired == 1


def test_calls_that_wait_move_to_the_version_that_takes_over(jam: Jam, tmp_path: Path) -> None:
    for _ in range(3):
        jam.host.find("pixels").submit(about(0), jam.outcomes.put)
    jam.faults.blocks = None

    swapping = threading.Thread(target=jam.host.swap, args=[plain(tmp_path, "2.0.0")])
    swapping.start()
    moved = [jam.outcome() for _ in range(3)]
    jam.gate.set()
    stayed = [jam.outcome() for _ in range(jam.slots)]
    swapping.join(60)

    assert [one.version for one in moved if isinstance(one, Reply)] == ["2.0.0"] * 3
    assert [one.version for one in stayed if isinstance(one, Reply)] == ["1.0.0"] * jam.slots
    statistics = jam.served.statistics()
    assert (statistics.success.count, statistics.fail.count) == (jam.slots, 0)


def test_a_swap_does_not_wait_for_ever_for_calls_that_hang(
    jam: Jam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seating, "_PATIENCE_S", 0.01)
    jam.faults.blocks = None

    fresh = jam.host.swap(plain(tmp_path, "2.0.0"))
    was_closed = jam.faults.closed.acquire(blocking=False)
    reply = fresh.call(about(0))
    jam.gate.set()
    late = [jam.outcome() for _ in range(jam.slots)]

    assert not was_closed
    assert reply.version == "2.0.0"
    assert [one.version for one in late if isinstance(one, Reply)] == ["1.0.0"] * jam.slots
    assert jam.faults.closed.acquire(timeout=60)


def test_no_more_calls_wait_for_a_model_to_come_back_than_may_wait(release: Path) -> None:
    faults = Faults()
    outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()
    with ModelHost(queue_limit=2, registry={"onnxruntime": FaultyBackend(faults, "onnxruntime")}) as host:
        served = host.load(release)
        own = served._place.live.seating
        own.vacate()
        faults.blocks_open = threading.Event()
        for _ in range(3):
            served.submit(about(0), outcomes.put)
        while own._waiting < 2:
            pass

        served.submit(about(0), outcomes.put)
        refused = outcomes.get(timeout=60)
        faults.blocks_open.set()
        answered = [outcomes.get(timeout=60) for _ in range(3)]

        assert isinstance(refused, Overloaded)
        assert all(isinstance(one, Reply) for one in answered)
