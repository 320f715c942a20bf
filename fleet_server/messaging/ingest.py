"""The server's one MQTT client: what devices publish goes through a bounded queue to one writer, answers come back.

A broker that is away costs reconnects, never the server; what was not acknowledged is sent again by its device.
"""

from __future__ import annotations

import functools
import queue
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_runtime.contract import topics
from edge_runtime.contract.codec import MESSAGE_MAX_BYTES, encode
from edge_runtime.contract.device_state import Doorbell
from edge_runtime.contract.errors import ContractError, EdgeError
from edge_runtime.contract.ids import DeviceId, SlotId
from fleet_server.messaging.broker import Address

_QUEUE_MESSAGES: Final = 20_000
_BATCH_MESSAGES: Final = 1000
_PUT_TIMEOUT_S: Final = 5.0
_IDLE_S: Final = 0.5
_AFTER_FAILURE_S: Final = 1.0
_KEEPALIVE_S: Final = 30

log = structlog.get_logger("ingest")


@dataclass(frozen=True, slots=True)
class UpMessage:
    """One message of a device; the broker vouches for the device in its topic."""

    topic: topics.UpTopic
    payload: bytes


@dataclass(frozen=True, slots=True)
class Publication:
    """Something to publish once the batch is committed."""

    topic: str
    payload: bytes


@dataclass(slots=True)
class IngestCounters:
    """What happened so far; each field has one writing thread."""

    received: int = 0
    refused: int = 0
    """Messages on topics or of sizes that no device of ours uses."""
    overflowed: int = 0
    committed: int = 0
    failed_batches: int = 0
    connects: int = 0


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """How to reach the broker as the server."""

    address: Address
    ca_file: Path
    cert_file: Path
    key_file: Path
    client_id: str


@dataclass(slots=True)
class _Hooks:
    apply: Callable[[Sequence[UpMessage]], Sequence[Publication]] | None = None
    connected: list[Callable[[], None]] = field(default_factory=list)


class IngestClient:
    """Listens to all devices, hands batches to `apply` on one thread, and rings doorbells."""

    def __init__(self, settings: IngestSettings) -> None:
        self._settings = settings
        self._hooks = _Hooks()
        self._queue: queue.Queue[UpMessage] = queue.Queue(_QUEUE_MESSAGES)
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._writer = threading.Thread(target=self._write, name="ingest-writer", daemon=True)
        self._client = self._make_client()
        self.counters = IngestCounters()

    @property
    def is_connected(self) -> bool:
        """Whether the broker delivers to us now."""
        return self._ready.is_set()

    def start(
        self,
        apply: Callable[[Sequence[UpMessage]], Sequence[Publication]],
        connected: Callable[[], None],
    ) -> None:
        """Begin to listen, and keep trying.

        Args:
            apply: stores a batch in one transaction and returns what to publish after it; called on one thread only.
            connected: called after every (re)subscription, on the writer's thread.
        """
        self._hooks.apply = apply
        self._hooks.connected.append(connected)
        self._writer.start()
        self._client.connect_async(self._settings.address.host, self._settings.address.port, keepalive=_KEEPALIVE_S)
        self._client.loop_start()

    def stop(self) -> None:
        """Stop listening and finish what is queued; safe to call twice."""
        self._client.disconnect()
        self._client.loop_stop()
        self._stopping.set()
        if self._writer.is_alive():
            self._writer.join(10.0)

    def publish(self, publication: Publication) -> None:
        """Send one message with QoS 1; while the broker is away it waits in memory, bounded."""
        self._client.publish(publication.topic, publication.payload, qos=1)

    def ring(self, device: DeviceId, slot: SlotId, seq: int) -> None:
        """Tell a device that something is desired of one slot."""
        self.publish(Publication(topics.desired(device, slot), encode(Doorbell(slot=slot, seq=seq))))

    def _make_client(self) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._settings.client_id,
            clean_session=True,
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        context = ssl.create_default_context(cafile=str(self._settings.ca_file))
        context.load_cert_chain(self._settings.cert_file, self._settings.key_file)
        client.tls_set_context(context)
        client.reconnect_delay_set(min_delay=1, max_delay=10)
        client.max_inflight_messages_set(500)
        client.max_queued_messages_set(_QUEUE_MESSAGES)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        return client

    def _on_connect(
        self, client: Client, _data: object, _flags: ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            log.warning("broker.refused", reason=str(reason))
            return
        client.subscribe(topics.ALL_UP, qos=1)

    def _on_subscribe(
        self, _client: Client, _data: object, _mid: int, _reasons: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self.counters.connects += 1
        self._ready.set()

    def _on_disconnect(
        self,
        _client: Client,
        _data: object,
        _flags: DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._ready.clear()
        if not self._stopping.is_set() and reason.value != MQTTErrorCode.MQTT_ERR_SUCCESS:
            log.warning("broker.lost", reason=str(reason))

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self.counters.received += 1
        try:
            received = _read(message)
        except ContractError as error:
            self.counters.refused += 1
            log.warning("message.refused", reason=str(error))
            return
        try:
            self._queue.put(received, timeout=_PUT_TIMEOUT_S)
        except queue.Full:
            self.counters.overflowed += 1

    def _write(self) -> None:
        seen_connects = 0
        while not (self._stopping.is_set() and self._queue.empty()):
            if self.counters.connects != seen_connects:
                seen_connects = self.counters.connects
                self._guarded(self._announce)
            batch = self._next_batch()
            if batch:
                self._guarded(functools.partial(self._apply, batch))

    def _next_batch(self) -> list[UpMessage]:
        batch: list[UpMessage] = []
        try:
            batch.append(self._queue.get(timeout=_IDLE_S))
            while len(batch) < _BATCH_MESSAGES:
                batch.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _announce(self) -> None:
        for connected in self._hooks.connected:
            connected()

    def _apply(self, batch: list[UpMessage]) -> None:
        if self._hooks.apply is None:
            return
        publications = self._hooks.apply(batch)
        self.counters.committed += len(batch)
        for publication in publications:
            self.publish(publication)

    def _guarded(self, action: Callable[[], None]) -> None:
        """Nothing is acknowledged when this fails, so devices send again; the writer must live to see it."""
        try:
            action()
        except EdgeError as error:
            self.counters.failed_batches += 1
            log.warning("batch.failed", reason=str(error))
            time.sleep(_AFTER_FAILURE_S)
        except Exception:
            self.counters.failed_batches += 1
            log.exception("batch.failed")
            time.sleep(_AFTER_FAILURE_S)


def _read(message: MQTTMessage) -> UpMessage:
    if len(message.payload) > MESSAGE_MAX_BYTES:
        raise ContractError("accept a message", f"it exceeds {MESSAGE_MAX_BYTES} bytes")
    return UpMessage(topics.parse_up(message.topic), bytes(message.payload))
