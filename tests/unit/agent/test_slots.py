"""The worker's question to the server: whatever goes wrong in it, the device asks again."""

from __future__ import annotations

import queue
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest

from edge_runtime.agent.clock import AgentClock
from edge_runtime.agent.director import Desired, Director
from edge_runtime.agent.slots import SlotsPorts, SlotsWorker
from edge_runtime.contract.device_state import Assignment, Reported, SlotState
from edge_runtime.contract.errors import TransportError, TrustError, UpdateError
from edge_runtime.contract.ids import SlotId
from edge_runtime.update.planner import Answer
from tests.fakes.documents import SLOT
from tests.fakes.update_world import START, Quality, World


class FastClock:
    """Time that passes whenever somebody looks at it."""

    def __init__(self) -> None:
        self._time_s = 0.0
        self._looks = 0

    def monotonic(self) -> float:
        self._time_s += 400.0
        return self._time_s

    def now(self) -> float:
        self._looks += 1
        return START + self._looks


class Server:
    """First everything that may go wrong, then what is desired."""

    def __init__(self, failures: list[Exception], desired: Assignment) -> None:
        self.failures = failures
        self.desired = desired
        self.worker: SlotsWorker

    def ask(self, _above: Mapping[SlotId, int]) -> Desired:
        self.worker.ring()
        if self.failures:
            raise self.failures.pop(0)
        return Desired((self.desired,), ())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    world.boot()
    yield world
    world.close()


def wait_confirmed(world: World, failures: list[Exception]) -> None:
    """Run a worker until its slot is confirmed."""
    server = Server(failures, world.assignment(1, world.publish("1", Quality()), expires=START + 1e9))
    reports: queue.Queue[Reported] = queue.Queue()
    director, clock = cast("Director", server), cast("AgentClock", FastClock())
    ports = SlotsPorts({SLOT: world.machine}, world.home.journal, director, clock, reports.put)
    server.worker = SlotsWorker(ports, 300.0)
    server.worker.start()
    try:
        while reports.get(timeout=60).state != SlotState.CONFIRMED.value:
            pass
    finally:
        server.worker.stop(timeout_s=10)
    assert failures == []


@pytest.mark.parametrize(
    "failure",
    [
        TransportError("ask what to run", "the connection broke"),
        TrustError("believe the answer", "it is signed by nobody"),
        UpdateError("write state.db", "database or disk is full"),
        sqlite3.ProgrammingError("something nobody thought of"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_question_that_failed_is_asked_again(world: World, failure: Exception) -> None:
    wait_confirmed(world, [failure])


def test_a_device_that_was_offline_for_months_asks_again(world: World) -> None:
    wait_confirmed(world, [TransportError("ask what to run", "no route")] * 1500)


def test_an_assignment_that_could_not_be_journalled_is_offered_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = world.machine.offer
    failures = [UpdateError("write state.db", "database or disk is full")]

    def sometimes(assignment: Assignment, now: float) -> Answer:
        if failures:
            raise failures.pop()
        return offer(assignment, now)

    monkeypatch.setattr(world.machine, "offer", sometimes)

    wait_confirmed(world, [])

    assert failures == []
