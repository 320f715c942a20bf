"""Real agents beside a real server: processes of their own, and small releases for them to install."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from converters.release.signing import sign_release
from edge_runtime.contract.device_state import Candidate, Policy
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import DeviceId, ModelName, SlotId, target_path
from edge_runtime.contract.layout import LayoutFolder
from edge_runtime.trust.keys import SigningKey
from fleet_server.db import Database, raw_connection
from fleet_server.inventory.model import AssignmentDraft
from fleet_server.inventory.service import Inventory
from fleet_server.releases import store as release_store
from fleet_server.releases.model import Release, StoredBlob
from fleet_server.releases.signing import TufRepository
from tests.fakes.pixels import write_pixels
from tests.fakes.ports import free_port
from tests.fakes.processes import begin

MAIN = SlotId("main")
# Generous: it bounds a hang and measures nothing; test machines may be very busy.
PATIENCE_S = 400.0

_ValueT = TypeVar("_ValueT")


def wait_value(what: str, look: Callable[[], _ValueT | None], every_s: float = 0.25) -> _ValueT:
    """The first truthy answer of `look`, asked this often. Raises: AssertionError when there is none in time."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if answer := look():
            return answer
        time.sleep(every_s)
    raise AssertionError(f"waited {PATIENCE_S:g} s in vain: {what}")


class _NoBells:
    def ring(self, device: DeviceId, slot: SlotId, seq: int) -> None:
        """From another process nobody can ring; devices also ask by themselves."""


@dataclass
class ServerProcess:
    """One `edge-fleet serve` with its embedded broker."""

    folder: Path
    people_port: int = field(default_factory=free_port)
    devices_port: int = field(default_factory=free_port)
    mqtt_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        """What it said so far, all starts together."""
        return (self.folder / "server.log").read_text(errors="replace")

    @property
    def api(self) -> httpx.Client:
        """A client of the people's API, as an admin."""
        headers = {"Authorization": f"Bearer {(self.folder / 'admin.key').read_text().strip()}"}
        url = f"http://127.0.0.1:{self.people_port}"
        # Plain HTTP: reading the machine's certificates for each of many polls would cost more than the poll.
        return httpx.Client(base_url=url, headers=headers, timeout=60.0, trust_env=False, verify=False)

    def start(self, *options: str) -> None:
        """Return when it answers and its broker delivers to it."""
        self.launch(*options)
        self.wait_ready()

    def launch(self, *options: str) -> None:
        """Begin to start, and do not wait."""
        ports = ("--people-port", self.people_port, "--devices-port", self.devices_port, "--mqtt-port", self.mqtt_port)
        rest = ("--data", self.data, "--broker", "embedded", "--admin-key-file", self.folder / "admin.key", *options)
        command = [sys.executable, "-m", "fleet_server.cli.main", "serve", *map(str, (*ports, *rest))]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = begin(command, self.folder / "server.log")

    def wait_ready(self) -> None:
        """Return when it answers and its broker delivers to it."""
        wait_value("the server is ready", self._is_ready)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it and wait for its end."""
        process, self.process = self.process, None
        if process is not None:
            if process.poll() is None:
                process.send_signal(number)
            process.wait(PATIENCE_S)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log[-3000:]
        try:
            with self.api as client:
                return bool(client.get("/healthz").json()["broker"] == "connected")
        except (OSError, httpx.HTTPError, ValueError, KeyError):
            return False


@dataclass
class RunningAgent:
    """`python -m edge_runtime.agent` over one configuration file."""

    config: Path
    source: Path | None = None
    python: Path = Path(sys.executable)
    process: subprocess.Popen[bytes] | None = None

    @property
    def state_dir(self) -> Path:
        return self.config.parent / "state"

    @property
    def log(self) -> str:
        """What it said so far, all starts together."""
        path = self.config.parent / "agent.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> RunningAgent:
        command = [str(self.python), "-m", "edge_runtime.agent", "--config", str(self.config)]
        command += [] if self.source is None else ["--source", str(self.source)]
        self.process = begin(command, self.config.parent / "agent.log")
        return self

    def events(self, name: str, **fields: str) -> list[dict[str, Any]]:
        """Log entries of one event name with these fields."""
        entries = [json.loads(line) for line in self.log.splitlines() if line.startswith("{") and line.endswith("}")]
        return [
            one
            for one in entries
            if one.get("event") == name and all(one.get(key) == value for key, value in fields.items())
        ]

    def wait_event(self, name: str, count: int = 1, **fields: str) -> dict[str, Any]:
        """The count-th log entry of a name with these fields."""

        def look() -> dict[str, Any] | None:
            found = self.events(name, **fields)
            return found[count - 1] if len(found) >= count else None

        return wait_value(f"{name} {fields} in the agent's log", look)

    def ends(self) -> int:
        """The exit code of an agent that ends by itself."""
        assert self.process is not None
        return self.process.wait(PATIENCE_S)

    def stop(self, number: int = signal.SIGTERM) -> int | None:
        """End it and return its exit code; None when it does not run."""
        process, self.process = self.process, None
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(number)
        return process.wait(PATIENCE_S)


@dataclass
class Fleet:
    """A server, its team's key, and the agents beside it."""

    folder: Path
    server: ServerProcess
    key: SigningKey = field(default_factory=SigningKey.generate)
    agents: list[RunningAgent] = field(default_factory=list)
    _authorised: set[ModelName] = field(default_factory=set)

    def api(self, method: str, path: str, **options: Any) -> Any:
        """The answer of one people's route."""
        with self.server.api as client:
            response = client.request(method, path, **options)
        assert response.is_success, (response.status_code, response.text)
        return response.json() if response.content else None

    def claim(self, path: Path, device: str | None = None, **labels: str) -> Path:
        """Write an enrolment document with a fresh claim."""
        path.write_text(json.dumps(self.api("POST", "/api/v1/claims", json={"device": device, "labels": labels})))
        return path

    def agent(self, device: str, *, source: Path | None = None, **settings: Any) -> RunningAgent:
        """A configured agent of a new device, not started yet; keys of its configuration by name."""
        folder = self.folder / device
        folder.mkdir()
        if "enrolment" not in settings:
            settings["enrolment"] = str(self.claim(folder / "enrolment.json", device))
        keys = {
            "device": device,
            "state_dir": "state",
            "backends": ["onnxruntime"],
            "poll_interval_s": 0.5,
            "telemetry_window_s": 0.5,
            "source_interval_s": 0.05,
            **settings,
        }
        config = folder / "device.toml"
        # JSON's texts, numbers and lists are also TOML's.
        config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()))
        agent = RunningAgent(config, source)
        self.agents.append(agent)
        return agent

    def release(self, version: str, **options: Any) -> Path:
        """Write, sign and push one release of the four-pixel classifier; returns its layout."""
        layout = self.folder / f"release-{version}"
        write_pixels(layout, version, **options)
        self.push(layout)
        return layout

    def push(self, layout: Path) -> Digest:
        """Let the team's key sign for the model, sign a release with it, and push it."""
        folder = LayoutFolder(layout)
        release = folder.open()
        model = release.manifest.name
        if model not in self._authorised:
            repository = TufRepository(self.server.data)
            repository.authorise(model, self.key.public, repository.offline, time.time())
            self._authorised.add(model)
        metadata = sign_release(layout, self.key, self.folder / f"models-{model}.json", None, now=time.time())
        for blob in folder.blobs():
            content = folder.path_of(blob.digest).read_bytes()
            self.api("PUT", f"/api/v1/releases/blobs/{blob.digest}", content=content)
        body = {"model": model, "version": release.manifest.version, "release_digest": release.digest}
        self.api("POST", "/api/v1/releases", json={**body, "metadata": metadata.read_text()})
        return release.digest

    def admit_by_force(self, layout: Path) -> None:
        """Put a release into the server's store past its verifier, as whoever owns the server could."""
        folder = LayoutFolder(layout)
        release = folder.open()
        blobs = []
        for blob in folder.blobs():
            content = folder.path_of(blob.digest).read_bytes()
            self.api("PUT", f"/api/v1/releases/blobs/{blob.digest}", content=content)
            blobs.append(StoredBlob(blob.digest, blob.size, blob.mediaType))
        name, version = release.manifest.name, release.manifest.version
        forced = Release(name, version, release.digest, release.index.size_bytes, time.time(), "nobody")
        database = Database(f"sqlite:///{self.server.data / 'fleet.db'}")
        try:
            with database.session() as session:
                release_store.add_release(session, forced, blobs)
        finally:
            database.close()

    def assign(self, device: str, layout: Path, *, lifetime_s: float = 3600.0, **policy: Any) -> int:
        """Order a device to run a release; no bell rings, so it hears of it when it asks."""
        release = LayoutFolder(layout).open()
        draft = AssignmentDraft(
            kind="model",
            target=target_path(release.manifest.name, release.manifest.version),
            release=release.digest,
            length=release.index.size_bytes,
            candidates=tuple(Candidate(id=entry.id, digest=entry.digest) for entry in release.index.variants),
            max_trials=4,
            policy=Policy(**{"soak_s": 0.5, **policy}),
            lifetime_s=lifetime_s,
        )
        database = Database(f"sqlite:///{self.server.data / 'fleet.db'}")
        try:
            with database.session() as session:
                return Inventory(_NoBells()).assign(session, DeviceId(device), MAIN, draft, time.time())
        finally:
            database.close()

    def roll_out(self, version: str, **policy: Any) -> str:
        """Begin a rollout of a version to every device, by default in one wave; returns its id."""
        order = {"model": "pixels", "version": version, "waves": ["100%"], "soak_s": 0.5, "deadline_s": 900.0}
        created = self.api("POST", "/api/v1/rollouts", json={**order, **policy})
        return str(created["rollout"]["id"])

    def device(self, device: str) -> dict[str, Any]:
        """What the server knows of a device."""
        found: dict[str, Any] = self.api("GET", f"/api/v1/devices/{device}")
        return found

    def reported(self, device: str) -> dict[str, Any]:
        """What the main slot last reported; empty before the first report."""
        slots = {one["slot"]: one for one in self.device(device)["slots"]}
        return (slots.get(MAIN) or {}).get("reported") or {}

    def wait_state(self, device: str, state: str, seq: int | None = None) -> dict[str, Any]:
        """The report in which the main slot reaches a state."""

        def look() -> dict[str, Any] | None:
            reported = self.reported(device)
            return reported if reported.get("state") == state and seq in {None, reported["seq"]} else None

        return wait_value(f"{device} is {state}", look)

    def wait_connection(self, device: str, connection: str) -> None:
        """Return when the server believes a device's connection to be in this state."""
        wait_value(f"{device} is {connection}", lambda: self.device(device)["connection"] == connection)

    def summaries(self, device: str) -> list[dict[str, Any]]:
        """Telemetry of a device, by slot, release and variant."""
        found: list[dict[str, Any]] = self.api("GET", "/api/v1/telemetry/summary", params={"device": device})["items"]
        return found

    def let_certificates_expire(self, device: str) -> None:
        """Make the server believe that a device's certificates ended an hour ago."""
        database = Database(f"sqlite:///{self.server.data / 'fleet.db'}")
        try:
            with database.session() as session:
                raw_connection(session).execute(
                    "UPDATE certificate SET not_after = ? WHERE device = ?", (time.time() - 3600, device)
                )
        finally:
            database.close()

    def missing_samples(self, device: str) -> int:
        """Samples of a device that the server knows to be lost, or still waits for."""
        database = Database(f"sqlite:///{self.server.data / 'fleet.db'}")
        try:
            with database.reading() as session:
                query = "SELECT sum(missing) + sum(gap_since IS NOT NULL) FROM telemetry_stream WHERE device = ?"
                (missing,) = raw_connection(session).execute(query, (device,)).fetchone()
        finally:
            database.close()
        return int(missing)

    def stop_agents(self) -> None:
        """End every agent that still runs, as a power cut would."""
        for agent in self.agents:
            agent.stop(signal.SIGKILL)
        self.agents.clear()

    def logs(self) -> dict[str, str]:
        """What everybody said so far, by name."""
        return {"the server": self.server.log, **{agent.config.parent.name: agent.log for agent in self.agents}}

    def broker_pid(self) -> int:
        """The broker's process, a child of the server's."""
        assert self.server.process is not None
        found = children(self.server.process.pid)
        assert len(found) == 1, found
        return found[0]


@contextmanager
def running_fleet(folder: Path) -> Iterator[Fleet]:
    """A new server, ready; agents that a test leaves running end with it."""
    fleet = Fleet(folder, ServerProcess(folder / "server"))
    try:
        fleet.server.start()
        yield fleet
    finally:
        fleet.stop_agents()
        fleet.server.stop()


def children(pid: int) -> list[int]:
    """Child processes."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in listed for child in path.read_text().split()]


def is_alive(pid: int) -> bool:
    """Whether a process is still there and no zombie."""
    try:
        os.kill(pid, 0)
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
