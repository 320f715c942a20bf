"""Routes about devices: for people under /api/v1, for the devices themselves under /device/v1."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, cast

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from edge_runtime.contract import device_api
from edge_runtime.contract.codec import Document, decode, encode
from edge_runtime.contract.device_state import (
    Birth,
    DirectorAnswer,
    Enrolment,
    EnrolmentRequest,
    IdentityGrant,
    RenewalRequest,
    Reported,
)
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import DeviceId, parse_device_id
from fleet_server.db import Database
from fleet_server.identity import audit
from fleet_server.identity.access import Operator, Viewer
from fleet_server.identity.peer_certificate import MessageBody, Peer
from fleet_server.inventory.director import Director
from fleet_server.inventory.enrolment import Reception
from fleet_server.inventory.model import Device, SlotView, parse_selector
from fleet_server.inventory.service import Inventory, encoded_facts
from fleet_server.problems import responses

people = APIRouter(prefix="/api/v1", tags=["devices"], responses=responses(401, 403))
devices = APIRouter(tags=["device"], responses=responses(401))


@dataclass(frozen=True, slots=True)
class InventoryPorts:
    """What these routes need."""

    database: Database
    inventory: Inventory
    reception: Reception
    director: Director


def _ports(request: Request) -> InventoryPorts:
    return cast("InventoryPorts", request.app.state.inventory)


Ports = Annotated[InventoryPorts, Depends(_ports)]


@dataclass(frozen=True, slots=True)
class DesiredView:
    """What a slot must run."""

    seq: int
    kind: str
    target: str | None
    release: str | None
    issued: float
    expires: float
    rollout: str | None
    candidates: list[str]


@dataclass(frozen=True, slots=True)
class ReportedView:
    """Where a slot stands."""

    seq: int
    revision: int
    state: str
    at: float
    target: str | None
    release: str | None
    variant: str | None
    running: dict[str, object] | None
    reason: dict[str, object] | None
    waiting_for: str | None
    trials: list[dict[str, object]]
    rollout: str | None


@dataclass(frozen=True, slots=True)
class SlotSides:
    """Both sides of one slot."""

    slot: str
    desired: DesiredView | None
    reported: ReportedView | None


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device with its slots."""

    id: str
    standing: str
    connection: str
    labels: dict[str, str]
    enrolled_at: float
    last_seen_at: float | None
    agent: str | None
    facts: dict[str, object] | None
    slots: list[SlotSides]


@dataclass(frozen=True, slots=True)
class DevicePage:
    """Devices by id; pass `next_cursor` as `after` for more."""

    items: list[DeviceView]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class TimelineView:
    """Something that happened to a device."""

    id: int
    at: float
    name: str
    slot: str | None
    detail: dict[str, object]


@dataclass(frozen=True, slots=True)
class TimelinePage:
    """Events, newest first; pass `next_cursor` as `before` for older ones."""

    items: list[TimelineView]
    next_cursor: int | None


class ClaimRequest(BaseModel):
    """Whom to let in."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"device": "kitchen-7", "labels": {"site": "bonn"}, "ttl_s": 86400}},
    )

    device: str | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    ttl_s: float = Field(default=86_400.0, gt=0)


class LabelsRequest(BaseModel):
    """The labels a device shall have, all of them."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"labels": {"ring": "canary"}}})

    labels: dict[str, str]


@people.get("/devices", responses=responses(422))
def list_devices(
    _who: Viewer,
    ports: Ports,
    selector: str = "",
    after: str = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> DevicePage:
    """Devices that a selector means (`site=bonn,ring in (canary,early)`); all without one."""
    chosen = parse_selector(selector)
    with ports.database.reading() as session:
        found = ports.inventory.devices(session, chosen, after=after, limit=limit)
        views = ports.inventory.slots(session, [device.id for device in found])
    items = [device_view(device, views) for device in found]
    return DevicePage(items, items[-1].id if len(items) == limit else None)


@people.get("/devices/{device}", responses=responses(404))
def show_device(_who: Viewer, ports: Ports, device: str) -> DeviceView:
    """One device and its slots."""
    with ports.database.reading() as session:
        found = ports.inventory.device(session, parse_device_id(device))
        return device_view(found, ports.inventory.slots(session, [found.id]))


@people.get("/devices/{device}/timeline", responses=responses(404))
def show_timeline(
    _who: Viewer,
    ports: Ports,
    device: str,
    before: int | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> TimelinePage:
    """What happened to a device, newest first."""
    with ports.database.reading() as session:
        found = ports.inventory.timeline(session, parse_device_id(device), before=before, limit=limit)
    items = [TimelineView(entry.id, entry.at, entry.name, entry.slot, dict(entry.detail)) for entry in found]
    return TimelinePage(items, items[-1].id if len(items) == limit else None)


@people.put("/devices/{device}/labels", responses=responses(404, 422))
def relabel_device(who: Operator, ports: Ports, device: str, wanted: LabelsRequest) -> DeviceView:
    """Replace a device's labels."""
    with ports.database.session() as session:
        now = time.time()
        changed = ports.inventory.relabel(session, parse_device_id(device), wanted.labels, now)
        audit.record(session, who.name, "device.relabelled", changed.id, now=now, detail=wanted.labels)
        return device_view(changed, ports.inventory.slots(session, [changed.id]))


@people.post("/devices/{device}/revoke", status_code=204, responses=responses(404))
def revoke_device(who: Operator, ports: Ports, device: str) -> None:
    """Refuse a device from now on, its live sessions included."""
    ports.reception.revoke(parse_device_id(device), by=who.name, now=time.time(), decommission=False)


@people.post("/devices/{device}/decommission", status_code=204, responses=responses(404))
def decommission_device(who: Operator, ports: Ports, device: str) -> None:
    """The device has left the fleet for good."""
    ports.reception.revoke(parse_device_id(device), by=who.name, now=time.time(), decommission=True)


@people.post("/claims", status_code=201, responses=responses(422), tags=["devices"])
def create_claim(who: Operator, ports: Ports, wanted: ClaimRequest) -> Response:
    """Make an enrolment document with a one-time claim; the secret in it is shown only here."""
    enrolment = ports.reception.invite(
        device=None if wanted.device is None else parse_device_id(wanted.device),
        labels=wanted.labels,
        ttl_s=wanted.ttl_s,
        by=who.name,
        now=time.time(),
    )
    return document_response(enrolment, status_code=201)


@devices.post(device_api.ENROL, openapi_extra={"x-request": "EnrolmentRequest", "x-response": "IdentityGrant"})
def enrol(ports: Ports, body: MessageBody) -> Response:
    """Claim and signing request in, certificate out; the only route that needs no certificate."""
    return document_response(ports.reception.enrol(decode(body, EnrolmentRequest), time.time()))


@devices.post(device_api.RENEW, openapi_extra={"x-request": "RenewalRequest", "x-response": "IdentityGrant"})
def renew(device: Peer, ports: Ports, body: MessageBody) -> Response:
    """The device's next certificate."""
    return document_response(ports.reception.renew(device, decode(body, RenewalRequest), time.time()))


@devices.get(device_api.ASSIGNMENTS, openapi_extra={"x-response": "DirectorAnswer"})
def assignments(device: Peer, ports: Ports, nonce: str) -> Response:
    """What this device must run, signed for it alone, with signed time."""
    now = time.time()
    with ports.database.reading() as session:
        desired = ports.inventory.assignments_for(session, device, now)
    return document_response(ports.director.answer(device, nonce, desired, now))


@devices.post(device_api.BIRTH, status_code=204, openapi_extra={"x-request": "Birth"})
def birth(device: Peer, ports: Ports, body: MessageBody) -> None:
    """A polling device begins a session."""
    message = decode(body, Birth)
    _require_own(device, message.device)
    with ports.database.session() as session:
        ports.inventory.apply_birth(session, message, time.time())


@devices.post(device_api.REPORTED, status_code=204, openapi_extra={"x-request": "Reported"})
def reported(device: Peer, ports: Ports, body: MessageBody) -> None:
    """A polling device reports one slot."""
    message = decode(body, Reported)
    _require_own(device, message.device)
    with ports.database.session() as session:
        ports.inventory.apply_reported(session, message, time.time())


DOCUMENTS: tuple[type[Document], ...] = (
    Birth,
    DirectorAnswer,
    Enrolment,
    EnrolmentRequest,
    IdentityGrant,
    RenewalRequest,
    Reported,
)
"""Contract documents these routes speak, for the OpenAPI schema."""


def document_response(document: Document, status_code: int = 200) -> Response:
    """A contract document as an HTTP response."""
    return Response(encode(document), status_code=status_code, media_type="application/json")


def device_view(device: Device, views: list[SlotView]) -> DeviceView:
    """A device as people see it, with those of `views` that are its own."""
    return DeviceView(
        id=device.id,
        standing=device.standing,
        connection=device.connection,
        labels=dict(device.labels),
        enrolled_at=device.enrolled_at,
        last_seen_at=device.last_seen_at,
        agent=device.agent,
        facts=encoded_facts(device),
        slots=[_slot_sides(view) for view in views if view.device == device.id],
    )


def _slot_sides(view: SlotView) -> SlotSides:
    desired, reported = view.desired, view.reported
    return SlotSides(
        slot=view.slot,
        desired=None
        if desired is None
        else DesiredView(
            seq=desired.seq,
            kind=desired.kind,
            target=desired.target,
            release=desired.release,
            issued=desired.issued,
            expires=desired.expires,
            rollout=desired.rollout,
            candidates=[candidate.id for candidate in desired.candidates],
        ),
        reported=None if reported is None else _reported_view(reported),
    )


def _reported_view(reported: Reported) -> ReportedView:
    plain = msgspec.to_builtins(reported)
    return ReportedView(
        seq=reported.seq,
        revision=reported.revision,
        state=reported.state,
        at=reported.at,
        target=reported.target,
        release=reported.release,
        variant=reported.variant,
        running=plain.get("running"),
        reason=plain.get("reason"),
        waiting_for=reported.waiting_for,
        trials=plain.get("trials", []),
        rollout=reported.rollout,
    )


def _require_own(device: DeviceId, named: DeviceId) -> None:
    if device != named:
        raise ContractError("accept the message", f"it names another device than {device}, which sent it")
