"""Telemetry routes: summaries for people, batches from devices that poll."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query, Request, Response

from edge_runtime.contract import device_api
from edge_runtime.contract.codec import Document, encode
from edge_runtime.contract.digest import parse_digest
from edge_runtime.contract.ids import parse_device_id, parse_slot_id, parse_variant_id
from edge_runtime.contract.telemetry import TelemetryAck, TelemetryBatch, read_batch
from fleet_server.db import Database
from fleet_server.identity.access import Viewer
from fleet_server.identity.peer_certificate import MessageBody, Peer
from fleet_server.problems import responses
from fleet_server.telemetry.model import EVERY_KEY, GroupKey, Summary
from fleet_server.telemetry.service import DeviceBatch, Telemetry, check_samples
from fleet_server.telemetry.store import Filter

people = APIRouter(prefix="/api/v1/telemetry", tags=["telemetry"], responses=responses(401, 403))
devices = APIRouter(tags=["device"], responses=responses(401))

DOCUMENTS: tuple[type[Document], ...] = (TelemetryBatch, TelemetryAck)
"""Contract documents these routes speak, for the OpenAPI schema."""


@dataclass(frozen=True, slots=True)
class TelemetryPorts:
    """What these routes need."""

    database: Database
    telemetry: Telemetry


def _ports(request: Request) -> TelemetryPorts:
    return cast("TelemetryPorts", request.app.state.telemetry)


Ports = Annotated[TelemetryPorts, Depends(_ports)]


@dataclass(frozen=True, slots=True)
class SummaryPage:
    """One summary per group."""

    items: list[Summary]


def _chosen(
    *,
    device: str | None = None,
    slot: str | None = None,
    release: str | None = None,
    variant: str | None = None,
    since: float | None = None,
    until: float | None = None,
) -> Filter:
    return Filter(
        device=None if device is None else parse_device_id(device),
        slot=None if slot is None else parse_slot_id(slot),
        release=None if release is None else parse_digest(release),
        variant=None if variant is None else parse_variant_id(variant),
        since=since,
        until=until,
    )


@people.get("/summary", responses=responses(422))
def summarise(
    _who: Viewer,
    ports: Ports,
    chosen: Annotated[Filter, Depends(_chosen)],
    by: Annotated[list[GroupKey] | None, Query()] = None,
) -> SummaryPage:
    """Requests, errors, measured accuracy and latency, added up by group (all four keys unless `by` names fewer)."""
    with ports.database.reading() as session:
        return SummaryPage(ports.telemetry.summary(session, chosen, by or EVERY_KEY))


@devices.post(
    device_api.TELEMETRY,
    openapi_extra={"x-request": "TelemetryBatch", "x-response": "TelemetryAck"},
    responses=responses(422),
)
def receive(device: Peer, ports: Ports, body: MessageBody) -> Response:
    """A polling device hands in one batch; the answer says what is committed."""
    batch = check_samples(read_batch(body))
    with ports.database.session() as session:
        acks = ports.telemetry.store(session, [DeviceBatch(device, batch)], time.time())
    return Response(encode(acks[0][1]), media_type="application/json")
