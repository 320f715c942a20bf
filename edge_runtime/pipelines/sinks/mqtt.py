"""Records to an MQTT broker, one message each."""

from __future__ import annotations

import random
import ssl
import threading
import time
from typing import Any, Final

from edge_runtime.contract.errors import ContractError, TransportError
from edge_runtime.contract.ids import shown
from edge_runtime.pipelines.description import MqttSink
from edge_runtime.pipelines.ports import Tell
from edge_runtime.pipelines.records import Record, record_bytes

_KEEPALIVE_S: Final = 30
_TOPIC_MAX_BYTES: Final = 32_768
"""Half of what a message may name, because names of pipeline and source are put in."""
_FAREWELL_S: Final = 10.0
_PATIENCE_S: Final = 20.0
"""How long one record waits for a broker that is away before it is given up."""
_LAST_PATIENCE_S: Final = 2.0
"""The same when the pipeline ends."""
_SLICE_S: Final = 0.25


class MqttPublisher:
    """Publishes records; waits while too many are unacknowledged, which holds sources of files back.

    Args:
        name: of the sink.
        described: broker, topic, credentials.
        tell: hears when the broker is away or refuses.
        stopping: set when the pipeline ends.

    Raises:
        ContractError: a certificate, key or password file that cannot be used.
    """

    def __init__(self, name: str, described: MqttSink, tell: Tell, stopping: threading.Event) -> None:
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

        self._name = name
        self._described = described
        self._tell = tell
        self._stopping = stopping
        self._room = threading.Condition()
        self._unacknowledged: set[int] = set()
        self._acknowledged_early: set[int] = set()
        self._is_connected = False
        self._was_told = False
        self._is_given_up = False
        _check(name, described)
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=described.client_id, protocol=MQTTProtocolVersion.MQTTv311
        )
        _secure(client, name, described)
        client.max_inflight_messages_set(described.in_flight)
        client.reconnect_delay_set(min_delay=1, max_delay=random.randint(8, 16))
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_publish = self._published
        client.on_connect_fail = self._unreachable
        self._client = client
        client.connect_async(described.host, described.port, _KEEPALIVE_S)
        client.loop_start()

    def deliver(self, record: Record) -> None:
        """Hand one record to the broker. Raises: TransportError when it stays away too long."""
        described = self._described
        topic = described.topic.replace("{pipeline}", record.pipeline).replace("{source}", record.frame.source)
        payload = record_bytes(record)
        with self._room:
            self._is_given_up = not self._wait_for_room()
            if self._is_given_up:
                raise self._not_sent()
        sent = self._client.publish(topic, payload, qos=described.qos, retain=described.retain)
        if described.qos == 0 and sent.rc != 0:
            # Nothing is kept for later at QoS 0, and no acknowledgement will come.
            raise self._not_sent()
        with self._room:
            # The acknowledgement may be here before `publish` has returned.
            if sent.mid in self._acknowledged_early:
                self._acknowledged_early.discard(sent.mid)
            else:
                self._unacknowledged.add(sent.mid)

    def close(self) -> None:
        """Wait for what is under way, then say goodbye. Raises: TransportError when messages stayed unacknowledged."""
        with self._room:
            is_empty = self._room.wait_for(lambda: not self._unacknowledged, _FAREWELL_S)
            lost = len(self._unacknowledged)
        self._client.disconnect()
        self._client.loop_stop()
        if not is_empty:
            because = f"{lost} messages were not acknowledged within {_FAREWELL_S:.0f} s"
            raise TransportError(f"finish publishing to {self._where()}", because, "check the broker")

    def _wait_for_room(self) -> bool:
        """Whether there is room, waited for; not again after a wait in vain, and briefly at the pipeline's end."""
        until = time.monotonic() + (0 if self._is_given_up else _PATIENCE_S)
        while not self._has_room():
            left_s = until - time.monotonic()
            if self._stopping.is_set():
                left_s = min(left_s, until - _PATIENCE_S + _LAST_PATIENCE_S - time.monotonic())
            if left_s <= 0:
                return False
            # In slices: a signal handler may not wake whoever waits here.
            self._room.wait(min(left_s, _SLICE_S))
        return True

    def _has_room(self) -> bool:
        return self._is_connected and len(self._unacknowledged) < self._described.in_flight

    def _not_sent(self) -> TransportError:
        return TransportError(f"publish to {self._where()}", "the broker does not answer", "start it")

    def _where(self) -> str:
        return f"{self._described.host}:{self._described.port}"

    def _connected(self, _client: Any, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        with self._room:
            self._is_connected = not reason.is_failure
            self._room.notify_all()
        if reason.is_failure:
            self._say(f"broker {self._where()} refuses: {reason}")
        elif self._was_told:
            self._was_told = False
            self._tell(f"sink {self._name}: broker {self._where()} is back")

    def _disconnected(self, _client: Any, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        with self._room:
            self._is_connected = False
        if reason.is_failure:
            self._say(f"broker {self._where()} is gone: {reason}")

    def _unreachable(self, _client: Any, _data: object) -> None:
        self._say(f"broker {self._where()} cannot be reached")

    def _say(self, what: str) -> None:
        if not self._was_told:
            self._was_told = True
            self._tell(f"sink {self._name}: {what}; it is tried again")

    def _published(self, _client: Any, _data: object, mid: int, _reason: object, _properties: object) -> None:
        with self._room:
            if mid in self._unacknowledged:
                self._unacknowledged.discard(mid)
            else:
                self._acknowledged_early.add(mid)
            self._room.notify_all()


def _check(name: str, described: MqttSink) -> None:
    """Refuse what no client takes, before a frame is read. Raises: ContractError."""
    if not described.host.strip() or not described.host.isprintable():
        raise ContractError(f"open sink {name}", f"{shown(described.host)} is no host", "name the broker in host")
    # MQTT 3.1.1, 4.7: wildcards belong to subscriptions, and no topic is empty or longer than 65535 bytes.
    topic = described.topic
    if not topic or len(topic.encode()) > _TOPIC_MAX_BYTES or any(one in topic for one in "#+\0"):
        because = f"{shown(topic)} is no topic to publish on"
        raise ContractError(f"open sink {name}", because, "write one without '+' and '#'")


def _secure(client: Any, name: str, described: MqttSink) -> None:
    cannot = f"open sink {name}"
    if described.ca_file is not None:
        try:
            context = ssl.create_default_context(cafile=str(described.ca_file))
            if described.cert_file is not None:
                context.load_cert_chain(described.cert_file, described.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ContractError(cannot, f"its certificates cannot be used ({error})", "check the files") from error
        client.tls_set_context(context)
    elif described.cert_file is not None or described.key_file is not None:
        raise ContractError(cannot, "it has a certificate and no ca_file", "name the broker's authority in ca_file")
    if described.username is not None:
        password = None
        if described.password_file is not None:
            try:
                password = described.password_file.read_text(encoding="utf-8").rstrip("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise ContractError(cannot, f"{described.password_file} cannot be read", "check it") from error
        client.username_pw_set(described.username, password)
