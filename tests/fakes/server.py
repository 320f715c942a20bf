"""A real fleet server: inside the test's process for routes, or as a process of its own on free ports over TLS."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from edge_runtime.contract import device_api
from edge_runtime.contract.codec import decode, encode
from edge_runtime.contract.device_state import Enrolment, EnrolmentRequest, IdentityGrant
from edge_runtime.contract.ids import DeviceId
from fleet_server.app import Context, create_devices_app, create_people_app, open_context
from fleet_server.identity import api_keys
from fleet_server.identity.model import Role
from fleet_server.settings import ServerSettings
from tests.fakes.pki import Issued
from tests.fakes.ports import free_port
from tests.fakes.processes import begin

# Generous: it bounds a hang and measures nothing; test machines may be very busy.
PATIENCE_S = 180.0


@dataclass(frozen=True)
class DeviceKey:
    """A key a device made, and requests signed with it."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def request(self, name: str) -> str:
        """A certificate signing request (PEM) for CN = name."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.key, hashes.SHA256())
        return built.public_bytes(Encoding.PEM).decode()

    def pem(self) -> bytes:
        """The private key."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class LocalFleet:
    """A server's services and both applications, without sockets."""

    def __init__(self, data: Path, **settings: Any) -> None:
        chosen = {"broker": "embedded", "mqtt_port": free_port(), **settings}
        self.context: Context = open_context(ServerSettings(data_dir=data, **chosen), time.time())
        self.people = TestClient(create_people_app(self.context), raise_server_exceptions=False)
        self._devices = create_devices_app(self.context)

    def key(self, role: Role) -> dict[str, str]:
        """Headers of somebody with a role."""
        with self.context.database.session() as session:
            _, secret = api_keys.create(session, f"test {role.value}", role, by="test", now=time.time())
        return {"Authorization": f"Bearer {secret}"}

    def device(self, certificate_pem: str | None) -> TestClient:
        """A client of the devices' application, with the certificate that TLS would have verified."""
        der = None if certificate_pem is None else _der(certificate_pem)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope.setdefault("extensions", {})["edgefleet.peer"] = {"der": der}
            await self._devices(scope, receive, send)

        return TestClient(app, raise_server_exceptions=False)

    def invite(self, device: str | None = None, ttl_s: float = 3600.0) -> Enrolment:
        """An enrolment document."""
        bound = None if device is None else DeviceId(device)
        return self.context.reception.invite(device=bound, labels={}, ttl_s=ttl_s, by="test", now=time.time())

    def enrol(self, device: str) -> str:
        """The certificate (PEM) of a newly enrolled device."""
        request = EnrolmentRequest(
            claim=self.invite(device).claim, device=DeviceId(device), csr_pem=DeviceKey().request(device)
        )
        return self.context.reception.enrol(request, time.time()).certificate_pem

    def close(self) -> None:
        """Give files and connections back."""
        self.context.stop()


@dataclass
class EnrolledDevice:
    """A device of a server process: identity on disk, and an HTTPS client that shows it."""

    id: DeviceId
    issued: Issued
    http: httpx.Client


@dataclass
class FleetProcess:
    """One `edge-fleet serve` in its own process."""

    data: Path
    broker: str
    people_port: int
    devices_port: int
    mqtt_port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The people's listener."""
        return f"http://127.0.0.1:{self.people_port}"

    @property
    def devices_url(self) -> str:
        """The devices' listener."""
        return f"https://127.0.0.1:{self.devices_port}"

    @property
    def ca_file(self) -> Path:
        """The fleet's authority."""
        return self.data / "ca" / "ca.crt"

    @property
    def api_key(self) -> str:
        """An admin's key."""
        return self._key_file.read_text().strip()

    @property
    def api(self) -> httpx.Client:
        """A client of the people's API, as an admin."""
        headers = {"Authorization": f"Bearer {self.api_key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60.0, trust_env=False)

    def command(self) -> list[str]:
        """The command line."""
        ports = ("--people-port", self.people_port, "--devices-port", self.devices_port, "--mqtt-port", self.mqtt_port)
        options = ("--data", self.data, "--broker", self.broker, "--admin-key-file", self._key_file, "--tick-s", "0.25")
        return [sys.executable, "-m", "fleet_server.cli.main", "serve", *map(str, (*options, *ports))]

    def start(self) -> None:
        """Return when it answers and its broker delivers to it."""
        self.process = begin(self.command(), self._log_file, new_session=True)
        wait_for(lambda: self._health() == "connected", "the server to be ready", self._ended)

    def stop(self) -> int:
        """End it as an operator would; its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def enrol(self, device: str) -> EnrolledDevice:
        """Let a new device in, over TLS with the pinned authority."""
        answer = self.api.post("/api/v1/claims", json={"device": device})
        claim = decode(answer.content, Enrolment).claim
        key = DeviceKey()
        request = EnrolmentRequest(claim=claim, device=DeviceId(device), csr_pem=key.request(device))
        with self.http(None) as stranger:
            granted = stranger.post(device_api.ENROL, content=encode(request))
        granted.raise_for_status()
        folder = self.data.parent / f"device-{device}"
        folder.mkdir(exist_ok=True)
        issued = Issued(folder / "device.crt", folder / "device.key", 0)
        issued.cert_file.write_text(decode(granted.content, IdentityGrant).certificate_pem)
        issued.key_file.write_bytes(key.pem())
        return EnrolledDevice(DeviceId(device), issued, self.http(issued))

    def http(self, issued: Issued | None) -> httpx.Client:
        """A client of the devices' listener, with or without a certificate."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if issued is not None:
            context.load_cert_chain(issued.cert_file, issued.key_file)
        return httpx.Client(base_url=self.devices_url, verify=context, timeout=60.0, trust_env=False)

    def log(self) -> str:
        """What it said so far."""
        return self._log_file.read_text(errors="replace")

    def logs(self) -> dict[str, str]:
        """The same, under its name."""
        return {"the server": self.log()}

    @property
    def _key_file(self) -> Path:
        return self.data.parent / f"{self.data.name}.admin-key"

    @property
    def _log_file(self) -> Path:
        return self.data.parent / f"{self.data.name}.log"

    def _health(self) -> str | None:
        try:
            return str(httpx.get(f"{self.url}/healthz", timeout=5.0, trust_env=False).json()["broker"])
        except (httpx.HTTPError, ValueError, KeyError):
            return None

    def _ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def _end(self, number: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        if process.poll() is None:
            os.kill(process.pid, number)
        return process.wait(PATIENCE_S)


@contextmanager
def running_server(folder: Path, broker: str = "embedded") -> Iterator[FleetProcess]:
    """A server process with its data under `folder`; nothing of it is left afterwards."""
    server = FleetProcess(folder / "fleet", broker, free_port(), free_port(), free_port())
    try:
        server.start()
        yield server
    finally:
        server.stop()


def every_route(routes: Iterable[object]) -> Iterator[APIRoute]:
    """All routes of an application, those of included routers too (newer FastAPI keeps them nested)."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif (nested := getattr(route, "original_router", None)) is not None:
            yield from every_route(nested.routes)


def wait_for(condition: Callable[[], bool], what: str, hopeless: Callable[[], bool] = lambda: False) -> None:
    """Poll with a bound. Raises: AssertionError when it never comes true."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert not hopeless(), f"waited in vain for {what}"
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.05)


def _der(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER)
