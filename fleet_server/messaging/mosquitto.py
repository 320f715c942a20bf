"""mosquitto behind the port: its files are written here, its process supervised, its revoked sessions closed.

Unlike our own broker it keeps the queue of a client that asks for a persistent session, in memory and bounded; nothing
of ours asks for one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from edge_runtime.contract import topics
from edge_runtime.contract.ids import DeviceId, parse_device_id
from fleet_server.messaging.broker import Address, BrokerError, BrokerSettings, Denylist, find_mosquitto
from fleet_server.messaging.denylist import read_denylist, write_denylist
from fleet_server.messaging.embedded.codec import Decoder, encode
from fleet_server.messaging.embedded.packets import Connack, Connect, Disconnect, MalformedPacket
from fleet_server.messaging.files import prepare_directory, replace_file, with_absolute_paths
from fleet_server.messaging.process import SupervisedProcess

_CONF: Final = "mosquitto.conf"
_ACL: Final = "acl"
_KICK_ACL: Final = "acl.kick"
_KICK_SOCKET: Final = "kick.sock"
_KICK_TIMEOUT_S: Final = 5.0
_KICK_PROBE_ID: Final = "kick/probe"
_KICK_PACKET_BYTES: Final = 1024


class MosquittoBroker:
    """mosquitto 2 as Debian ships it (seen with 2.0.11)."""

    def __init__(self, settings: BrokerSettings) -> None:
        program = find_mosquitto()
        if program is None:
            raise BrokerError(
                "start mosquitto", "it is not installed", "install mosquitto or use --broker embedded", code="broker"
            )
        self._settings = with_absolute_paths(settings)
        self._directory = self._settings.data_dir
        self._denylist_file = self._directory / "denylist.json"
        command = (str(Path(program).absolute()), "-c", str(self._directory / _CONF))
        self._process = SupervisedProcess(command, self.address, self._directory)

    @property
    def address(self) -> Address:
        """Where clients connect."""
        return Address(self._settings.host, self._settings.port)

    @property
    def process_id(self) -> int | None:
        """The broker's process, or None while there is none."""
        return self._process.process_id

    def start(self) -> None:
        """Return when clients can connect. Raises: BrokerError."""
        prepare_directory(self._directory)
        configuration = mosquitto_conf(self._settings, runs_as_root=os.geteuid() == 0)
        replace_file(self._directory / _CONF, configuration.encode())
        replace_file(self._directory / _KICK_ACL, b"topic deny #\n")
        self._write_acl(read_denylist(self._denylist_file))
        self._process.start()

    def stop(self) -> None:
        """Return when no process is left; safe to call twice."""
        self._process.stop()
        (self._directory / _KICK_SOCKET).unlink(missing_ok=True)

    def deny(self, denied: Denylist) -> None:
        """Make this the whole denylist and close the live sessions it names. Raises: BrokerError.

        A denied device keeps its TLS connection until it is kicked, and gets in again until its certificate expires,
        but the topic rules leave it nothing. A denied certificate is refused by `crl_file`, which must name it already.
        """
        if denied.certificates and self._settings.crl_file is None:
            raise BrokerError(
                "deny a certificate", "mosquitto refuses certificates by a CRL only", "set crl_file in BrokerSettings"
            )
        prepare_directory(self._directory)
        before = read_denylist(self._denylist_file)
        write_denylist(self._denylist_file, denied)
        self._write_acl(denied)
        self._process.reload()
        named = denied.devices - before.devices
        named |= {entry.device_id for entry in denied.certificates - before.certificates}
        if self.process_id is not None and named:
            kick(self._directory, named)

    def revoke(self, device_id: DeviceId) -> None:
        """Add one device to the denylist. Raises: BrokerError."""
        denied = read_denylist(self._denylist_file)
        self.deny(replace(denied, devices=denied.devices | {device_id}))

    def _write_acl(self, denied: Denylist) -> None:
        rules = mosquitto_acl(self._settings.server_client_id, denied)
        replace_file(self._directory / _ACL, rules.encode())


def mosquitto_conf(settings: BrokerSettings, *, runs_as_root: bool) -> str:
    """The configuration file; every path in it is absolute, except the socket whose path would be too long."""
    lines = [
        # As root, mosquitto would become the user "mosquitto", who may read none of our files, and would lose the
        # signal that lets it die with the server. It is as privileged as the server, no more.
        *(["user root"] if runs_as_root else []),
        "per_listener_settings true",
        "persistence false",
        "sys_interval 0",
        "set_tcp_nodelay true",
        "connection_messages false",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        f"max_packet_size {settings.max_packet_bytes}",
        f"max_inflight_messages {settings.max_inflight}",
        f"max_queued_bytes {settings.max_server_outbound_bytes}",
        "max_queued_messages 100000",
        f"listener {settings.port} {settings.host}",
        f"max_connections {settings.max_connections}",
        "max_qos 1",
        f"cafile {settings.ca_file}",
        f"certfile {settings.cert_file}",
        f"keyfile {settings.key_file}",
        *([f"crlfile {settings.crl_file}"] if settings.crl_file else []),
        "require_certificate true",
        "use_identity_as_username true",
        # Without this, one device's certificate could name another's client id and end its session.
        "use_username_as_clientid true",
        "allow_anonymous false",
        *([] if settings.unsafe_open_access else [f"acl_file {settings.data_dir / _ACL}"]),
        # Whoever takes over a client id closes its session; only we may enter the directory of this socket.
        f"listener 0 {_KICK_SOCKET}",
        "allow_anonymous true",
        f"acl_file {settings.data_dir / _KICK_ACL}",
    ]
    return "\n".join(lines) + "\n"


def mosquitto_acl(server_client_id: str, denied: Denylist) -> str:
    """The topic rules of `embedded.access` in mosquitto's words; a denial stands above every pattern."""
    lines = [
        f"user {server_client_id}",
        f"topic readwrite {topics.ROOT}/#",
        "",
        f"pattern write {topics.ROOT}/%u/{topics.UP}/#",
        f"pattern read {topics.ROOT}/%u/{topics.DOWN}/#",
    ]
    for device_id in sorted(denied.devices):
        lines += ["", f"user {parse_device_id(device_id)}", "topic deny #"]
    return "\n".join(lines) + "\n"


def kick(directory: Path, device_ids: Iterable[DeviceId]) -> None:
    """Close live sessions by taking over their client ids through the private socket. Raises: BrokerError."""
    try:
        # mosquitto reads its files again at the end of a turn of its loop: one answered CONNECT proves a turn, so
        # nobody we close now can come back under the old rules.
        for client_id in (_KICK_PROBE_ID, *device_ids):
            _take_over(directory, client_id)
    except (OSError, MalformedPacket) as error:
        remedy = "restart the server: a new broker has no sessions"
        raise BrokerError("close revoked sessions", str(error) or "mosquitto does not answer", remedy) from error


def _take_over(directory: Path, client_id: str) -> None:
    # A Unix socket's path holds 107 bytes; through the descriptor it is short however deep the directory lies.
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(_KICK_TIMEOUT_S)
            link.connect(f"/proc/self/fd/{handle}/{_KICK_SOCKET}")
            link.sendall(encode(Connect(client_id)))
            decoder = Decoder(_KICK_PACKET_BYTES)
            while not any(isinstance(packet, Connack) for packet in decoder.feed(_receive(link))):
                pass
            link.sendall(encode(Disconnect()))
    finally:
        os.close(handle)


def _receive(link: socket.socket) -> bytes:
    data = link.recv(4096)
    if not data:
        raise ConnectionError("mosquitto closed the connection")
    return data
