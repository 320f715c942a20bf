"""Messages over HTTPS alone, for devices that no broker reaches: what MQTT would carry up is posted instead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final

from edge_runtime.agent.server import FleetServer
from edge_runtime.agent.transport import Message
from edge_runtime.contract import topics
from edge_runtime.contract.codec import decode, encode
from edge_runtime.contract.device_state import Birth, Reported
from edge_runtime.contract.errors import EdgeError
from edge_runtime.contract.ids import DeviceId

_QUEUED_MAX: Final = 64
_RETRY_S: Final = 5.0


class PollingTransport:
    """The transport port over a server's HTTPS routes; status and events have none and are left out.

    Args:
        device: this device.
        server: where to post; closed by its owner.
    """

    def __init__(self, device: DeviceId, server: FleetServer) -> None:
        self._device = device
        self._server = server
        self._queue: queue.Queue[tuple[str, bytes] | None] = queue.Queue(_QUEUED_MAX)
        self._on_message: Callable[[Message], None] | None = None
        self._on_connected: Callable[[], None] | None = None
        self._connected = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="polling", daemon=True)

    def start(self, on_message: Callable[[Message], None], on_connected: Callable[[], None]) -> None:
        """Begin to post; "connected" means that the last post was accepted, or that none was refused yet."""
        self._on_message, self._on_connected = on_message, on_connected
        self._thread.start()

    @property
    def is_connected(self) -> bool:
        """Whether posting works, as far as known."""
        return self._connected

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:  # noqa: ARG002 (nothing is retained)
        """Queue a message; dropped when the queue is full: its owner sends it again."""
        if self._connected and not self._queue.full():
            self._queue.put_nowait((topic, payload))

    def stop(self, farewell: tuple[str, bytes] | None = None) -> None:  # noqa: ARG002 (status has no route)
        """End the posting thread."""
        self._stopping.set()
        if not self._queue.full():
            self._queue.put_nowait(None)
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            if not self._connected:
                self._connected = True
                if self._on_connected is not None:
                    self._on_connected()
            message = self._queue.get()
            if message is None:
                return
            try:
                self._post(*message)
            except EdgeError:
                self._connected = False
                self._stopping.wait(_RETRY_S)

    def _post(self, topic: str, payload: bytes) -> None:
        parsed = topics.parse_up(topic)
        if parsed.kind == topics.BIRTH:
            self._server.post_birth(decode(payload, Birth))
        elif parsed.kind == topics.REPORTED:
            self._server.post_reported(decode(payload, Reported))
        elif parsed.kind == topics.TELEMETRY:
            ack = self._server.post_telemetry(payload)
            if self._on_message is not None:
                self._on_message(Message(topics.ack(self._device), encode(ack)))
