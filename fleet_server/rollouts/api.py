"""Routes about rollouts: viewers look, operators act; every act is in the audit log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final, Literal, cast

import anyio
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from starlette.concurrency import run_in_threadpool

from edge_runtime.contract.ids import parse_model_name, parse_slot_id, parse_version
from fleet_server.db import Database
from fleet_server.identity.access import Operator, Viewer
from fleet_server.problems import responses
from fleet_server.rollouts.model import HistoryEntry, RolloutId, parse_waves
from fleet_server.rollouts.service import RolloutOrder, Rollouts
from fleet_server.rollouts.views import (
    EventPage,
    PreviewView,
    RolloutDetailView,
    RolloutList,
    detail_view,
    history_view,
    preview_view,
    rollout_view,
)

router = APIRouter(prefix="/api/v1/rollouts", tags=["rollouts"], responses=responses(401, 403))

_LOOK_S = 0.2
_EXAMPLE: Final[JsonDict] = {
    "model": "digits",
    "version": "1.0.0",
    "slot": "main",
    "selector": "site=lab,ring in (canary,early)",
    "waves": ["1", "50%", "100%"],
    "max_failed_ratio": 0.0,
    "soak_s": 60,
    "deadline_s": 3600,
    "hold_s": 0,
    "on_failure": "revert_all",
}


@dataclass(frozen=True, slots=True)
class RolloutPorts:
    """What these routes need."""

    database: Database
    rollouts: Rollouts
    clock: Callable[[], float] = time.time


def _ports(request: Request) -> RolloutPorts:
    return cast("RolloutPorts", request.app.state.rollouts)


Ports = Annotated[RolloutPorts, Depends(_ports)]


class RolloutRequest(BaseModel):
    """Which release goes to which devices, in which waves, and what stops it."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": _EXAMPLE})

    model: str
    version: str
    name: str | None = Field(default=None, max_length=200)
    slot: str = "main"
    selector: str = ""
    """Labels, as in Kubernetes; `id`, `arch` and `profile` work as labels. Empty: every device."""
    waves: list[str] = Field(default_factory=lambda: ["1", "10%", "50%", "100%"], max_length=50)
    """Counts or percentages, cumulative over the devices matched at start."""
    max_failed_ratio: float = 0.0
    """A wave passes while at most this share of its devices failed, rolled back or stayed silent."""
    soak_s: float = 60.0
    deadline_s: float = 3600.0
    hold_s: float = 0.0
    on_failure: Literal["pause", "revert_all"] = "pause"
    max_trials: int = 3


@router.post("", status_code=201, responses=responses(404, 422))
def create_rollout(who: Operator, ports: Ports, wanted: RolloutRequest) -> RolloutDetailView:
    """Begin a rollout; its first wave opens at once."""
    rollout = ports.rollouts.create(_order(wanted), by=who.name, now=ports.clock())
    return _show(ports, rollout)


@router.post("/preview", responses=responses(404, 422))
def preview_rollout(_who: Viewer, ports: Ports, wanted: RolloutRequest) -> PreviewView:
    """Which variants each device would be offered and why, and which devices have none; changes nothing."""
    return preview_view(ports.rollouts.preview(_order(wanted)))


@router.get("")
def list_rollouts(_who: Viewer, ports: Ports, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> RolloutList:
    """Rollouts, newest first."""
    with ports.database.reading() as session:
        return RolloutList([rollout_view(found) for found in ports.rollouts.newest(session, limit=limit)])


@router.get("/{rollout}", responses=responses(404))
def show_rollout(
    _who: Viewer,
    ports: Ports,
    rollout: str,
    after: str = "",
    limit: Annotated[int, Query(ge=0, le=10_000)] = 200,
) -> RolloutDetailView:
    """One rollout: waves with verdicts, `limit` of the reached devices (those after a device id), newest history."""
    return _show(ports, RolloutId(rollout), after=after, limit=limit)


@router.get("/{rollout}/events", responses=responses(404))
async def wait_for_events(
    _who: Viewer,
    ports: Ports,
    rollout: str,
    after: int = 0,
    wait_s: Annotated[float, Query(ge=0, le=30)] = 20.0,
) -> EventPage:
    """What happened after a cursor; waits up to `wait_s` seconds for something to happen."""
    give_up_at = anyio.current_time() + wait_s
    while True:
        found = await run_in_threadpool(_history, ports, RolloutId(rollout), after)
        if found or anyio.current_time() >= give_up_at:
            return EventPage([history_view(entry) for entry in found], found[-1].id if found else after)
        await anyio.sleep(_LOOK_S)


@router.post("/{rollout}/pause", responses=responses(404, 409))
def pause_rollout(who: Operator, ports: Ports, rollout: str) -> RolloutDetailView:
    """Assign nobody else until someone resumes."""
    ports.rollouts.pause(RolloutId(rollout), by=who.name, now=ports.clock())
    return _show(ports, RolloutId(rollout))


@router.post("/{rollout}/resume", responses=responses(404, 409))
def resume_rollout(who: Operator, ports: Ports, rollout: str) -> RolloutDetailView:
    """Go on. Whoever resumes after a failed wave accepts that wave as it is; the audit log names them."""
    ports.rollouts.resume(RolloutId(rollout), by=who.name, now=ports.clock())
    return _show(ports, RolloutId(rollout))


@router.post("/{rollout}/cancel", responses=responses(404, 409))
def cancel_rollout(who: Operator, ports: Ports, rollout: str) -> RolloutDetailView:
    """End it where it is; reached devices keep what they have."""
    ports.rollouts.cancel(RolloutId(rollout), by=who.name, now=ports.clock())
    return _show(ports, RolloutId(rollout))


@router.post("/{rollout}/revert", responses=responses(404, 409))
def revert_rollout(who: Operator, ports: Ports, rollout: str) -> RolloutDetailView:
    """Send every reached device back to what it ran before."""
    ports.rollouts.revert(RolloutId(rollout), by=who.name, now=ports.clock())
    return _show(ports, RolloutId(rollout))


def _order(wanted: RolloutRequest) -> RolloutOrder:
    return RolloutOrder(
        model=parse_model_name(wanted.model),
        version=parse_version(wanted.version),
        slot=parse_slot_id(wanted.slot),
        selector=wanted.selector,
        waves=parse_waves(",".join(wanted.waves)) if wanted.waves else (),
        name=wanted.name,
        max_failed_ratio=wanted.max_failed_ratio,
        soak_s=wanted.soak_s,
        deadline_s=wanted.deadline_s,
        hold_s=wanted.hold_s,
        on_failure=wanted.on_failure,
        max_trials=wanted.max_trials,
    )


def _show(ports: RolloutPorts, rollout: RolloutId, *, after: str = "", limit: int = 200) -> RolloutDetailView:
    with ports.database.reading() as session:
        return detail_view(ports.rollouts.status(session, rollout, ports.clock(), after=after, limit=limit))


def _history(ports: RolloutPorts, rollout: RolloutId, after: int) -> list[HistoryEntry]:
    with ports.database.reading() as session:
        return ports.rollouts.history(session, rollout, after=after)
