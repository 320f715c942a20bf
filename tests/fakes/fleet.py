"""A small fleet for rollouts: the server's own database, inventory and releases; devices are played by reports."""

from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.device_state import Assignment, Birth, Reason, Reported, Running
from edge_runtime.contract.ids import DeviceId, SlotId, Version, target_path
from edge_runtime.contract.layout import LayoutFolder
from fleet_server.db import Database
from fleet_server.identity import audit
from fleet_server.identity.model import AuditEntry
from fleet_server.inventory.service import Inventory
from fleet_server.releases import store as release_store
from fleet_server.releases.blobs import BlobStore
from fleet_server.releases.model import Release, StoredBlob
from fleet_server.releases.service import Releases
from fleet_server.releases.signing import TufRepository
from fleet_server.rollouts.executor import Executor
from fleet_server.rollouts.model import RolloutId, parse_waves
from fleet_server.rollouts.service import RolloutOrder, Rollouts, RolloutStatus
from tests.fakes import documents

SLOT = SlotId("main")


class PowerCut(BaseException):
    """The server process ends here; no `except Exception` may notice."""


@dataclass
class Bells:
    """Remembers who was rung for; may take the server down instead."""

    rung: list[tuple[str, int]] = field(default_factory=list)
    is_deadly: bool = False

    def ring(self, device: DeviceId, slot: SlotId, seq: int) -> None:
        """Ring, or die in the attempt."""
        if self.is_deadly:
            raise PowerCut
        self.rung.append((device, seq))


@dataclass
class PlayedDevice:
    """One device: what it runs, and the revisions it counts."""

    fleet: "PlayedFleet"
    id: DeviceId
    running: Running | None = None
    revision: int = 0

    @property
    def desired(self) -> Assignment:
        """What the server wants of it."""
        with self.fleet.database.reading() as session:
            desired = self.fleet.inventory.slot(session, self.id, SLOT).desired
        assert desired is not None, f"nothing is assigned to {self.id}"
        return desired

    def report(self, state: str, reason: str | None = None, *, seq: int | None = None) -> None:
        """Report a state of the desired assignment, or of another one."""
        desired = self.desired
        self.revision += 1
        report = Reported(
            device=self.id, slot=SLOT, revision=self.revision, seq=seq or desired.seq, state=state, at=self.fleet.now,
            target=desired.target, release=desired.release, running=self.running, rollout=desired.rollout,
            reason=None if reason is None else Reason(code=reason, detail="as played", retryable=False),
        )  # fmt: skip
        with self.fleet.database.session() as session:
            self.fleet.inventory.apply_reported(session, report, self.fleet.now)

    def take(self) -> None:
        """Run the first candidate, without confirming it."""
        desired = self.desired
        self.running = None
        if desired.release is not None:
            first = desired.candidates[0]
            self.running = Running(
                seq=desired.seq, release=desired.release, variant=first.id, variant_digest=first.digest,
                target=desired.target,
            )  # fmt: skip

    def confirm(self) -> None:
        """Run what is desired, and confirm it."""
        self.take()
        self.report("confirmed")


@dataclass
class PlayedFleet:
    """A server without network, and its devices, with a clock of their own."""

    folder: Path
    database: Database
    bells: Bells
    now: float = 1_795_000_000.0
    devices: dict[str, PlayedDevice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        blobs = BlobStore(self.folder / "releases")
        self.inventory = Inventory(self.bells)
        self.releases = Releases(self.database, blobs, TufRepository(self.folder), check_signatures=False)
        self.rollouts = Rollouts(self.database, self.inventory, self.releases)
        self.executor = Executor(self.database, self.inventory, self.releases, self.rollouts)

    def add_device(self, name: str, facts: DeviceFacts | None = None, **labels: str) -> PlayedDevice:
        """Enrol a device and let it be born."""
        device = DeviceId(name)
        with self.database.session() as session:
            self.inventory.register(session, device, labels=labels, facts=None, now=self.now)
            birth = Birth(device=device, session="s-1", agent="0.1.0", facts=facts or documents.facts(), slots={})
            self.inventory.apply_birth(session, birth, self.now)
        self.devices[name] = PlayedDevice(self, device)
        return self.devices[name]

    def add_release(self, version: str) -> Release:
        """A release of two variants with its blobs; signatures are not this fake's business."""
        folder = self.folder / f"layout-{version}"
        digest = documents.write_release(folder, version)
        layout = LayoutFolder(folder)
        blobs = list(layout.blobs())
        for blob in blobs:
            with self.releases.blobs.upload(blob.digest) as upload:
                upload.write(layout.path_of(blob.digest).read_bytes())
                upload.finish()
        release = Release(documents.MODEL, Version(version), digest, blobs[-1].size, self.now, "test")
        with self.database.session() as session:
            stored = [StoredBlob(blob.digest, blob.size, blob.mediaType) for blob in blobs]
            release_store.add_release(session, release, stored)
        return release

    def create(self, version: str = "1.0.0", waves: str = "1,100%", **changes: object) -> RolloutId:
        """Begin a rollout to every device."""
        fields = {"soak_s": 2.0, "deadline_s": 60.0, "selector": "", "on_failure": "revert_all", **changes}
        order = RolloutOrder(
            model=documents.MODEL, version=Version(version), slot=SLOT, waves=parse_waves(waves), **fields  # type: ignore[arg-type]
        )  # fmt: skip
        return self.rollouts.create(order, by="anna", now=self.now)

    def tick(self, after_s: float = 1.0) -> None:
        """Let time pass and the server look at its rollouts."""
        self.now += after_s
        self.executor.tick(self.now)

    def status(self, rollout: RolloutId) -> RolloutStatus:
        """A rollout as it stands."""
        with self.database.reading() as session:
            return self.rollouts.status(session, rollout, self.now)

    def state(self, rollout: RolloutId) -> str:
        """The name of its state."""
        return self.status(rollout).rollout.state.value

    def reached(self, rollout: RolloutId) -> dict[str, str]:
        """Outcome by device."""
        return {one.member.device: one.member.outcome.value for one in self.status(rollout).members}

    def audit(self, rollout: RolloutId) -> list[AuditEntry]:
        """What the audit log says about a rollout, oldest first."""
        with self.database.reading() as session:
            return audit.entries(session, subject=rollout)[::-1]

    def everywhere(self, version: str) -> None:
        """Roll a release out to confirmed on every device."""
        rollout = self.create(version, "100%")
        self.tick()
        for device in self.devices.values():
            device.confirm()
        self.tick()
        assert self.state(rollout) == "completed"

    def after_restart(self) -> "PlayedFleet":
        """The same data folder, opened by a new server; the devices stay what they are."""
        self.database.close()
        reopened = PlayedFleet(self.folder, Database(database_url(self.folder)), Bells(), now=self.now)
        for device in self.devices.values():
            device.fleet = reopened
        reopened.devices = self.devices
        return reopened


def database_url(folder: Path) -> str:
    """Where the fleet's database lies."""
    return f"sqlite:///{folder / 'fleet.db'}"


def make_fleet(folder: Path) -> PlayedFleet:
    """A new fleet in a folder, with releases 1.0.0 and 2.0.0."""
    database = Database(database_url(folder))
    database.upgrade()
    fleet = PlayedFleet(folder, database, Bells())
    fleet.add_release("1.0.0")
    fleet.add_release("2.0.0")
    return fleet


def target(version: str) -> str:
    """The target path of one of the fleet's releases."""
    return target_path(documents.MODEL, Version(version))
