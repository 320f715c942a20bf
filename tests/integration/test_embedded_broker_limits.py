"""One client cannot take the embedded broker from the others: silence, floods and slow reading end its connection."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

import pytest

from fleet_server.messaging.embedded.codec import Decoder, encode
from fleet_server.messaging.embedded.packets import (
    SUBSCRIBE_REFUSED,
    Connack,
    Connect,
    ConnectCode,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Will,
)
from tests.fakes.broker_lab import BrokerLab, down, running_broker, up
from tests.fakes.mqtt_client import Person

PATIENCE_S = 30.0


class Wire:
    """A TLS connection on which a test says exactly the bytes it wants."""

    def __init__(self, lab: BrokerLab, person: Person) -> None:
        context = ssl.create_default_context(cafile=str(lab.ca.ca_file))
        assert person.certificate is not None
        context.load_cert_chain(person.certificate.cert_file, person.certificate.key_file)
        link = socket.create_connection(("127.0.0.1", lab.settings.port), PATIENCE_S)
        self.link = context.wrap_socket(link, server_hostname="localhost")
        self._decoder = Decoder(1 << 20)

    def say(self, *packets: Packet) -> None:
        self.link.sendall(b"".join(encode(packet) for packet in packets))

    def hear(self) -> Packet | None:
        """The next packet, or None when the broker has closed."""
        while True:
            try:
                data = self.link.recv(4096)
            except ConnectionError:
                return None
            if not data:
                return None
            for packet in self._decoder.feed(data):
                return packet


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerLab]:
    small = {
        "connect_timeout_s": 4.0,
        "max_outbound_bytes": 100_000,
        "max_subscriptions": 2,
        "max_inflight": 4,
        "max_retained_per_client": 2,
        "max_connections": 20,
    }
    with running_broker("embedded", tmp_path_factory.mktemp("limits"), **small) as lab:
        yield lab


def test_a_connection_that_never_introduces_itself_is_closed(lab: BrokerLab) -> None:
    wire = Wire(lab, lab.device("mute"))

    assert wire.hear() is None


def test_a_client_silent_beyond_its_keepalive_is_closed_and_leaves_its_will(lab: BrokerLab) -> None:
    person = lab.device("asleep")
    with lab.join(lab.server(), "ef/v1/+/up/#") as server:
        wire = Wire(lab, person)
        wire.say(Connect(person.client_id, keepalive_s=1, will=Will(up(person, "status"), b"lost")))
        assert wire.hear() == Connack(ConnectCode.ACCEPTED)

        assert wire.hear() is None
        assert server.has_received(up(person, "status"), b"lost")


def test_a_ping_is_answered(lab: BrokerLab) -> None:
    person = lab.device("awake")
    wire = Wire(lab, person)
    wire.say(Connect(person.client_id), Pingreq())

    assert wire.hear() == Connack(ConnectCode.ACCEPTED)
    assert wire.hear() == Pingresp()


def test_a_second_connect_is_a_protocol_error(lab: BrokerLab) -> None:
    person = lab.device("twice")
    wire = Wire(lab, person)
    wire.say(Connect(person.client_id), Connect(person.client_id))

    while (packet := wire.hear()) is not None:
        assert packet == Connack(ConnectCode.ACCEPTED)


def test_a_packet_before_connect_is_never_acted_on(lab: BrokerLab) -> None:
    person = lab.device("hasty")
    with lab.join(lab.server(), "ef/v1/+/up/#") as server:
        wire = Wire(lab, person)
        wire.say(Publish(up(person, "birth"), b"too early"))
        assert wire.hear() is None

        with lab.join(person) as device:
            device.publish(up(person, "birth"), b"in time")
        assert server.has_received(up(person, "birth"), b"in time")
        assert all(message.payload != b"too early" for message in server.messages)


def test_a_client_that_does_not_read_is_dropped_and_the_others_go_on(lab: BrokerLab) -> None:
    slow, other = lab.device("slow"), lab.device("other")
    wire = Wire(lab, slow)
    wire.link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.say(Connect(slow.client_id), Subscribe(1, ((down(slow, "#"), 1),)))
    assert [wire.hear(), wire.hear()] == [Connack(ConnectCode.ACCEPTED), Suback(1, (1,))]
    with lab.join(lab.server(), "ef/v1/+/up/#") as server, lab.join(other, down(other, "#")) as bystander:
        # It acknowledges nothing, so what it does not read queues up in the broker until the bound is reached.
        for _ in range(40):
            server.publish(down(slow, "cmd/1"), bytes(4000))

        received = 0
        while (packet := wire.hear()) is not None:
            received += isinstance(packet, Publish)
        assert received < 40
        server.publish(down(other, "cmd/1"), b"still here")
        assert bystander.has_received(down(other, "cmd/1"), b"still here")
        assert bystander.disconnects == 0


def test_subscriptions_beyond_the_bound_are_refused(lab: BrokerLab) -> None:
    person = lab.device("curious")
    wire = Wire(lab, person)
    filters = tuple((down(person, f"cmd/{n}"), 1) for n in range(3))
    wire.say(Connect(person.client_id), Subscribe(7, filters))

    assert wire.hear() == Connack(ConnectCode.ACCEPTED)
    assert wire.hear() == Suback(7, (1, 1, SUBSCRIBE_REFUSED))


def test_one_device_cannot_fill_the_retained_store(lab: BrokerLab) -> None:
    person = lab.device("hoarder")
    with lab.join(person) as device:
        for n in range(4):
            device.publish(up(person, f"log/{n}"), b"keep", retain=True)

    with lab.join(lab.server(), f"ef/v1/{person.client_id}/up/#") as server, lab.join(person) as device:
        device.publish(up(person, "event"), b"fence")
        assert server.has_received(up(person, "event"), b"fence")
        kept = [message.topic for message in server.messages if message.retain]
        assert sorted(kept) == [up(person, "log/0"), up(person, "log/1")]


def test_mqtt_5_is_answered_with_the_version_we_speak(lab: BrokerLab) -> None:
    wire = Wire(lab, lab.device("modern"))
    wire.link.sendall(b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01a")

    assert wire.hear() == Connack(ConnectCode.UNACCEPTABLE_PROTOCOL)
    assert wire.hear() is None


def test_connections_beyond_the_cap_are_closed_and_the_open_ones_stay(lab: BrokerLab) -> None:
    first = lab.device("first")
    wire = Wire(lab, first)
    wire.say(Connect(first.client_id))
    assert wire.hear() == Connack(ConnectCode.ACCEPTED)
    crowd = [socket.create_connection(("127.0.0.1", lab.settings.port), PATIENCE_S) for _ in range(30)]

    # Those that were let in wait for their handshake; the rest got an end of file at once.
    crowd[-1].settimeout(PATIENCE_S)
    turned_away = crowd[-1].recv(1) == b""
    for link in crowd:
        link.close()

    assert turned_away
    wire.say(Pingreq())
    assert wire.hear() == Pingresp()
