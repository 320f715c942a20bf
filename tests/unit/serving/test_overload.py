"""Overload: what comes too late is never begun, and what finds no room is told when to ask again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from time import monotonic

import pytest

from edge_runtime.contract.errors import EdgeError
from edge_runtime.inference.refusals import Cancelled, DeadlinePassed, Overloaded
from edge_runtime.serving.calls import Reply
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
        jam.submit(soon if number % 2 else None)
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
