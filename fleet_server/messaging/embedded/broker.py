"""The embedded broker as a process: one TLS listener, the sweep that drops the silent, revocation on SIGHUP."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_runtime.contract.errors import EdgeError
from edge_runtime.contract.ids import DeviceId
from fleet_server.messaging.broker import BrokerError, BrokerSettings, DeniedCertificate, Denylist
from fleet_server.messaging.denylist import read_denylist
from fleet_server.messaging.embedded.access import fleet_access, unsafe_open_access
from fleet_server.messaging.embedded.connection import Connection, ConnectionRules, PeerIdentity, Roster
from fleet_server.messaging.embedded.hub import Hub, HubLimits
from fleet_server.messaging.embedded.journal import say, say_of_client
from fleet_server.messaging.embedded.session import SessionLimits

_SWEEP_S: Final = 1.0
_BACKLOG: Final = 1024
_OUT_OF_DESCRIPTORS_PAUSE_S: Final = 0.1


async def serve(settings: BrokerSettings, denylist_file: Path) -> None:
    """Run the broker until SIGTERM or SIGINT. Raises: BrokerError when it cannot begin."""
    loop = asyncio.get_running_loop()
    broker = EmbeddedServer(settings, denylist_file)
    # Before the first reading, so that no SIGHUP can fall between.
    loop.add_signal_handler(signal.SIGHUP, broker.reload)
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    broker.load()
    with _listen(settings) as listener:
        accepting = loop.create_task(broker.accept_from(listener))
        sweeping = loop.create_task(broker.sweep())
        say("broker.started", host=settings.host, port=settings.port)
        await stopping.wait()
        accepting.cancel()
        sweeping.cancel()
    say("broker.stopped")


class EmbeddedServer:
    """Accepts connections within the caps and keeps the denylist in force."""

    def __init__(self, settings: BrokerSettings, denylist_file: Path) -> None:
        self._settings = settings
        self._denylist_file = denylist_file
        self._denied = Denylist()
        self._context = _tls_context(settings)
        self._roster = Roster()
        self._handshakes: set[asyncio.Task[None]] = set()
        may = unsafe_open_access if settings.unsafe_open_access else fleet_access(settings.server_client_id)
        self._hub = Hub(may, _limits(settings), server_client_id=settings.server_client_id, journal=say_of_client)
        self._rules = ConnectionRules(
            settings.max_packet_bytes, settings.max_keepalive_s, settings.connect_timeout_s, self._is_denied
        )

    def load(self) -> None:
        """Read the denylist and close what it names. Raises: BrokerError when it cannot be understood."""
        self._denied = read_denylist(self._denylist_file)
        for connection in list(self._roster.connections):
            if connection.identity is not None and self._is_denied(connection.identity):
                say("client.expelled", client=connection.identity.name)
                connection.expel()

    def reload(self) -> None:
        """Load again; a list that cannot be read leaves the old one in force."""
        try:
            self.load()
        except EdgeError as error:
            say("denylist.unreadable", reason=str(error))

    async def accept_from(self, listener: socket.socket) -> None:
        """Take connections for ever; those beyond the caps are closed before any cryptography is spent on them."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, _ = await loop.sock_accept(listener)
            except OSError as error:
                say("accept.failed", reason=str(error))
                await asyncio.sleep(_OUT_OF_DESCRIPTORS_PAUSE_S)
                continue
            if len(self._roster.connections) + len(self._handshakes) >= self._settings.max_connections:
                peer.close()
                continue
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = loop.create_task(self._shake_hands(peer))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def sweep(self) -> None:
        """Drop clients that are silent for longer than they promised."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = loop.time()
            for connection in list(self._roster.connections):
                if connection.is_silent(now):
                    connection.close("silent")

    async def _shake_hands(self, peer: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._new_connection,
                peer,
                ssl=self._context,
                ssl_handshake_timeout=self._settings.connect_timeout_s,
                ssl_shutdown_timeout=self._settings.connect_timeout_s,
            )
        except (OSError, EOFError):
            # Port scans and clients without a certificate end here; a line for each would let strangers fill the log.
            return

    def _new_connection(self) -> Connection:
        return Connection(self._hub, self._rules, self._roster, say_of_client)

    def _is_denied(self, identity: PeerIdentity) -> bool:
        device = DeviceId(identity.name)
        if device in self._denied.devices:
            return True
        return DeniedCertificate(device, identity.serial) in self._denied.certificates


def _tls_context(settings: BrokerSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    # A resumed session would skip the certificate check that a revocation or a new CA relies on.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    try:
        context.load_verify_locations(settings.ca_file)
        context.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:
        raise BrokerError("start the broker", f"its certificate files cannot be read ({error})") from error
    return context


def _listen(settings: BrokerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        # SO_REUSEADDR comes with it: after a SIGKILL the port can be taken again at once.
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        where = f"{settings.host}:{settings.port}"
        raise BrokerError(f"start the broker on {where}", str(error), "choose another with --mqtt-port") from error
    listener.settimeout(0)
    return listener


def _limits(settings: BrokerSettings) -> HubLimits:
    def session(outbound_bytes: int) -> SessionLimits:
        return SessionLimits(settings.max_inflight, outbound_bytes, settings.max_subscriptions)

    return HubLimits(
        device=session(settings.max_outbound_bytes),
        server=session(settings.max_server_outbound_bytes),
        max_retained=settings.max_retained,
        max_retained_bytes=settings.max_retained_bytes,
        max_retained_per_client=settings.max_retained_per_client,
    )


def event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's factory where it is installed: it needs an eighth of the memory per TLS connection."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
