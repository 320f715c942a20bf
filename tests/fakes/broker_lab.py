"""A real broker with its own authority on a free loopback port, and people who try things on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from uuid import uuid4

from edge_runtime.contract.ids import DeviceId
from fleet_server.messaging.broker import AdapterName, Broker, BrokerSettings, open_broker
from tests.fakes.mqtt_client import Client, Person
from tests.fakes.pki import ThrowawayCa, make_ca
from tests.fakes.ports import free_port

SERVER: Final = "fleet-server"
MAX_PACKET_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class BrokerLab:
    """One running broker; `server` and `device` say who connects, `join` connects them."""

    broker: Broker
    settings: BrokerSettings
    ca: ThrowawayCa
    crl_file: Path

    def server(self) -> Person:
        """The fleet server itself."""
        return Person(SERVER, self.ca.issue(SERVER))

    def device(self, name: str) -> Person:
        """A new device with its own certificate; the name is made unique, so tests can share a broker."""
        device_id = f"{name}-{uuid4().hex[:8]}"
        return Person(device_id, self.ca.issue(device_id))

    def client(self, person: Person, *, reconnects: bool = False) -> Client:
        """Someone who has not tried to connect yet."""
        return Client(self.settings.port, self.ca.ca_file, person, reconnects=reconnects)

    def join(self, person: Person, *filters: str, reconnects: bool = False) -> Client:
        """Someone who is in and subscribed."""
        client = self.client(person, reconnects=reconnects)
        assert client.connect(), f"{person.client_id} was not let in"
        for topic_filter in filters:
            client.subscribe(topic_filter)
        return client


def up(person: Person, kind: str) -> str:
    """A topic the device itself may publish on."""
    return f"ef/v1/{person.client_id}/up/{kind}"


def down(person: Person, kind: str) -> str:
    """A topic only the server may publish on, for this device."""
    return f"ef/v1/{person.client_id}/down/{kind}"


def device_id(person: Person) -> DeviceId:
    """The person's client id, for calls that take devices."""
    return DeviceId(person.client_id)


@contextmanager
def running_broker(name: AdapterName, directory: Path, **overrides: object) -> Iterator[BrokerLab]:
    """Start a broker with a fresh authority; gone with all its files' owner when the block ends."""
    ca = make_ca(directory / "pki")
    own = ca.issue("broker")
    crl_file = directory / "pki" / "crl.pem"
    ca.write_crl(crl_file)
    settings = BrokerSettings(
        ca_file=ca.ca_file,
        cert_file=own.cert_file,
        key_file=own.key_file,
        crl_file=crl_file,
        data_dir=directory / "broker",
        port=free_port(),
        max_packet_bytes=MAX_PACKET_BYTES,
    )
    settings = replace(settings, **overrides)  # type: ignore[arg-type]
    broker = open_broker(name, settings)
    broker.start()
    try:
        yield BrokerLab(broker, settings, ca, crl_file)
    finally:
        broker.stop()
