"""Rows of devices, slots and timelines; they are parsed into domain types before they leave this module."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import cast

import msgspec
from sqlalchemy import Column, Float, and_, func
from sqlalchemy import Text as TextType
from sqlmodel import Field, SQLModel, col, select

from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.device_state import Assignment, Reported
from edge_runtime.contract.ids import DeviceId, SlotId
from fleet_server.db import Session
from fleet_server.inventory.model import Device, DeviceStanding, SlotProgress, SlotView, TimelineEntry


class DeviceRow(SQLModel, table=True):
    """One device."""

    __tablename__ = "device"

    id: str = Field(primary_key=True)
    standing: str = Field(index=True)
    connection: str
    labels: str = Field(sa_column=Column(TextType, nullable=False))
    enrolled_at: float
    last_seen_at: float | None = None
    session: str | None = None
    agent: str | None = None
    facts: str | None = Field(default=None, sa_column=Column(TextType))
    capabilities: str = Field(default="[]", sa_column=Column(TextType, nullable=False))


class DesiredRow(SQLModel, table=True):
    """What one slot of one device must run: the assignment as it will be signed."""

    __tablename__ = "desired"

    device: str = Field(primary_key=True)
    slot: str = Field(primary_key=True)
    seq: int
    release: str | None = Field(default=None, index=True)
    rollout: str | None = Field(default=None, index=True)
    expires: float = Field(sa_column=Column(Float, nullable=False))
    document: str = Field(sa_column=Column(TextType, nullable=False))


class ReportedRow(SQLModel, table=True):
    """The newest report of one slot of one device."""

    __tablename__ = "reported"

    device: str = Field(primary_key=True)
    slot: str = Field(primary_key=True)
    seq: int
    revision: int
    state: str = Field(index=True)
    release: str | None = Field(default=None, index=True)
    document: str = Field(sa_column=Column(TextType, nullable=False))


class TimelineRow(SQLModel, table=True):
    """One event in the life of a device."""

    __tablename__ = "timeline"

    id: int | None = Field(default=None, primary_key=True)
    device: str = Field(index=True)
    at: float
    name: str
    slot: str | None = None
    detail: str = Field(default="{}", sa_column=Column(TextType, nullable=False))


def find_device(session: Session, device: DeviceId) -> Device | None:
    """One device, or None."""
    row = session.get(DeviceRow, device)
    return None if row is None else _device(row)


def list_devices(session: Session, *, after: str = "", limit: int | None = None) -> list[Device]:
    """Devices by id, starting after a cursor."""
    query = select(DeviceRow).where(col(DeviceRow.id) > after).order_by(col(DeviceRow.id))
    return [_device(row) for row in session.exec(query if limit is None else query.limit(limit))]


def connections(session: Session, devices: Iterable[DeviceId]) -> dict[DeviceId, str]:
    """How those of these devices that are known are connected."""
    query = select(DeviceRow.id, DeviceRow.connection).where(col(DeviceRow.id).in_(list(devices)))
    return {DeviceId(device): connection for device, connection in session.exec(query)}


def save_device(session: Session, device: Device) -> None:
    """Insert or replace a device."""
    facts = None if device.facts is None else encode(device.facts).decode()
    session.merge(
        DeviceRow(
            id=device.id,
            standing=device.standing,
            connection=device.connection,
            labels=json.dumps(dict(device.labels), sort_keys=True),
            enrolled_at=device.enrolled_at,
            last_seen_at=device.last_seen_at,
            session=device.session,
            agent=device.agent,
            facts=facts,
            capabilities=json.dumps(list(device.capabilities)),
        )
    )


def count_devices(session: Session) -> dict[tuple[str, str], int]:
    """How many devices there are, by standing and connection."""
    query = select(DeviceRow.standing, DeviceRow.connection, func.count()).group_by(
        col(DeviceRow.standing), col(DeviceRow.connection)
    )
    return {(standing, connection): count for standing, connection, count in session.exec(query)}


def count_slots(session: Session) -> dict[str, int]:
    """How many slots there are, by reported state."""
    query = select(ReportedRow.state, func.count()).group_by(col(ReportedRow.state))
    return dict(session.exec(query).all())


def slot_views(
    session: Session, *, devices: Iterable[DeviceId] | None = None, slot: SlotId | None = None
) -> list[SlotView]:
    """Slots with desired and reported state, by device and name; of some devices, or of one name, or all."""
    desired_query, reported_query = select(DesiredRow), select(ReportedRow)
    if devices is not None:
        wanted = list(devices)
        desired_query = desired_query.where(col(DesiredRow.device).in_(wanted))
        reported_query = reported_query.where(col(ReportedRow.device).in_(wanted))
    if slot is not None:
        desired_query = desired_query.where(DesiredRow.slot == slot)
        reported_query = reported_query.where(ReportedRow.slot == slot)
    desired = {(row.device, row.slot): _assignment(row) for row in session.exec(desired_query)}
    reported = {(row.device, row.slot): _reported(row) for row in session.exec(reported_query)}
    return [
        SlotView(DeviceId(key[0]), SlotId(key[1]), desired.get(key), reported.get(key))
        for key in sorted(desired.keys() | reported.keys())
    ]


def find_slot(session: Session, device: DeviceId, slot: SlotId) -> SlotView:
    """One slot; both sides None when nothing is known of it."""
    desired = session.get(DesiredRow, (device, slot))
    reported = session.get(ReportedRow, (device, slot))
    return SlotView(
        device,
        slot,
        None if desired is None else _assignment(desired),
        None if reported is None else _reported(reported),
    )


def list_progress(session: Session, slot: SlotId, rollout: str) -> list[SlotProgress]:
    """Progress of the slots whose desired state is of one rollout."""
    same = and_(col(DesiredRow.device) == col(ReportedRow.device), col(DesiredRow.slot) == col(ReportedRow.slot))
    query = (
        select(DesiredRow.device, DesiredRow.seq, ReportedRow.seq, ReportedRow.state)
        .join(ReportedRow, same, isouter=True)
        .where(DesiredRow.slot == slot, DesiredRow.rollout == rollout)
    )
    return [SlotProgress(DeviceId(device), seq, heard, state) for device, seq, heard, state in session.exec(query)]


def save_desired(session: Session, assignment: Assignment) -> None:
    """Insert or replace what a slot must run."""
    session.merge(
        DesiredRow(
            device=assignment.device,
            slot=assignment.slot,
            seq=assignment.seq,
            release=assignment.release,
            rollout=assignment.rollout,
            expires=assignment.expires,
            document=encode(assignment).decode(),
        )
    )


def save_reported(session: Session, reported: Reported) -> None:
    """Insert or replace what a slot reported."""
    session.merge(
        ReportedRow(
            device=reported.device,
            slot=reported.slot,
            seq=reported.seq,
            revision=reported.revision,
            state=reported.state,
            release=reported.release,
            document=encode(reported).decode(),
        )
    )


def add_timeline(
    session: Session,
    device: DeviceId,
    name: str,
    *,
    at: float,
    slot: SlotId | None = None,
    detail: Mapping[str, object] | None = None,
) -> None:
    """Add one event to a device's timeline."""
    text = json.dumps(dict(detail or {}), sort_keys=True)
    session.add(TimelineRow(device=device, at=at, name=name, slot=slot, detail=text))


def list_timeline(session: Session, device: DeviceId, *, before: int | None, limit: int) -> list[TimelineEntry]:
    """A device's events, newest first, older than a cursor."""
    query = select(TimelineRow).where(TimelineRow.device == device)
    if before is not None:
        query = query.where(col(TimelineRow.id) < before)
    rows = session.exec(query.order_by(col(TimelineRow.id).desc()).limit(limit))
    return [
        TimelineEntry(
            row.id or 0,
            DeviceId(row.device),
            row.at,
            row.name,
            None if row.slot is None else SlotId(row.slot),
            json.loads(row.detail),
        )
        for row in rows
    ]


def _device(row: DeviceRow) -> Device:
    return Device(
        id=DeviceId(row.id),
        standing=cast("DeviceStanding", row.standing),
        connection=row.connection,
        labels=json.loads(row.labels),
        enrolled_at=row.enrolled_at,
        last_seen_at=row.last_seen_at,
        session=row.session,
        agent=row.agent,
        facts=None if row.facts is None else msgspec.json.decode(row.facts, type=DeviceFacts),
        capabilities=tuple(json.loads(row.capabilities)),
    )


def _assignment(row: DesiredRow) -> Assignment:
    return msgspec.json.decode(row.document, type=Assignment)


def _reported(row: ReportedRow) -> Reported:
    return msgspec.json.decode(row.document, type=Reported)
