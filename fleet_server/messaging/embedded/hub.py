"""What the embedded broker does with packets: sessions, routing, retained messages, wills, revocation.

No sockets and no clock here. Every session is a clean one: it ends with its connection and leaves only retained
messages behind, because the broker holds no truth (docs/adr).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fleet_server.messaging.embedded.access import Access, Action
from fleet_server.messaging.embedded.packets import (
    SUBSCRIBE_REFUSED,
    Connack,
    Connect,
    ConnectCode,
    Packet,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from fleet_server.messaging.embedded.session import Outlet, Session, SessionLimits
from fleet_server.messaging.embedded.topic_tree import RetainedMessages, Subscriptions


class Journal(Protocol):
    """Where the hub tells what it saw; one call per event, never a payload."""

    def __call__(self, event: str, *, client: str, detail: str = "") -> None:
        """Note one event of one client."""


@dataclass(frozen=True, slots=True)
class HubLimits:
    """What clients may cost; the server reads everybody's messages, so its queue is larger."""

    device: SessionLimits
    server: SessionLimits
    max_retained: int
    max_retained_bytes: int
    max_retained_per_client: int


class Hub:
    """All sessions of one broker; every method runs to its end before the next begins."""

    def __init__(self, may: Access, limits: HubLimits, *, server_client_id: str, journal: Journal) -> None:
        self._may = may
        self._limits = limits
        self._server = server_client_id
        self._journal = journal
        self._sessions: dict[str, Session] = {}
        self._subscriptions = Subscriptions()
        self._retained = RetainedMessages(
            limits.max_retained, limits.max_retained_bytes, limits.max_retained_per_client
        )

    def connect(self, certificate_name: str, packet: Connect, outlet: Outlet) -> Session | None:
        """Open the session of a client, or answer why not and return None.

        The certificate decides who this is before any session is looked up: amqtt looked first, and a stranger could
        take over the session of whomever it named.
        """
        client = packet.client_id
        if client != certificate_name:
            self._refuse(outlet, ConnectCode.IDENTIFIER_REJECTED, certificate_name, "other client id")
            return None
        if packet.will is not None and not self._may_leave(client, packet.will):
            self._refuse(outlet, ConnectCode.NOT_AUTHORISED, client, "will on a foreign topic")
            return None
        if (older := self._sessions.get(client)) is not None:
            self.end(older, with_will=True)
            older.outlet.close("taken over")
        limits = self._limits.server if client == self._server else self._limits.device
        session = Session(client, outlet, limits, packet.will)
        self._sessions[client] = session
        outlet.send(Connack(ConnectCode.ACCEPTED))
        return session

    def handle(self, session: Session, packet: Packet) -> bool:
        """Act on one packet of an open session; False when this packet must close it."""
        match packet:
            case Publish():
                self._publish(session, packet)
            case Puback(packet_id):
                session.acknowledge(packet_id)
            case Subscribe():
                self._subscribe(session, packet)
            case Unsubscribe(packet_id, filters):
                for topic_filter in filters:
                    session.filters.discard(topic_filter)
                    self._subscriptions.remove(session.client, topic_filter)
                session.outlet.send(Unsuback(packet_id))
            case _:
                return False
        return True

    def end(self, session: Session, *, with_will: bool) -> None:
        """Forget a session (safe to repeat); with its will unless the client said goodbye or is revoked."""
        if session.ended:
            return
        session.ended = True
        del self._sessions[session.client]
        for topic_filter in session.filters:
            self._subscriptions.remove(session.client, topic_filter)
        will = session.will
        if with_will and will is not None and self._may_leave(session.client, will):
            self._route(session.client, Publish(will.topic, will.payload, will.qos, will.retain))

    def _refuse(self, outlet: Outlet, code: ConnectCode, client: str, why: str) -> None:
        self._journal("client.refused", client=client, detail=why)
        outlet.send(Connack(code))
        outlet.close(why)

    def _may_leave(self, client: str, will: Will) -> bool:
        kept = not will.retain or self._may(client, Action.RETAINED, will.topic)
        return kept and self._may(client, Action.WILL, will.topic)

    def _publish(self, session: Session, packet: Publish) -> None:
        allowed = self._may(session.client, Action.PUBLISH, packet.topic)
        if allowed and packet.retain:
            allowed = self._may(session.client, Action.RETAINED, packet.topic)
        if allowed:
            self._route(session.client, packet)
        elif session.note_refusal():
            self._journal("publish.refused", client=session.client, detail=packet.topic)
        # 3.1.1 has no "no": the receipt of a refused message says that it came, as with mosquitto.
        if packet.qos:
            session.outlet.send(Puback(packet.packet_id))

    def _route(self, sender: str, packet: Publish) -> None:
        if packet.retain:
            kept = Publish(packet.topic, packet.payload, packet.qos, retain=True)
            if not self._retained.keep(sender, kept):
                self._journal("message.not_retained", client=sender, detail=packet.topic)
        for client, qos in self._subscriptions.match(packet.topic).items():
            self._deliver(self._sessions[client], packet, min(qos, packet.qos), retain=False)

    def _deliver(self, session: Session, packet: Publish, qos: int, *, retain: bool) -> None:
        if session.dropped or not self._may(session.client, Action.DELIVER, packet.topic):
            return
        if not session.deliver(Publish(packet.topic, packet.payload, qos, retain)):
            session.dropped = True
            self._journal("client.too_slow", client=session.client)
            session.outlet.close("reads too slowly")

    def _subscribe(self, session: Session, packet: Subscribe) -> None:
        granted: list[tuple[str, int]] = []
        codes: list[int] = []
        for topic_filter, asked in packet.filters:
            if self._may_subscribe(session, topic_filter):
                qos = min(asked, 1)
                session.filters.add(topic_filter)
                self._subscriptions.add(session.client, topic_filter, qos)
                granted.append((topic_filter, qos))
                codes.append(qos)
            else:
                codes.append(SUBSCRIBE_REFUSED)
        session.outlet.send(Suback(packet.packet_id, tuple(codes)))
        for topic_filter, qos in granted:
            for message in self._retained.matching(topic_filter):
                self._deliver(session, message, min(qos, message.qos), retain=True)

    def _may_subscribe(self, session: Session, topic_filter: str) -> bool:
        if not self._may(session.client, Action.SUBSCRIBE, topic_filter):
            if session.note_refusal():
                self._journal("subscribe.refused", client=session.client, detail=topic_filter)
            return False
        return topic_filter in session.filters or len(session.filters) < session.limits.max_subscriptions
