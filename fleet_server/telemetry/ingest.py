"""One batch of device messages, one transaction: inventory and telemetry move together, a bad message moves nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from edge_runtime.contract import topics
from edge_runtime.contract.codec import MESSAGE_MAX_BYTES, decode, encode
from edge_runtime.contract.device_state import Birth, Event, Reported, Status
from edge_runtime.contract.errors import ContractError, EdgeError
from edge_runtime.contract.ids import DeviceId
from edge_runtime.contract.telemetry import read_batch
from fleet_server.db import Database, Session
from fleet_server.inventory.service import Inventory
from fleet_server.messaging.ingest import Publication, UpMessage
from fleet_server.telemetry.service import DeviceBatch, Telemetry, check_samples

log = structlog.get_logger("ingest")


class Ingest:
    """Applies what devices published."""

    def __init__(
        self, database: Database, inventory: Inventory, telemetry: Telemetry, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._inventory = inventory
        self._telemetry = telemetry
        self._clock = clock
        self.refused = 0

    def apply(self, messages: Sequence[UpMessage]) -> list[Publication]:
        """Store messages in one transaction; returns the acknowledgements to publish now that it is committed."""
        now = self._clock()
        with self._database.session() as session:
            batches: list[DeviceBatch] = []
            for message in messages:
                try:
                    batch = self._apply_one(session, message, now)
                except EdgeError as error:
                    self.refused += 1
                    log.warning(
                        "message.refused", device=message.topic.device, kind=message.topic.kind, reason=str(error)
                    )
                else:
                    if batch is not None:
                        batches.append(batch)
            known = self._active(session, {entry.device for entry in batches})
            acks = self._telemetry.store(session, [entry for entry in batches if entry.device in known], now)
        return [Publication(topics.ack(device), encode(ack)) for device, ack in acks]

    def ring_unsettled(self) -> None:
        """Ring for everything whose bell may have gone unheard."""
        with self._database.reading() as session:
            waiting = self._inventory.unsettled(session, self._clock())
        for assignment in waiting:
            self._inventory.ring(assignment)

    def _apply_one(self, session: Session, message: UpMessage, now: float) -> DeviceBatch | None:
        topic, payload = message.topic, message.payload
        if topic.kind == topics.TELEMETRY:
            return DeviceBatch(topic.device, check_samples(read_batch(payload)))
        # A savepoint: what one device sends must not undo what the others sent.
        with session.begin_nested():
            self._apply_state(session, topic, payload, now)
        return None

    def _apply_state(self, session: Session, topic: topics.UpTopic, payload: bytes, now: float) -> None:
        if topic.kind == topics.STATUS and payload:
            status = decode(payload, Status, max_bytes=MESSAGE_MAX_BYTES)
            _require_own(topic.device, status.device)
            self._inventory.apply_status(session, status, now)
        elif topic.kind == topics.BIRTH:
            birth = decode(payload, Birth, max_bytes=MESSAGE_MAX_BYTES)
            _require_own(topic.device, birth.device)
            self._inventory.apply_birth(session, birth, now)
        elif topic.kind == topics.REPORTED:
            reported = decode(payload, Reported, max_bytes=MESSAGE_MAX_BYTES)
            _require_own(topic.device, reported.device)
            if reported.slot != topic.name:
                raise ContractError("accept the report", f"it came on the topic of slot {topic.name}")
            self._inventory.apply_reported(session, reported, now)
        elif topic.kind == topics.EVENT:
            event = decode(payload, Event, max_bytes=MESSAGE_MAX_BYTES)
            self._inventory.apply_event(session, topic.device, event, now)

    def _active(self, session: Session, devices: set[DeviceId]) -> set[DeviceId]:
        found = (self._inventory.find(session, device) for device in devices)
        return {device.id for device in found if device is not None and device.standing == "active"}


def _require_own(device: DeviceId, named: DeviceId) -> None:
    if device != named:
        raise ContractError("accept the message", f"it names another device than {device}, which sent it")
