"""A paho client over TLS that remembers what reached it, and waits with a bound instead of sleeping."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition
from types import TracebackType
from typing import Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.fakes.pki import Issued

PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """What was delivered."""

    topic: str
    payload: bytes
    retain: bool


@dataclass(frozen=True, slots=True)
class Person:
    """Who connects: the client id it claims, and the certificate it holds, if any."""

    client_id: str
    certificate: Issued | None
    clean_session: bool = True
    will: tuple[str, bytes, bool] | None = None


@dataclass(slots=True)
class _Seen:
    connected: bool = False
    connects: int = 0
    disconnects: int = 0
    messages: list[Message] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)


class Client:
    """One real MQTT client; `connect` returns whether the broker let it in."""

    def __init__(self, port: int, ca_file: Path, person: Person, *, reconnects: bool = False) -> None:
        self._port = port
        self._changed = Condition()
        self._seen = _Seen()
        self._running = False
        self._paho = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=person.client_id,
            clean_session=person.clean_session,
            protocol=paho.MQTTv311,
            reconnect_on_failure=reconnects,
        )
        context = ssl.create_default_context(cafile=str(ca_file))
        if person.certificate is not None:
            context.load_cert_chain(person.certificate.cert_file, person.certificate.key_file)
        self._paho.tls_set_context(context)
        self._paho.reconnect_delay_set(1, 1)
        if person.will is not None:
            topic, payload, retain = person.will
            self._paho.will_set(topic, payload, 1, retain)
        self._paho.on_connect = self._on_connect
        self._paho.on_disconnect = self._on_disconnect
        self._paho.on_message = self._on_message
        self._paho.on_subscribe = self._on_subscribe
        self._paho.on_publish = self._on_publish

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave()

    @property
    def messages(self) -> list[Message]:
        """Everything delivered so far."""
        with self._changed:
            return list(self._seen.messages)

    @property
    def is_connected(self) -> bool:
        """Whether the broker accepted it and has not closed since."""
        with self._changed:
            return self._seen.connected

    @property
    def disconnects(self) -> int:
        """How often the connection ended."""
        with self._changed:
            return self._seen.disconnects

    def connect(self) -> bool:
        """Try to get in; False when the broker or TLS refused."""
        try:
            self._paho.connect("127.0.0.1", self._port, keepalive=30)
        except OSError:
            return False
        self._paho.loop_start()
        self._running = True
        self.wait(lambda seen: seen.connected or seen.disconnects > 0)
        return self.is_connected

    def subscribe(self, topic_filter: str) -> None:
        """Ask at QoS 1 and wait for the SUBACK, whatever it says."""
        code, mid = self._paho.subscribe(topic_filter, 1)
        if code == paho.MQTT_ERR_SUCCESS and mid is not None:
            self.wait(lambda seen: mid in seen.answered or seen.disconnects > 0)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Send at QoS 1 and wait for the PUBACK, or for the end of the connection."""
        before = self.disconnects
        info = self._paho.publish(topic, payload, 1, retain)
        self.wait(lambda seen: info.mid in seen.answered or seen.disconnects > before)

    def has_received(self, topic: str, payload: bytes) -> bool:
        """Wait until this message was delivered; False when it was not in time."""
        return self.wait(lambda seen: any((m.topic, m.payload) == (topic, payload) for m in seen.messages))

    def was_disconnected(self) -> bool:
        """Wait until the broker closed the connection; False when it did not in time."""
        return self.wait(lambda seen: seen.disconnects > 0)

    def reconnected(self) -> bool:
        """Wait until it is in for the second time."""
        return self.wait(lambda seen: seen.connects > 1 and seen.connected)

    def die(self) -> None:
        """Lose the connection without a DISCONNECT, as in a power cut."""
        link = self._paho.socket()
        self._paho.loop_stop()
        self._running = False
        if link is not None:
            link.close()

    def leave(self) -> None:
        """Say goodbye and end the thread."""
        self._paho.disconnect()
        if self._running:
            self._paho.loop_stop()
            self._running = False

    def wait(self, condition: Callable[[_Seen], bool], patience_s: float = PATIENCE_S) -> bool:
        """Whether the condition came true before patience ran out."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self._seen), patience_s)

    @contextmanager
    def _change(self) -> Iterator[_Seen]:
        with self._changed:
            yield self._seen
            self._changed.notify_all()

    def _on_connect(
        self, _c: paho.Client, _u: object, _f: paho.ConnectFlags, code: ReasonCode, _p: Properties | None
    ) -> None:
        with self._change() as seen:
            seen.connected = not code.is_failure
            seen.connects += seen.connected

    def _on_disconnect(
        self, _c: paho.Client, _u: object, _f: paho.DisconnectFlags, _r: ReasonCode, _p: Properties | None
    ) -> None:
        with self._change() as seen:
            seen.connected = False
            seen.disconnects += 1

    def _on_message(self, _c: paho.Client, _u: object, message: paho.MQTTMessage) -> None:
        with self._change() as seen:
            seen.messages.append(Message(message.topic, bytes(message.payload), message.retain))

    def _on_subscribe(self, _c: paho.Client, _u: object, mid: int, _r: list[ReasonCode], _p: Properties | None) -> None:
        with self._change() as seen:
            seen.answered.add(mid)

    def _on_publish(self, _c: paho.Client, _u: object, mid: int, _r: ReasonCode, _p: Properties) -> None:
        with self._change() as seen:
            seen.answered.add(mid)


def eventually(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Whether a condition that nobody announces came true before patience ran out."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
