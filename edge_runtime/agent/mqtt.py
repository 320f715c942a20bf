"""Messages over MQTT 3.1.1 with the device's own certificate; the client id is the device id."""

from __future__ import annotations

import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from edge_runtime.agent.identity import check_validity
from edge_runtime.agent.transport import Message
from edge_runtime.contract.device_state import MqttEndpoint
from edge_runtime.contract.errors import TrustError
from edge_runtime.contract.ids import DeviceId
from edge_runtime.contract.topics import all_down

_KEEPALIVE_S: Final = 30
_FAREWELL_S: Final = 3.0
_QUEUED_MAX: Final = 64

log = structlog.get_logger("mqtt")


@dataclass(frozen=True, slots=True)
class MqttIdentity:
    """Who connects, to where, with what."""

    device: DeviceId
    endpoint: MqttEndpoint
    tls: ssl.SSLContext
    will_topic: str
    will_payload: bytes
    """What the broker says, retained, when this device vanishes."""


class MqttTransport:
    """paho behind the transport port.

    Args:
        identity: who connects, to where.
        now: trusted time, to judge the broker's certificate.
        reconnect_max_s: upper bound of the pause between two attempts.
    """

    def __init__(self, identity: MqttIdentity, now: Callable[[], float], reconnect_max_s: float = 30.0) -> None:
        self._identity = identity
        self._now = now
        self._on_message: Callable[[Message], None] = _ignore
        self._on_connected: Callable[[], None] = _nothing
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=identity.device,
            clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        client.tls_set_context(identity.tls)
        client.will_set(identity.will_topic, identity.will_payload, qos=1, retain=True)
        client.max_queued_messages_set(_QUEUED_MAX)
        # Jittered: after a broker restart the whole fleet comes back, and must not come in step.
        longest_s = max(4, round(reconnect_max_s * random.uniform(0.5, 1)))
        client.reconnect_delay_set(min_delay=random.randint(1, 4), max_delay=longest_s)
        client.on_connect = self._connected
        client.on_message = self._received
        self._client = client

    def start(self, on_message: Callable[[Message], None], on_connected: Callable[[], None]) -> None:
        """Begin to connect; see `Transport.start`."""
        self._on_message, self._on_connected = on_message, on_connected
        endpoint = self._identity.endpoint
        self._client.connect_async(endpoint.host, endpoint.port, _KEEPALIVE_S)
        self._client.loop_start()

    @property
    def is_connected(self) -> bool:
        """Whether the broker has accepted us and is still there."""
        return self._client.is_connected()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message to the client, at QoS 1; dropped while not connected."""
        if self._client.is_connected():
            self._client.publish(topic, payload, qos=1, retain=retain)

    def stop(self, farewell: tuple[str, bytes] | None = None) -> None:
        """Say farewell and disconnect; a clean disconnect cancels the will."""
        if farewell is not None and self._client.is_connected():
            handed_over = self._client.publish(*farewell, qos=1, retain=True)
            handed_over.wait_for_publish(_FAREWELL_S)
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(
        self, client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _properties: object
    ) -> None:
        if reason.is_failure:
            log.warning("broker.refused", reason=str(reason))
            return
        try:
            self._check_broker()
        except TrustError as error:
            log.warning("broker.refused", reason=str(error))
            # Not disconnect(), which would end the loop: it connects again, and the broker may have been renewed.
            if isinstance(connection := client.socket(), socket.socket):
                connection.shutdown(socket.SHUT_RDWR)
            return
        client.subscribe(all_down(self._identity.device), qos=1)
        self._on_connected()

    def _check_broker(self) -> None:
        connection = self._client.socket()
        if isinstance(connection, ssl.SSLSocket) and (certificate := connection.getpeercert(binary_form=True)):
            check_validity(certificate, self._now())

    def _received(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        self._on_message(Message(message.topic, bytes(message.payload)))


def _ignore(_message: Message) -> None:
    """Before `start` nobody listens."""


def _nothing() -> None:
    """Before `start` nobody waits."""
