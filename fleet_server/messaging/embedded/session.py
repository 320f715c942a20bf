"""One client's session: its filters, its will, and what is on the way to it, bounded in messages and bytes. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Final, Protocol

from fleet_server.messaging.embedded.packets import Packet, Publish, Will

_LAST_PACKET_ID: Final = 0xFFFF


class Outlet(Protocol):
    """The way back to one client."""

    def send(self, packet: Packet) -> None:
        """Queue a packet; does nothing once closed."""

    def backlog_bytes(self) -> int:
        """Bytes queued and not yet taken by the network."""

    def close(self, why: str) -> None:
        """Drop the connection; the session is ended later, from the event loop."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one client may cost."""

    max_inflight: int
    max_outbound_bytes: int
    max_subscriptions: int


class Session:
    """State between CONNECT and the end of the connection, and no longer."""

    __slots__ = (
        "_inflight",
        "_last_id",
        "_waiting",
        "_waiting_bytes",
        "client",
        "dropped",
        "ended",
        "filters",
        "limits",
        "outlet",
        "refusals",
        "will",
    )

    def __init__(self, client: str, outlet: Outlet, limits: SessionLimits, will: Will | None) -> None:
        self.client = client
        self.outlet = outlet
        self.limits = limits
        self.will = will
        self.filters: set[str] = set()
        self.ended = False
        self.dropped = False
        self.refusals = 0
        self._inflight: set[int] = set()
        self._waiting: deque[Publish] = deque()
        self._waiting_bytes = 0
        self._last_id = 0

    def deliver(self, message: Publish) -> bool:
        """Send now, or when the client has acknowledged earlier messages; False when too much is queued for it."""
        if message.qos and len(self._inflight) >= self.limits.max_inflight:
            self._waiting.append(message)
            self._waiting_bytes += _cost(message)
        else:
            self._send(message)
        return self.outlet.backlog_bytes() + self._waiting_bytes <= self.limits.max_outbound_bytes

    def acknowledge(self, packet_id: int) -> None:
        """The client has one message; an unknown id is ignored, as 3.1.1 gives no way to complain."""
        self._inflight.discard(packet_id)
        while self._waiting and len(self._inflight) < self.limits.max_inflight:
            message = self._waiting.popleft()
            self._waiting_bytes -= _cost(message)
            self._send(message)

    def note_refusal(self) -> bool:
        """Count a refused request; True for the first, so that one client cannot fill the log."""
        self.refusals += 1
        return self.refusals == 1

    def _send(self, message: Publish) -> None:
        if not message.qos:
            self.outlet.send(message)
            return
        packet_id = self._free_id()
        self._inflight.add(packet_id)
        self.outlet.send(replace(message, packet_id=packet_id))

    def _free_id(self) -> int:
        packet_id = self._last_id % _LAST_PACKET_ID + 1
        while packet_id in self._inflight:
            packet_id = packet_id % _LAST_PACKET_ID + 1
        self._last_id = packet_id
        return packet_id


def _cost(message: Publish) -> int:
    # A queued object costs more than its bytes; without this, millions of empty messages would count as nothing.
    return len(message.topic) + len(message.payload) + 200
