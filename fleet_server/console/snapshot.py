"""What every open page shows: one picture of the fleet, made from the services that the API uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from edge_runtime.contract.device_state import Reported, SlotState
from edge_runtime.contract.ids import SlotId
from edge_runtime.contract.reasons import explain
from fleet_server.console.words import release_name
from fleet_server.db import Database, Session
from fleet_server.identity import api_keys, audit
from fleet_server.identity.model import AuditEntry, Principal
from fleet_server.inventory.model import Device, SlotView
from fleet_server.inventory.service import Inventory
from fleet_server.rollouts.model import Rollout, RolloutId
from fleet_server.rollouts.service import Rollouts
from fleet_server.rollouts.views import RolloutDetailView, RolloutView, detail_view, rollout_view
from fleet_server.telemetry.model import Summary
from fleet_server.telemetry.service import Telemetry
from fleet_server.telemetry.store import Filter

MEASURED_S: Final = 900.0
"""How far back accuracy and latency look."""
_MEASURE_AGAIN_S: Final = 5.0
_ROLLOUTS_SHOWN: Final = 50
_AUDIT_SHOWN: Final = 12
_MAIN: Final = SlotId("main")
_FAILING: Final = frozenset({SlotState.FAILED.value, SlotState.ROLLED_BACK.value})

_Measured = Mapping[tuple[str, str, str, str], Summary]


@dataclass(frozen=True, slots=True)
class ConsolePorts:
    """What the console is made of."""

    database: Database
    inventory: Inventory
    rollouts: Rollouts
    telemetry: Telemetry
    broker: str
    """Its name, for people."""
    is_broker_connected: Callable[[], bool]
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """One slot of one device; texts marked * are the device's own words and are shown as text only."""

    key: str
    device: str
    slot: str | None
    """None for the main slot."""
    standing: str
    connection: str
    labels: str
    """*"""
    running: str | None
    """Model and version, or the start of the release's digest."""
    variant: str | None
    """*"""
    state: str | None
    """*"""
    reason: str | None = None
    detail: str | None = None
    """*"""
    accuracy: float | None = None
    samples: int | None = None
    latency_p95_ms: float | None = None
    requests: int | None = None
    last_seen_at: float | None


@dataclass(frozen=True, slots=True)
class FleetCounts:
    """The fleet in five numbers; revoked and decommissioned devices are not counted."""

    devices: int
    ready: int
    confirmed: int
    """Devices of which every slot has confirmed what it must run."""
    failing: int
    """Devices of which a slot has failed or rolled back its last order."""
    by_release: tuple[tuple[str, int], ...]
    """Slots by what they run, most frequent first."""

    @property
    def away(self) -> int:
        """Devices that are not connected."""
        return self.devices - self.ready


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fleet at one moment."""

    at: float
    is_broker_connected: bool
    counts: FleetCounts
    devices: tuple[DeviceRow, ...]
    rollouts: tuple[RolloutView, ...]
    """Newest first."""
    details: Mapping[str, RolloutDetailView]
    """The rollouts that somebody looks at, and the one shown when nobody chose."""
    audit: tuple[AuditEntry, ...]
    principals: Mapping[str, Principal] = field(default_factory=dict)


class Photographer:
    """Makes snapshots; called from one thread at a time."""

    def __init__(self, ports: ConsolePorts) -> None:
        self._ports = ports
        self._measured: _Measured = {}
        self._measured_at = float("-inf")

    def take(self, wanted: frozenset[str]) -> Snapshot:
        """One consistent picture, with the details of the wanted rollouts."""
        ports, now = self._ports, self._ports.clock()
        with ports.database.reading() as session:
            devices = ports.inventory.devices(session)
            slots = ports.inventory.slots(session, [device.id for device in devices])
            rollouts = ports.rollouts.newest(session, limit=_ROLLOUTS_SHOWN)
            self._measure(session, now)
            return Snapshot(
                at=now,
                is_broker_connected=ports.is_broker_connected(),
                counts=count(devices, slots),
                devices=tuple(_rows(devices, slots, self._measured)),
                rollouts=tuple(rollout_view(rollout) for rollout in rollouts),
                details=self._details(session, rollouts, wanted, now),
                audit=tuple(audit.entries(session, limit=_AUDIT_SHOWN)),
                principals={
                    key.prefix: Principal(key.name, key.role)
                    for key in api_keys.list_all(session)
                    if key.revoked_at is None
                },
            )

    def _measure(self, session: Session, now: float) -> None:
        # Samples are many and change slowly.
        if not self._measured_at <= now < self._measured_at + _MEASURE_AGAIN_S:
            self._measured_at = now
            found = self._ports.telemetry.summary(
                session, Filter(since=now - MEASURED_S), ("device", "slot", "release", "variant")
            )
            self._measured = {
                (one.group["device"], one.group["slot"], one.group["release"], one.group["variant"]): one
                for one in found
            }

    def _details(
        self, session: Session, rollouts: list[Rollout], wanted: frozenset[str], now: float
    ) -> dict[str, RolloutDetailView]:
        known = {rollout.id: rollout for rollout in rollouts}
        shown = {name for name in wanted if RolloutId(name) in known}
        if (chosen := default_rollout([rollout_view(rollout) for rollout in rollouts])) is not None:
            shown.add(chosen)
        return {name: detail_view(self._ports.rollouts.status(session, RolloutId(name), now)) for name in sorted(shown)}


def default_rollout(rollouts: Iterable[RolloutView]) -> str | None:
    """The rollout to show when nobody chose one: the newest that still moves, else the newest."""
    newest_first = list(rollouts)
    moving = [one.id for one in newest_first if one.state in {"running", "paused", "reverting"}]
    return next(iter([*moving, *(one.id for one in newest_first)]), None)


def count(devices: Iterable[Device], slots: Iterable[SlotView]) -> FleetCounts:
    """Count a fleet."""
    active = {device.id: device for device in devices if device.standing == "active"}
    own = [slot for slot in slots if slot.device in active]
    states: dict[str, set[str]] = {}
    for slot in own:
        if slot.reported is not None:
            states.setdefault(slot.device, set()).add(slot.reported.state)
    running = Counter(text for slot in own if (text := _running(slot.reported)) is not None)
    return FleetCounts(
        devices=len(active),
        ready=sum(device.connection == "ready" for device in active.values()),
        confirmed=sum(found == {SlotState.CONFIRMED.value} for found in states.values()),
        failing=sum(bool(found & _FAILING) for found in states.values()),
        by_release=tuple(sorted(running.items(), key=lambda one: (-one[1], one[0]))),
    )


def _rows(devices: Iterable[Device], slots: Iterable[SlotView], measured: _Measured) -> Iterable[DeviceRow]:
    views: dict[str, list[SlotView]] = {}
    for slot in slots:
        views.setdefault(slot.device, []).append(slot)
    for device in devices:
        for view in views.get(device.id) or [SlotView(device.id, _MAIN, None, None)]:
            yield _row(device, view, measured)


def _row(device: Device, view: SlotView, measured: _Measured) -> DeviceRow:
    reported = view.reported
    running = reported.running if reported else None
    reason = reported.reason if reported else None
    found = None
    if running is not None:
        found = measured.get((device.id, view.slot, running.release, running.variant))
    return DeviceRow(
        key=f"{device.id}/{view.slot}",
        device=device.id,
        slot=None if view.slot == _MAIN else view.slot,
        standing=device.standing,
        connection=device.connection,
        labels=", ".join(f"{key}={value}" for key, value in sorted(device.labels.items())),
        running=_running(reported),
        variant=running.variant if running else None,
        state=reported.state if reported else None,
        reason=explain(reason.code) if reason else None,
        detail=reason.detail if reason else None,
        accuracy=found.accuracy if found else None,
        samples=found.total if found else None,
        latency_p95_ms=found.latency_p95_ms if found else None,
        requests=found.requests if found else None,
        last_seen_at=device.last_seen_at,
    )


def _running(reported: Reported | None) -> str | None:
    running = reported.running if reported else None
    return None if running is None else release_name(running.target or running.release)
