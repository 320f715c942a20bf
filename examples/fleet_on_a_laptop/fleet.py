"""The demo's server and devices as real processes, seen only through the public API."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from examples.fleet_on_a_laptop.stage import DemoFailure, Finished, Stage, free_port

Json = dict[str, Any]

DIGITS: Final = Path(__file__).parent / "model"
SELECTOR: Final = "site=laptop"
_CLOCK_1970_S: Final = -1.79e9


@dataclass(frozen=True)
class Device:
    """One device's honest difference from the others: settings that act in the agent's real paths."""

    name: str
    story: str
    settings: Json


DEVICES: Final = (
    Device("gate-1", "ONNX Runtime only", {"backends": ["onnxruntime"]}),
    Device("gate-2", "ONNX Runtime and OpenVINO", {"backends": ["onnxruntime", "openvino"]}),
    Device("gate-3", "640 MiB for the agent", {"backends": ["onnxruntime"], "memory_bytes": 640 * 1024**2}),
    Device("gate-4", "a link of 400 kB/s", {"backends": ["onnxruntime"], "link_bytes_per_s": 400_000.0}),
    Device("gate-5", "a clock that says 1970", {"backends": ["onnxruntime"], "clock_offset_s": _CLOCK_1970_S}),
)


@dataclass
class Fleet:
    """One server with its devices.

    Args:
        stage: where they play.
        broker: auto, embedded or mosquitto.
        unsafe: defences that the server leaves out (`gate`, `acl`, `signatures`), for controls.
        unsafe_devices: defences that the devices leave out (`golden`, `signatures`), for controls.
    """

    stage: Stage
    broker: str = "auto"
    unsafe: Sequence[str] = ()
    unsafe_devices: Sequence[str] = ()
    people_port: int = field(default_factory=free_port)
    devices_port: int = field(default_factory=free_port)
    mqtt_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        """The people's listener."""
        return f"http://127.0.0.1:{self.people_port}"

    @property
    def data(self) -> Path:
        """The server's folder."""
        return self.stage.folder / "server"

    @property
    def api_key(self) -> str:
        """The admin's key."""
        return (self.stage.folder / "admin.key").read_text().strip()

    @property
    def environment(self) -> dict[str, str]:
        """How the command lines find the server."""
        return {"EDGEFLEET_SERVER": self.url, "EDGEFLEET_API_KEY": self.api_key}

    def begin_server(self) -> None:
        """Start the server; `await_server` waits until it answers."""
        ports = ("--people-port", self.people_port, "--devices-port", self.devices_port, "--mqtt-port", self.mqtt_port)
        unsafe = [word for switch in self.unsafe for word in ("--unsafe-disable", switch)]
        options = ("--data", self.data, "--broker", self.broker, "--tick-s", "0.25", *ports, *unsafe)
        key_file = self.stage.folder / "admin.key"
        self.stage.begin("server", "fleet_server.cli.main", "serve", *map(str, options), "--admin-key-file", key_file)

    def await_server(self) -> None:
        """Wait until the server answers and its broker delivers."""
        self.stage.wait(self._is_ready, "the server to answer")

    def command(self, *arguments: str | Path) -> Finished:
        """Run an `edge-fleet` command."""
        return self.stage.run("fleet_server.cli.main", *arguments, env=self.environment)

    def must(self, *arguments: str | Path) -> str:
        """Run an `edge-fleet` command that has to succeed; what it printed."""
        finished = self.command(*arguments)
        if finished.status != 0:
            raise DemoFailure(f"edge-fleet {' '.join(map(str, arguments))}: {finished.errors.strip()[-400:]}")
        return finished.output.strip()

    def begin_device(self, device: Device) -> None:
        """Claim an identity for a device and start its agent; it enrols by itself."""
        folder = self.stage.folder / device.name
        folder.mkdir()
        key, value = SELECTOR.split("=")
        enrolment = self.post("/api/v1/claims", {"device": device.name, "labels": {key: value}})
        (folder / "enrolment.json").write_text(json.dumps(enrolment))
        settings: Json = {
            "device": device.name,
            "state_dir": "state",
            "enrolment": "enrolment.json",
            "poll_interval_s": 5.0,
            "telemetry_window_s": 1.0,
            "source_interval_s": 0.25,
            "log_level": "info",
            "unsafe_disable": list(self.unsafe_devices),
            **device.settings,
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        (folder / "device.toml").write_text("\n".join(lines) + "\n")
        self.stage.begin(
            device.name, "edge_runtime.agent", "--config", folder / "device.toml", "--source", DIGITS / "live"
        )

    def get(self, path: str, **query: str | float) -> Any:
        """One answer of the public API."""
        return self._ask("GET", path, params=query)

    def post(self, path: str, body: Json) -> Any:
        """One order to the public API."""
        return self._ask("POST", path, json=body)

    def try_post(self, path: str, body: Json) -> httpx.Response:
        """One order that may be refused."""
        headers = {"Authorization": f"Bearer {self.api_key}"}
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=30, trust_env=False)

    def device(self, name: str) -> Json:
        """One device, as the API shows it."""
        found: Json = self.get(f"/api/v1/devices/{name}")
        return found

    def slot(self, name: str) -> Json:
        """What a device last reported about its main slot; empty before the first report."""
        for slot in self.device(name)["slots"]:
            if slot["slot"] == "main" and slot["reported"]:
                reported: Json = slot["reported"]
                return reported
        return {}

    def accuracy(self, release: str) -> dict[str, tuple[int, int]]:
        """Correct and compared answers of one release, by device, from telemetry."""
        counted: dict[str, tuple[int, int]] = {}
        for row in self.get("/api/v1/telemetry/summary")["items"]:
            device = row["group"]["device"]
            if row["group"]["release"] == release and row["total"]:
                correct, total = counted.get(device, (0, 0))
                counted[device] = (correct + row["correct"], total + row["total"])
        return counted

    def _is_ready(self) -> bool | None:
        try:
            answer = httpx.get(f"{self.url}/healthz", timeout=5, trust_env=False).json()
        except (httpx.HTTPError, ValueError):
            return None
        return True if answer.get("broker") == "connected" else None

    def _ask(self, method: str, path: str, **what: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.api_key}"}
        answer = httpx.request(method, f"{self.url}{path}", headers=headers, timeout=30, trust_env=False, **what)
        if answer.status_code >= 400:
            raise DemoFailure(f"{method} {path} was answered {answer.status_code}: {answer.text[:300]}")
        return answer.json()
