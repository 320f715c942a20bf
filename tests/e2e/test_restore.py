"""A server restored from a copy made before a rollout: the fleet that went on without it takes part again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.contract.layout import LayoutFolder
from tests.fakes.agents import Fleet, running_fleet, wait_value
from tests.fakes.pixels import write_source
from tests.fakes.telemetry_ledger import Books, waiting

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

EARLY, LATE = "early", "late"


def test_a_fleet_converges_with_a_server_restored_from_a_copy_made_before_the_rollout(tmp_path: Path) -> None:
    with running_fleet(tmp_path) as fleet:
        source = write_source(tmp_path / "pictures")
        early = fleet.agent(EARLY, source=source).start()
        early.wait_event("agent.announced")
        first = fleet.release("1.0.0")
        must_complete(fleet, "1.0.0", {EARLY})
        back_up(fleet, tmp_path / "copy")

        late = fleet.agent(LATE, source=source).start()
        late.wait_event("agent.announced")
        second = fleet.release("2.0.0")
        must_complete(fleet, "2.0.0", {EARLY, LATE})
        orders = {device: fleet.assign(device, second) for device in (EARLY, LATE)}
        for device, seq in orders.items():
            fleet.wait_state(device, "confirmed", seq)

        restore(fleet, tmp_path / "copy")

        # One keeps what it has verified; the other starts anew and meets the older metadata at once.
        late.stop(signal.SIGKILL)
        late.start()
        for device, seq in orders.items():
            wait_value(f"{device} is known and ready", lambda name=device: name in ready(fleet))
            reported = fleet.wait_state(device, "confirmed", seq)
            assert reported["running"]["release"] == digest(second)
        assert "seen before" not in early.log + late.log

        # Of this model the server knows less than the team has signed: devices say so, until it is pushed again.
        refused = fleet.assign(EARLY, first)
        assert refused == orders[EARLY] + 1
        assert "push" in fleet.wait_state(EARLY, "failed", refused)["reason"]["detail"]
        fleet.push(second)
        fleet.wait_state(EARLY, "confirmed", fleet.assign(EARLY, first))
        must_complete(fleet, "2.0.0", {EARLY, LATE})
        fleet.release("3.0.0")
        must_complete(fleet, "3.0.0", {EARLY, LATE})

        check_telemetry_goes_on(fleet)


def must_complete(fleet: Fleet, version: str, devices: set[str]) -> None:
    """Roll a version out and see it confirmed on exactly these devices."""
    rollout = fleet.roll_out(version)

    def ended() -> dict[str, Any] | None:
        shown: dict[str, Any] = fleet.api("GET", f"/api/v1/rollouts/{rollout}")
        return None if shown["rollout"]["state"] == "running" else shown

    shown = wait_value(f"rollout of {version} ends", ended)
    outcomes = {member["device"]: member["outcome"] for member in shown["members"]}
    assert shown["rollout"]["state"] == "completed", shown
    assert outcomes == dict.fromkeys(devices, "confirmed")


def back_up(fleet: Fleet, out: Path) -> None:
    """What an operator does every night, while the server runs."""
    command = [sys.executable, "-m", "fleet_server.cli.main", "backup", str(out), "--data", str(fleet.server.data)]
    subprocess.run(command, check=True, timeout=600, capture_output=True)


def restore(fleet: Fleet, copy: Path) -> None:
    """The server dies with its disk; another starts from the copy, at the same addresses."""
    fleet.server.stop(signal.SIGKILL)
    fleet.server.data.rename(fleet.folder / "lost")
    shutil.copytree(copy, fleet.server.data)
    assert not (fleet.server.data / "offline").exists()
    fleet.server.start()


def ready(fleet: Fleet) -> set[str]:
    """The devices that the server knows to be connected."""
    return {one["id"] for one in fleet.api("GET", "/api/v1/devices")["items"] if one["connection"] == "ready"}


def check_telemetry_goes_on(fleet: Fleet) -> None:
    """What the lost server had acknowledged is declared lost, nothing is waited for, new samples are counted."""
    counted = Books.of(fleet.server.data)
    for agent, device in zip(fleet.agents, (EARLY, LATE), strict=True):
        wait_value(
            f"new samples of {device}",
            lambda name=device: Books.of(fleet.server.data).requests(name) > counted.requests(name),
        )
        assert agent.stop() == 0
        agent.source = None
        agent.start()
        wait_value(f"the outbox of {device} is empty", lambda now=agent: waiting(now.state_dir) == 0)
    books = Books.of(fleet.server.data)
    assert not any(has_gap for _, _, has_gap in books.streams.values()), books.streams
    assert sum(missing for key, (_, missing, _) in books.streams.items() if key.device == EARLY) > 0
    assert set(books.samples.values()) == {1}


def digest(layout: Path) -> str:
    """The digest of a release."""
    return LayoutFolder(layout).open().digest
