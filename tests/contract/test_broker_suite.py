"""What every broker must hold, judged by what is delivered: a SUBACK or PUBACK proves nothing (mosquitto says yes)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import pytest

from fleet_server.messaging.broker import AdapterName, DeniedCertificate, Denylist
from tests.fakes.broker_lab import MAX_PACKET_BYTES, BrokerLab, device_id, down, running_broker, up
from tests.fakes.mqtt_client import Client, Person, eventually

ADAPTERS = [
    pytest.param("embedded", id="embedded"),
    pytest.param("mosquitto", id="mosquitto", marks=pytest.mark.needs_mosquitto),
]
EVERY_UP = "ef/v1/+/up/#"

Attack = Callable[[BrokerLab], bool]


@pytest.fixture(scope="module", params=ADAPTERS)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerLab]:
    """A broker with its rules on, shared by the tests of one adapter."""
    adapter = cast(AdapterName, request.param)
    with running_broker(adapter, tmp_path_factory.mktemp(adapter)) as lab:
        yield lab


@pytest.fixture(scope="module", params=ADAPTERS)
def open_lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerLab]:
    """The same broker with its topic rules switched off: the attacks below must be seen to succeed."""
    adapter = cast(AdapterName, request.param)
    with running_broker(adapter, tmp_path_factory.mktemp(f"open-{adapter}"), unsafe_open_access=True) as lab:
        yield lab


def a_foreign_publish_arrives(lab: BrokerLab) -> bool:
    victim, attacker = lab.device("victim"), lab.device("attacker")
    with lab.join(lab.server(), EVERY_UP) as server, lab.join(attacker) as intruder:
        intruder.publish(up(victim, "reported/main"), b"forged")
        return _arrived_before_fence(up(victim, "reported/main"), intruder, attacker, server)


def a_foreign_command_arrives(lab: BrokerLab) -> bool:
    victim, attacker = lab.device("victim"), lab.device("attacker")
    with (
        lab.join(lab.server()) as server,
        lab.join(victim, down(victim, "#")) as device,
        lab.join(attacker) as intruder,
    ):
        intruder.publish(down(victim, "cmd/1"), b"forged")
        server.publish(down(victim, "cmd/2"), b"genuine")
        assert device.has_received(down(victim, "cmd/2"), b"genuine")
        return any(message.payload == b"forged" for message in device.messages)


def a_foreign_retained_message_arrives(lab: BrokerLab) -> bool:
    victim, attacker = lab.device("victim"), lab.device("attacker")
    with lab.join(attacker) as intruder:
        intruder.publish(up(victim, "status"), b"forged", retain=True)
        with lab.join(lab.server(), EVERY_UP) as server:
            return _arrived_before_fence(up(victim, "status"), intruder, attacker, server)


def a_foreign_will_arrives(lab: BrokerLab) -> bool:
    victim, attacker = lab.device("victim"), lab.device("attacker")
    with lab.join(lab.server(), EVERY_UP) as server:
        intruder = lab.client(replace(attacker, will=(up(victim, "status"), b"forged", True)))
        intruder.connect()
        intruder.die()
        # Taking the session over ends it for certain, and its will goes out before anything of the new one.
        with lab.join(attacker) as again:
            return _arrived_before_fence(up(victim, "status"), again, attacker, server)


def a_foreign_subscription_by(topic_filter: Callable[[Person], str]) -> Attack:
    def delivers(lab: BrokerLab) -> bool:
        victim, attacker = lab.device("victim"), lab.device("attacker")
        with (
            lab.join(lab.server()) as server,
            lab.join(victim, down(victim, "#")) as device,
            lab.join(attacker, down(attacker, "#"), topic_filter(victim)) as intruder,
        ):
            server.publish(down(victim, "desired/main"), b"secret")
            assert device.has_received(down(victim, "desired/main"), b"secret")
            server.publish(down(attacker, "fence"), b"fence")
            assert intruder.has_received(down(attacker, "fence"), b"fence")
            return any(message.payload == b"secret" for message in intruder.messages)

    return delivers


ATTACKS = [
    pytest.param(a_foreign_publish_arrives, id="publish"),
    pytest.param(a_foreign_command_arrives, id="command"),
    pytest.param(a_foreign_retained_message_arrives, id="retained"),
    pytest.param(a_foreign_will_arrives, id="will"),
    pytest.param(a_foreign_subscription_by(lambda victim: down(victim, "desired/main")), id="subscribe-exact"),
    pytest.param(a_foreign_subscription_by(lambda victim: down(victim, "#")), id="subscribe-below"),
    pytest.param(a_foreign_subscription_by(lambda _: "ef/v1/+/down/#"), id="subscribe-plus"),
    pytest.param(a_foreign_subscription_by(lambda _: "#"), id="subscribe-all"),
]


@pytest.mark.parametrize("succeeds", ATTACKS)
def test_nothing_foreign_is_ever_delivered(lab: BrokerLab, succeeds: Attack) -> None:
    assert not succeeds(lab)


@pytest.mark.parametrize("succeeds", ATTACKS)
def test_with_the_rules_off_every_attack_is_seen_to_succeed(open_lab: BrokerLab, succeeds: Attack) -> None:
    assert succeeds(open_lab)


def test_a_device_and_the_server_reach_each_other(lab: BrokerLab) -> None:
    person = lab.device("camera")
    with lab.join(lab.server(), EVERY_UP) as server, lab.join(person, down(person, "#")) as device:
        device.publish(up(person, "birth"), b"hello")
        server.publish(down(person, "ack"), b"got it")

        assert server.has_received(up(person, "birth"), b"hello")
        assert device.has_received(down(person, "ack"), b"got it")


@pytest.mark.parametrize("clean_session", [False, True], ids=["resume", "wipe"])
def test_nobody_without_a_certificate_touches_a_session(lab: BrokerLab, *, clean_session: bool) -> None:
    person = lab.device("camera")
    with lab.join(lab.server()) as server, lab.join(person, down(person, "#")) as device:
        stranger = lab.client(Person(person.client_id, None, clean_session=clean_session))
        assert not stranger.connect()
        stranger.leave()

        server.publish(down(person, "cmd/1"), b"still there?")
        assert device.has_received(down(person, "cmd/1"), b"still there?")
        assert device.disconnects == 0


@pytest.mark.parametrize("clean_session", [False, True], ids=["resume", "wipe"])
def test_another_certificate_with_the_victims_client_id_changes_nothing(lab: BrokerLab, *, clean_session: bool) -> None:
    victim, attacker = lab.device("victim"), lab.device("attacker")
    impostor = Person(victim.client_id, attacker.certificate, clean_session=clean_session)
    with lab.join(lab.server(), EVERY_UP) as server, lab.join(victim, down(victim, "#")) as device:
        with lab.client(impostor) as intruder:
            # mosquitto lets it in under the certificate's own name, the embedded broker not at all.
            if intruder.connect():
                intruder.subscribe(down(victim, "#"))
                intruder.publish(up(victim, "reported/main"), b"forged")
            server.publish(down(victim, "cmd/1"), b"for the victim")
            assert device.has_received(down(victim, "cmd/1"), b"for the victim")
            assert intruder.messages == []

        device.publish(up(victim, "birth"), b"genuine")
        assert server.has_received(up(victim, "birth"), b"genuine")
        assert not any(message.payload == b"forged" for message in server.messages)
        assert device.disconnects == 0


def test_an_oversize_packet_drops_only_its_sender(lab: BrokerLab) -> None:
    loud, quiet = lab.device("loud"), lab.device("quiet")
    with (
        lab.join(lab.server(), EVERY_UP) as server,
        lab.join(loud) as sender,
        lab.join(quiet) as other,
    ):
        sender.publish(up(loud, "telemetry"), bytes(MAX_PACKET_BYTES + 1))
        assert sender.was_disconnected()

        other.publish(up(quiet, "telemetry"), bytes(MAX_PACKET_BYTES // 2))
        assert server.has_received(up(quiet, "telemetry"), bytes(MAX_PACKET_BYTES // 2))
        assert all(message.topic != up(loud, "telemetry") for message in server.messages)


def test_a_device_that_dies_leaves_its_will(lab: BrokerLab) -> None:
    person = lab.device("camera")
    with lab.join(lab.server(), EVERY_UP) as server:
        lab.join(replace(person, will=(up(person, "status"), b"lost", True))).die()

        assert server.has_received(up(person, "status"), b"lost")


def test_a_device_that_says_goodbye_leaves_no_will(lab: BrokerLab) -> None:
    person = lab.device("camera")
    with lab.join(lab.server(), EVERY_UP) as server:
        lab.join(replace(person, will=(up(person, "status"), b"lost", True))).leave()

        with lab.join(person) as again:
            assert not _arrived_before_fence(up(person, "status"), again, person, server)


def test_a_server_that_comes_late_still_sees_the_status(lab: BrokerLab) -> None:
    person = lab.device("camera")
    with lab.join(person) as device:
        device.publish(up(person, "status"), b"ready", retain=True)

    with lab.join(lab.server(), EVERY_UP) as server:
        assert server.has_received(up(person, "status"), b"ready")
        assert any(message.retain for message in server.messages if message.topic == up(person, "status"))


def test_a_revoked_device_is_cut_off_while_it_is_connected(lab: BrokerLab) -> None:
    revoked, other = lab.device("revoked"), lab.device("other")
    with (
        lab.join(lab.server(), EVERY_UP) as server,
        lab.join(replace(revoked, will=(up(revoked, "status"), b"lost", True)), down(revoked, "#")) as device,
        lab.join(other, down(other, "#")) as bystander,
    ):
        lab.broker.revoke(device_id(revoked))
        assert device.was_disconnected()

        # It may come back with the same certificate, or not: it must have nothing of it either way.
        with lab.client(revoked) as again:
            if again.connect():
                again.subscribe(down(revoked, "#"))
                again.publish(up(revoked, "birth"), b"from the grave")
            server.publish(down(revoked, "cmd/1"), b"secret")
            server.publish(down(other, "cmd/1"), b"you stay")
            assert bystander.has_received(down(other, "cmd/1"), b"you stay")
            assert not _arrived_before_fence(up(revoked, "birth"), bystander, other, server)
            assert again.messages == []
        assert device.messages == []
        assert bystander.disconnects == 0


def test_an_old_certificate_is_refused_while_its_device_goes_on_with_a_new_one(lab: BrokerLab) -> None:
    old = lab.device("replaced")
    new = replace(old, certificate=lab.ca.issue(old.client_id, file_name=f"{old.client_id}-new"))
    assert old.certificate is not None
    with lab.join(lab.server(), EVERY_UP) as server:
        with lab.join(old) as device:
            lab.ca.write_crl(lab.crl_file, [old.certificate.serial])
            denied = DeniedCertificate(device_id(old), old.certificate.serial)
            lab.broker.deny(Denylist(certificates=frozenset({denied})))
            assert device.was_disconnected()

        with lab.client(old) as again:
            assert not again.connect()
        with lab.join(new) as replacement:
            replacement.publish(up(new, "birth"), b"new key")
            assert server.has_received(up(new, "birth"), b"new key")


def test_a_broker_killed_outright_comes_back_and_clients_find_it(lab: BrokerLab) -> None:
    person = lab.device("camera")
    before = lab.broker.process_id
    assert before is not None
    with lab.join(person, reconnects=True) as device:
        os.kill(before, signal.SIGKILL)
        assert device.was_disconnected()
        assert device.reconnected()

        with lab.join(lab.server(), EVERY_UP) as server:
            device.publish(up(person, "birth"), b"again")
            assert server.has_received(up(person, "birth"), b"again")
    assert eventually(lambda: lab.broker.process_id not in {None, before})


def _arrived_before_fence(topic: str, sender: Client, person: Person, server: Client) -> bool:
    """Whether anything on `topic` reached the server before a message that was surely sent later."""
    sender.publish(up(person, "event"), b"fence")
    assert server.has_received(up(person, "event"), b"fence")
    return any(message.topic == topic for message in server.messages)
