"""One TLS connection: whose certificate it is, when it has been silent too long, bytes to packets and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from fleet_server.messaging.embedded.codec import Decoder, encode
from fleet_server.messaging.embedded.hub import Hub, Journal
from fleet_server.messaging.embedded.packets import (
    UNSUPPORTED_LEVEL,
    Connack,
    Connect,
    ConnectCode,
    Disconnect,
    MalformedPacket,
    Packet,
    Pingreq,
    Pingresp,
)
from fleet_server.messaging.embedded.session import Session


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What the verified client certificate says: its one common name and its serial number."""

    name: str
    serial: int


@dataclass(frozen=True, slots=True)
class ConnectionRules:
    """Bounds on one connection, and who is denied right now."""

    max_packet_bytes: int
    max_keepalive_s: int
    connect_timeout_s: float
    is_denied: Callable[[PeerIdentity], bool]


@dataclass(slots=True)
class Roster:
    """The open connections; the broker walks it to find the silent and the revoked."""

    connections: set[Connection] = field(default_factory=set)


class Connection(asyncio.Protocol):
    """Speaks MQTT with one client; an `Outlet` of the hub."""

    def __init__(self, hub: Hub, rules: ConnectionRules, roster: Roster, journal: Journal) -> None:
        self._hub = hub
        self._rules = rules
        self._roster = roster
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._decoder = Decoder(rules.max_packet_bytes)
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self._silence_s = rules.connect_timeout_s
        self._heard_at = self._loop.time()
        self.identity: PeerIdentity | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done: learn who this is, or leave."""
        # asyncio promises a two-way transport for sockets; uvloop's does not inherit from the class that says so.
        self._transport = cast(asyncio.Transport, transport)
        self.identity = read_identity(transport.get_extra_info("peercert"))
        if self.identity is None or self._rules.is_denied(self.identity):
            self._journal("client.refused", client=self._name(), detail="certificate is revoked or names nobody")
            self.close("not welcome")
            return
        self._roster.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Act on every packet that is complete; the first bad one ends the connection."""
        if not self._is_open():
            return
        self._heard_at = self._loop.time()
        try:
            for packet in self._decoder.feed(data):
                if not self._is_open():
                    return
                self._receive(packet)
        except MalformedPacket as error:
            self._journal("packet.refused", client=self._name(), detail=error.because)
            if self._session is None and error.code == UNSUPPORTED_LEVEL:
                self.send(Connack(ConnectCode.UNACCEPTABLE_PROTOCOL))
            self.close(error.because)

    def connection_lost(self, exc: Exception | None) -> None:
        """However it ended, the session ends with it."""
        del exc
        self._transport = None
        self._roster.connections.discard(self)
        if self._session is not None:
            self._hub.end(self._session, with_will=True)
            self._session = None

    def send(self, packet: Packet) -> None:
        """Queue one packet."""
        if self._transport is not None:
            self._transport.write(encode(packet))

    def backlog_bytes(self) -> int:
        """Bytes that the client has not taken yet."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def close(self, why: str) -> None:
        """Drop the connection; a refusal still goes out, but no open session waits for a peer that may be dead."""
        del why
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if self._session is None:
            transport.close()
        else:
            transport.abort()

    def is_silent(self, now: float) -> bool:
        """Whether the client has overstayed: no CONNECT in time, or 1.5 keep-alives without a packet."""
        return now - self._heard_at > self._silence_s

    def expel(self) -> None:
        """Close a revoked client at once; nothing more is said in its name, its will included."""
        if self._session is not None:
            self._hub.end(self._session, with_will=False)
        self.close("revoked")

    def _receive(self, packet: Packet) -> None:
        session = self._session
        if session is None:
            self._open(packet)
        elif isinstance(packet, Pingreq):
            self.send(Pingresp())
        elif isinstance(packet, Disconnect):
            self._hub.end(session, with_will=False)
            # No session any more: what is queued for the client, such as a last PUBACK, still goes out.
            self._session = None
            self.close("goodbye")
        elif not self._hub.handle(session, packet):
            self._journal("packet.refused", client=session.client, detail=type(packet).__name__)
            self.close("out of order")

    def _open(self, packet: Packet) -> None:
        if not isinstance(packet, Connect) or self.identity is None:
            self.close("CONNECT must come first")
            return
        self._session = self._hub.connect(self.identity.name, packet, self)
        if self._session is not None:
            keepalive_s = min(packet.keepalive_s or self._rules.max_keepalive_s, self._rules.max_keepalive_s)
            # MQTT 3.1.1, 3.1.2.10: one and a half times the keep-alive.
            self._silence_s = 1.5 * keepalive_s

    def _is_open(self) -> bool:
        return self._transport is not None

    def _name(self) -> str:
        return self.identity.name if self.identity is not None else "?"


def read_identity(peer_certificate: object) -> PeerIdentity | None:
    """Common name and serial of a certificate as `ssl` describes it; None unless there is exactly one name."""
    if not isinstance(peer_certificate, Mapping):
        return None
    subject = peer_certificate.get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    serial = peer_certificate.get("serialNumber")
    if len(names) != 1 or not isinstance(serial, str):
        return None
    return PeerIdentity(str(names[0]), int(serial, 16))
