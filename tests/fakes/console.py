"""A fleet worth looking at, laid into a server's data folder before the server starts: rollouts, verdicts, bad news."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.contract.device_state import Reason, Reported
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.sketch import Sketch
from edge_runtime.contract.telemetry import Sample
from fleet_server.console.snapshot import ConsolePorts
from fleet_server.db import Database
from fleet_server.rollouts.model import RolloutId
from fleet_server.telemetry import store as telemetry_store
from fleet_server.telemetry.service import Telemetry
from tests.fakes.fleet import SLOT, Bells, PlayedDevice, PlayedFleet, database_url
from tests.fakes.server import LocalFleet

HOSTILE = "<img src=x onerror=\"document.title='stolen'\"><script>document.title='stolen'</script>"
"""What a device says of itself when it wants to run a script in an operator's browser."""


@dataclass
class Clock:
    """Time as a test says."""

    now: float = 1_795_000_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@dataclass(frozen=True)
class PlayedConsole:
    """What was laid down."""

    fleet: PlayedFleet
    running: RolloutId
    done: RolloutId


def play(data: Path, devices: int = 5, *, variant: str = HOSTILE, words: str = HOSTILE) -> PlayedConsole:
    """Devices that confirmed 1.0.0 and measure; one refuses 2.0.0, in these words and naming this variant."""
    data.mkdir(parents=True, exist_ok=True)
    database = Database(database_url(data))
    database.upgrade()
    fleet = PlayedFleet(data, database, Bells(), now=time.time() - 300.0)
    for version in ("1.0.0", "2.0.0"):
        fleet.add_release(version)
    played = [fleet.add_device(f"gate-{number + 1}", site="bonn", lane=str(number + 1)) for number in range(devices)]
    done = fleet.create("1.0.0", "1,50%,100%", name="digits 1.0.0")
    while fleet.state(done) == "running":
        fleet.tick(5.0)
        for device in played:
            if fleet.reached(done).get(device.id) == "pending":
                device.confirm()
    for number, device in enumerate(played):
        _measure(fleet, device, typical_ms=1.1 + number / 7, correct=393 - number)
    running = fleet.create(
        "2.0.0", "1,100%", name="digits 2.0.0", deadline_s=7200.0, max_failed_ratio=0.3, on_failure="pause"
    )
    fleet.tick(5.0)
    played[0].confirm()
    fleet.tick(5.0)
    fleet.tick(5.0)
    _refuse(fleet, played[1], variant, words)
    fleet.tick(5.0)
    played[2].report("soaking")
    return PlayedConsole(fleet, running, done)


def _refuse(fleet: PlayedFleet, device: PlayedDevice, variant: str, words: str) -> None:
    """Report a failure with these words in every text a device can choose."""
    desired = device.desired
    device.revision += 1
    report = Reported(
        device=device.id, slot=SLOT, revision=device.revision, seq=desired.seq, state="failed", at=fleet.now,
        target=desired.target, release=desired.release, variant=VariantId(variant), running=device.running,
        rollout=desired.rollout, reason=Reason(code="golden_failed", detail=words, retryable=False),
    )  # fmt: skip
    with fleet.database.session() as session:
        fleet.inventory.apply_reported(session, report, fleet.now)


def _measure(fleet: PlayedFleet, device: PlayedDevice, *, typical_ms: float, correct: int) -> None:
    running = device.running
    assert running is not None
    latencies = Sketch()
    for step in range(400):
        latencies.add(typical_ms * (1 + step % 17 / 40))
    sample = Sample(
        slot=SLOT, release=running.release, variant=running.variant, start=fleet.now - 10, end=fleet.now,
        requests=400, correct=correct, total=400, latency_ms=latencies.to_data(),
    )  # fmt: skip
    with fleet.database.session() as session:
        telemetry_store.insert_samples(session, [(device.id, sample)])


def ports_of(fleet: LocalFleet | PlayedFleet) -> ConsolePorts:
    """The console's services, of a fleet inside this process."""
    services = fleet.context if isinstance(fleet, LocalFleet) else fleet
    telemetry = fleet.context.telemetry if isinstance(fleet, LocalFleet) else Telemetry()
    return ConsolePorts(
        services.database,
        services.inventory,
        services.rollouts,
        telemetry,
        broker="embedded",
        is_broker_connected=lambda: True,
        clock=time.time if isinstance(fleet, LocalFleet) else lambda: fleet.now,
    )
