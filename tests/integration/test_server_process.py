"""The whole server as its own process: TLS, broker, revocation on live sessions, sudden death, clean end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from edge_runtime.contract import device_api, topics
from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_state import Birth, Status
from edge_runtime.contract.ids import DeviceId
from edge_runtime.contract.telemetry import TelemetryAck
from tests.fakes import documents
from tests.fakes.mqtt_client import Client, Person
from tests.fakes.server import EnrolledDevice, FleetProcess, running_server, wait_for

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
NONCE = {"nonce": "0123456789abcdef"}


@pytest.fixture(scope="module", params=["embedded", pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    with running_server(tmp_path_factory.mktemp(str(request.param)), str(request.param)) as running:
        yield running


def connected(server: FleetProcess, device: EnrolledDevice) -> Client:
    client = Client(server.mqtt_port, server.ca_file, Person(device.id, device.issued), reconnects=True)
    assert client.connect()
    client.subscribe(topics.all_down(device.id))
    return client


def birth(device: DeviceId, session: str) -> bytes:
    return encode(Birth(device=device, session=session, agent="test", facts=documents.facts(), slots={}))


def connection(server: FleetProcess, device: DeviceId) -> str:
    return str(server.api.get(f"/api/v1/devices/{device}").json()["connection"])


def test_tls_without_a_certificate_reaches_enrolment_only(server: FleetProcess) -> None:
    with server.http(None) as stranger:
        assert stranger.get(device_api.tuf_path("timestamp.json")).status_code == 401
        assert stranger.post(device_api.ENROL, content=b"{}").status_code == 422


def test_a_device_enrols_is_born_reports_and_is_acknowledged(server: FleetProcess) -> None:
    device = server.enrol("cam-1")
    assert device.http.get(device_api.ASSIGNMENTS, params=NONCE).status_code == 200

    with connected(server, device) as client:
        client.publish(topics.up(device.id, topics.BIRTH), birth(device.id, "s1"))
        client.publish(
            topics.up(device.id, topics.STATUS),
            encode(Status(device=device.id, state="ready", session="s1")),
            retain=True,
        )
        batch = documents.batch(0, 2)
        client.publish(topics.up(device.id, topics.TELEMETRY), encode(batch))

        wait_for(lambda: connection(server, device.id) == "ready", "the birth to arrive")
        ack = encode(TelemetryAck(epoch=batch.epoch, stream=batch.stream, seq=1))
        wait_for(lambda: client.has_received(topics.ack(device.id), ack), "the acknowledgement")
    summary = server.api.get("/api/v1/telemetry/summary", params={"device": device.id}).json()
    assert summary["items"][0]["requests"] == 8


def test_a_revoked_device_loses_its_live_sessions(server: FleetProcess) -> None:
    device, other = server.enrol("bad-1"), server.enrol("good-1")
    device.http.get(device_api.ASSIGNMENTS, params=NONCE).raise_for_status()
    with connected(server, device) as client, connected(server, other) as good:
        assert server.api.post(f"/api/v1/devices/{device.id}/revoke").status_code == 204

        # The same connection, kept alive since before the revocation.
        assert device.http.get(device_api.ASSIGNMENTS, params=NONCE).status_code == 401
        assert client.was_disconnected()
        client.publish(topics.up(device.id, topics.BIRTH), birth(device.id, "after"))
        good.publish(topics.up(other.id, topics.BIRTH), birth(other.id, "s1"))
        wait_for(lambda: connection(server, other.id) == "ready", "the other device, which is not affected")
    assert connection(server, device.id) == "unknown"


def test_a_server_that_was_killed_comes_back_with_everything_it_knew(server: FleetProcess) -> None:
    device = server.enrol("survivor-1")
    authority, key = server.ca_file.read_bytes(), server.api_key

    server.kill()
    server.start()

    assert (server.ca_file.read_bytes(), server.api_key) == (authority, key)
    assert device.http.get(device_api.ASSIGNMENTS, params=NONCE).status_code == 200
    with connected(server, device) as client:
        client.publish(topics.up(device.id, topics.BIRTH), birth(device.id, "s9"))
        wait_for(lambda: connection(server, device.id) == "ready", "the birth after the restart")
    assert server.api.get("/api/v1/audit/verdict").json()["intact"]


def test_a_taken_port_is_one_clear_error_and_nothing_is_left(server: FleetProcess, tmp_path) -> None:  # type: ignore[no-untyped-def]
    second = FleetProcess(tmp_path / "second", "embedded", server.people_port, server.devices_port, server.mqtt_port)

    ended = subprocess.run(second.command(), capture_output=True, text=True, timeout=600, check=False)

    assert ended.returncode == 1
    taken = " and ".join(f"127.0.0.1:{port}" for port in (server.people_port, server.devices_port, server.mqtt_port))
    remedy = "choose another with --people-port, --devices-port, --mqtt-port"
    assert ended.stderr == f"error: cannot listen on {taken}: another program uses the port; {remedy}\n"
    assert not second.data.exists()


def test_a_server_ends_cleanly_on_sigterm_although_devices_keep_their_connections(server: FleetProcess) -> None:
    with server.http(None) as device:
        device.get("/")  # answered, and the connection stays open
        assert server.stop() == 0
    assert "Traceback" not in server.log()
    assert server.log().splitlines()[-1] == "stopped"
    server.start()
