"""The broker port: what the server asks of whatever carries MQTT, and which adapter is used when nobody says."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from edge_runtime.contract.errors import TransportError
from edge_runtime.contract.ids import DeviceId

BrokerName: TypeAlias = Literal["auto", "embedded", "mosquitto"]
AdapterName: TypeAlias = Literal["embedded", "mosquitto"]

_ADAPTERS: Final[Mapping[AdapterName, str]] = {
    "embedded": "fleet_server.messaging.embedded.adapter:EmbeddedBroker",
    "mosquitto": "fleet_server.messaging.mosquitto:MosquittoBroker",
}
# Debian puts daemons where a plain user's PATH does not look.
_SYSTEM_PATHS: Final = "/usr/sbin:/usr/local/sbin:/sbin"


class BrokerError(TransportError):
    """The broker cannot be started, told or reached."""

    default_code = "broker"


class Address(NamedTuple):
    """Where clients connect."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class DeniedCertificate:
    """One certificate that is refused though its device is not (its key was replaced); `serial` as in X.509."""

    device_id: DeviceId
    serial: int


@dataclass(frozen=True, slots=True)
class Denylist:
    """Everything that is revoked, as one whole: applying it twice changes nothing."""

    devices: frozenset[DeviceId] = frozenset()
    certificates: frozenset[DeniedCertificate] = frozenset()


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """How a broker listens, whom it believes, and what a client may cost.

    `cert_file`/`key_file` are the broker's own, `ca_file` signed both it and its clients. `crl_file` is needed only to
    deny single certificates with mosquitto. Outbound bytes are queued bytes per client; a client that reads slower is
    dropped. `unsafe_open_access` switches every topic rule off, for controls that must see an attack succeed.
    """

    ca_file: Path
    cert_file: Path
    key_file: Path
    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8883
    server_client_id: str = "fleet-server"
    crl_file: Path | None = None
    max_packet_bytes: int = 256 * 1024
    max_connections: int = 10_000
    max_inflight: int = 64
    max_outbound_bytes: int = 1024 * 1024
    max_server_outbound_bytes: int = 64 * 1024 * 1024
    max_subscriptions: int = 32
    max_retained: int = 100_000
    max_retained_bytes: int = 64 * 1024 * 1024
    max_retained_per_client: int = 64
    max_keepalive_s: int = 600
    connect_timeout_s: float = 10.0
    unsafe_open_access: bool = False


class Broker(Protocol):
    """A broker that runs beside the server and holds no truth: it may die at any moment and is started again."""

    @property
    def address(self) -> Address:
        """Where clients connect."""

    @property
    def process_id(self) -> int | None:
        """The broker's process, or None while there is none."""

    def start(self) -> None:
        """Return when clients can connect. Raises: BrokerError."""

    def stop(self) -> None:
        """Return when no process is left; safe to call twice."""

    def deny(self, denied: Denylist) -> None:
        """Make this the whole denylist and close the live sessions it names. Raises: BrokerError."""

    def revoke(self, device_id: DeviceId) -> None:
        """Add one device to the denylist. Raises: BrokerError."""


def choose_broker(name: BrokerName) -> AdapterName:
    """Settle "auto": mosquitto when this machine has it, else our own."""
    if name == "auto":
        return "mosquitto" if find_mosquitto() else "embedded"
    return name


def open_broker(name: BrokerName, settings: BrokerSettings) -> Broker:
    """Make the chosen broker, not yet started. Raises: BrokerError when mosquitto is wanted but not installed."""
    module, _, attribute = _ADAPTERS[choose_broker(name)].partition(":")
    broker: Broker = getattr(import_module(module), attribute)(settings)
    return broker


def find_mosquitto() -> str | None:
    """The path of the mosquitto daemon, or None."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=_SYSTEM_PATHS)
