"""Twenty SIGKILLs inside one rollout: devices end where they may end, and every stored batch is counted once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_runtime.contract.digest import Digest
from edge_runtime.contract.layout import LayoutFolder
from tests.fakes.agents import Fleet, RunningAgent, children, is_alive, running_fleet, wait_value
from tests.fakes.models import WEIGHTS, Build, four_pixel_classifier
from tests.fakes.pixels import write_source
from tests.fakes.telemetry_ledger import Books, Ledger, check_nothing_lost_or_doubled, waiting

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

GIB = 1024**3
# cam-b has too little memory for the good build of release 2, and the other one fails its golden set.
MEMORY = {"cam-a": 16 * GIB, "cam-b": 2 * GIB, "cam-c": 16 * GIB}
KILLS = {"agent": 10, "server": 4, "broker": 6}
ENDS = {"confirmed", "failed", "rolled_back"}
POLL_S = 0.2
LULL_MAX_S = 2.5


def test_twenty_kills_inside_a_rollout_leave_no_device_in_between_and_no_batch_lost_or_doubled(
    tmp_path: Path,
) -> None:
    seed = int(os.environ.get("EDGEFLEET_TEST_SEED") or random.randrange(10**6))
    print(f"EDGEFLEET_TEST_SEED={seed}")
    with running_fleet(tmp_path) as fleet:
        storm = Storm(fleet, random.Random(seed))
        old = storm.begin()
        new = release_digest(fleet.release("2.0.0", builds=two_faced()))
        rollout = fleet.roll_out("2.0.0", waves=["1", "3"], soak_s=4.0, hold_s=1.0, max_failed_ratio=0.5)

        storm.rage(rollout)

        ended = storm.wait_end(rollout)
        assert ended["rollout"]["state"] == "completed", ended["rollout"]
        outcomes = {member["device"]: storm.check_end(member, old, new) for member in ended["members"]}
        assert outcomes.keys() == MEMORY.keys()
        assert outcomes["cam-b"] == "failed"
        storm.drain()
        check_nothing_lost_or_doubled(storm.ledger, Books.of(fleet.server.data))
        storm.check_summaries()
        print(storm.figures(), outcomes)


@dataclass
class Storm:
    """Kills what it meets, starts it again, and keeps the books of what was stored meanwhile."""

    fleet: Fleet
    chance: random.Random
    agents: dict[str, RunningAgent] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    kills: list[str] = field(default_factory=list)

    def begin(self) -> Digest:
        """Three devices that have confirmed release 1; returns its digest."""
        source = write_source(self.fleet.folder / "pictures")
        layout = self.fleet.release("1.0.0")
        for device, memory_bytes in MEMORY.items():
            # A slow link lets kills land in the middle of a download.
            self.agents[device] = self.fleet.agent(
                device,
                source=source,
                source_interval_s=0.1,
                memory_bytes=memory_bytes,
                link_bytes_per_s=4000,
                poll_interval_s=2.0,
            ).start()
        for device, agent in self.agents.items():
            agent.wait_event("agent.announced")
            self.fleet.assign(device, layout)
        for device in self.agents:
            self.fleet.wait_state(device, "confirmed")
        return release_digest(layout)

    def rage(self, rollout: str) -> None:
        """All kills, in random order, all of them before the rollout has ended."""
        victims = [kind for kind, number in KILLS.items() for _ in range(number)]
        self.chance.shuffle(victims)
        for victim in victims:
            self._lull(rollout)
            getattr(self, f"_kill_{victim}")()
            self.kills.append(victim)
        self.fleet.server.wait_ready()
        shown = self.fleet.api("GET", f"/api/v1/rollouts/{rollout}")
        assert shown["rollout"]["state"] in {"running", "paused"}, "the rollout ended before the last kill"

    def wait_end(self, rollout: str) -> dict[str, Any]:
        """The rollout as it ended."""

        def look() -> dict[str, Any] | None:
            shown: dict[str, Any] = self.fleet.api("GET", f"/api/v1/rollouts/{rollout}")
            if shown["rollout"]["state"] == "paused":
                # Held by us, or by its gate: whoever resumes accepts the wave as it is.
                self.fleet.api("POST", f"/api/v1/rollouts/{rollout}/resume")
            return shown if shown["rollout"]["state"] not in {"running", "paused"} else None

        return wait_value("the rollout ends", look)

    def check_end(self, member: dict[str, Any], old: Digest, new: Digest) -> str:
        """A member's outcome, after seeing that the device says the same and that the right release answers."""
        device, outcome = str(member["device"]), str(member["outcome"])
        expected = new if outcome == "confirmed" else old
        assert outcome in ENDS, member
        reported = self.fleet.wait_state(device, outcome, member["seq"])
        assert (reported["running"] or {}).get("release") == expected, reported
        # Not only said to run: from here on it still answers, by what it measures.
        answered = self._answered(device, expected)
        wait_value(f"{device} answers with {expected}", lambda: self._answered(device, expected) > answered)
        return outcome

    def drain(self) -> None:
        """Stop every agent in order, then let it send what it has, without measuring anything new."""
        for device, agent in self.agents.items():
            assert agent.stop() == 0, agent.log[-2000:]
            self.ledger.read(device, agent.state_dir)
            agent.source = None
            agent.start()
        for device, agent in self.agents.items():
            wait_value(f"the outbox of {device} is empty", lambda now=agent: waiting(now.state_dir) == 0)
            assert agent.stop() == 0, agent.log[-2000:]
            self.ledger.read(device, agent.state_dir)

    def check_summaries(self) -> None:
        """What the API adds up is what the samples say."""
        books = Books.of(self.fleet.server.data)
        for device in self.agents:
            assert sum(row["requests"] for row in self.fleet.summaries(device)) == books.requests(device) > 0
            assert self.fleet.missing_samples(device) == 0

    def figures(self) -> str:
        """What happened, in one line."""
        kinds = {kind: self.kills.count(kind) for kind in KILLS}
        seen, stored = len(self.ledger.samples), sum(self.ledger.stored.values())
        return f"kills {kinds}; {len(self.ledger.stored)} streams, {stored} samples stored, {seen} of them seen waiting"

    def _lull(self, rollout: str) -> None:
        """Let the fleet get on by a random number of steps, not for a time: kills land all over the rollout."""
        self._operate(rollout)
        aim, end = self._steps() + self.chance.randint(0, 8), time.monotonic() + LULL_MAX_S
        while self._steps() < aim and time.monotonic() < end:
            for device, agent in self.agents.items():
                # Not there yet after a start, or gone in this moment.
                with contextlib.suppress(sqlite3.OperationalError):
                    self.ledger.glance(device, agent.state_dir)
            time.sleep(POLL_S)

    def _operate(self, rollout: str) -> None:
        """What a person would do, as far as the server answers: accept a failed wave, hold the last one.

        On a fast machine the rollout would otherwise end before the storm.
        """
        with contextlib.suppress(httpx.TransportError), self.fleet.server.api as client:
            found = client.get(f"/api/v1/rollouts/{rollout}", timeout=5.0)
            if not found.is_success:
                return
            shown = found.json()
            state, everyone = shown["rollout"]["state"], len(shown["members"]) == len(self.agents)
            if (state, everyone) in {("running", True), ("paused", False)}:
                client.post(f"/api/v1/rollouts/{rollout}/{'pause' if everyone else 'resume'}", timeout=30.0)

    def _steps(self) -> int:
        return sum(
            agent.log.count('"slot.moved"') + agent.log.count('"agent.announced"') for agent in self.agents.values()
        )

    def _kill_agent(self) -> None:
        device = self.chance.choice(sorted(self.agents))
        agent = self.agents[device]
        agent.stop(signal.SIGKILL)
        self.ledger.read(device, agent.state_dir)
        agent.start()

    def _kill_server(self) -> None:
        broker = self._broker()
        self.fleet.server.stop(signal.SIGKILL)
        if broker is not None:
            wait_value("the broker dies with its server", lambda: not is_alive(broker))
        self.fleet.server.launch()
        # Every other time the next kill meets a server that is only just starting.
        if self.chance.random() < 0.5:
            self.fleet.server.wait_ready()

    def _kill_broker(self) -> None:
        broker = wait_value("the server has a broker", self._broker)
        os.kill(broker, signal.SIGKILL)
        wait_value("the supervisor starts another broker", lambda: self._broker() not in {None, broker})

    def _broker(self) -> int | None:
        process = self.fleet.server.process
        assert process is not None
        assert process.poll() is None, self.fleet.server.log[-3000:]
        return next(iter(children(process.pid)), None)

    def _answered(self, device: str, release: str) -> int:
        return sum(row["requests"] for row in self.fleet.summaries(device) if row["group"]["release"] == release)


def two_faced() -> list[Build]:
    """A good build for whoever has the memory, and one that answers wrongly for everyone else."""
    wrong = four_pixel_classifier(WEIGHTS[::-1].copy())
    return [Build("ort-large", needs_bytes=4 * GIB), Build("ort-small", content=wrong, needs_bytes=64 * 1024**2)]


def release_digest(layout: Path) -> Digest:
    """The digest of a release."""
    return LayoutFolder(layout).open().digest
