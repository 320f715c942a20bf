"""The broker's process lives exactly as long as its server, and says clearly why it cannot start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.ids import DeviceId
from fleet_server.messaging.broker import (
    BrokerError,
    choose_broker,
    find_mosquitto,
    open_broker,
)
from fleet_server.messaging.process import restart_delay_s, speaks_tls
from tests.fakes.broker_lab import BrokerLab, running_broker
from tests.fakes.mqtt_client import eventually

ADAPTERS = [
    pytest.param("embedded", id="embedded"),
    pytest.param("mosquitto", id="mosquitto", marks=pytest.mark.needs_mosquitto),
]

# Stands for a server that starts its broker and is then killed.
_SERVER = """
import sys, time
from pathlib import Path
from fleet_server.messaging.broker import BrokerSettings, open_broker
pki, port = Path(sys.argv[2]), int(sys.argv[3])
broker = open_broker(sys.argv[1], BrokerSettings(
    ca_file=pki / "ca.crt", cert_file=pki / "broker.crt", key_file=pki / "broker.key",
    data_dir=pki.parent / "other-broker", port=port))
broker.start()
(pki / "pid.part").write_text(str(broker.process_id))
(pki / "pid.part").rename(pki / "pid")
time.sleep(600)
"""


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_killed_server_takes_its_broker_along_and_the_port_is_free_again(adapter: str, tmp_path: Path) -> None:
    with running_broker("embedded", tmp_path) as lab:
        settings = lab.settings
    command = [sys.executable, "-c", _SERVER, adapter, str(tmp_path / "pki"), str(settings.port)]
    server = subprocess.Popen(command)
    pid_file = tmp_path / "pki" / "pid"
    try:
        assert eventually(lambda: pid_file.exists() or server.poll() is not None, 60)
        broker_pid = int(pid_file.read_text())
        assert _is_running(broker_pid)
    finally:
        server.kill()
        server.wait(10)

    again = open_broker("embedded", settings)
    again.start()
    try:
        assert speaks_tls(again.address)
        assert eventually(lambda: not _is_running(broker_pid))
    finally:
        again.stop()
    assert not speaks_tls(again.address)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_taken_port_is_named_with_what_to_do(adapter: str, tmp_path: Path) -> None:
    with running_broker("embedded", tmp_path) as lab:
        settings = lab.settings
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = int(other.getsockname()[1])
        broker = open_broker("embedded" if adapter == "embedded" else "mosquitto", replace(settings, port=port))

        with pytest.raises(BrokerError) as caught:
            broker.start()

    expected = f"cannot start the broker on 127.0.0.1:{port}: address in use by another process; "
    assert str(caught.value) == f"{expected}choose another with --mqtt-port"
    assert broker.process_id is None


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_broker_with_a_broken_certificate_fails_at_once_with_the_reason(adapter: str, tmp_path: Path) -> None:
    with running_broker("embedded", tmp_path) as lab:
        settings = lab.settings
    settings.cert_file.write_text("no certificate")
    broker = open_broker("embedded" if adapter == "embedded" else "mosquitto", settings)

    with pytest.raises(BrokerError, match="cannot start the broker"):
        broker.start()

    assert broker.process_id is None


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_broker_killed_while_it_starts_is_started_again(adapter: str, tmp_path: Path) -> None:
    with running_broker("embedded", tmp_path) as lab:
        settings = lab.settings
    broker = open_broker("embedded" if adapter == "embedded" else "mosquitto", settings)
    with ThreadPoolExecutor(1) as elsewhere:
        started = elsewhere.submit(broker.start)
        assert eventually(lambda: broker.process_id is not None or started.done(), 60)
        killed = broker.process_id
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        started.result(timeout=120)
    try:
        assert eventually(lambda: speaks_tls(broker.address), 60)
        assert broker.process_id != killed
    finally:
        broker.stop()


def test_a_revocation_outlives_the_broker(tmp_path: Path) -> None:
    with running_broker("embedded", tmp_path) as lab:
        person = lab.device("revoked")
        lab.broker.stop()
        _revoke(lab, person.client_id)
        lab.broker.start()

        with lab.client(person) as client:
            assert not client.connect()


def test_mosquitto_is_taken_when_it_is_there() -> None:
    assert choose_broker("auto") == ("mosquitto" if find_mosquitto() else "embedded")
    assert choose_broker("embedded") == "embedded"


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_restarts_are_spread_and_capped(failures: int, chance: float) -> None:
    delay_s = restart_delay_s(failures, chance)

    assert 0.05 <= delay_s <= 15
    assert delay_s <= restart_delay_s(failures + 1, chance)


def _revoke(lab: BrokerLab, client_id: str) -> None:
    lab.broker.revoke(DeviceId(client_id))


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process whose parent is gone may stay as a zombie until init collects it.
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
