"""What people do with rollouts: plan, preview, create, look, pause, resume, cancel, revert.

Each use case is one transaction; whatever is decided is in the rollout's history and in the audit log.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.device_state import Reported
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import DeviceId, ModelName, SlotId, Version, shown
from fleet_server.db import Database, Session
from fleet_server.errors import InvalidRequest, NotFound
from fleet_server.identity import audit
from fleet_server.inventory.model import Device, parse_selector
from fleet_server.inventory.service import FleetMember, Inventory
from fleet_server.releases.model import ReleaseDetail
from fleet_server.releases.service import Releases
from fleet_server.rollouts import store
from fleet_server.rollouts.gates import Verdict, device_count
from fleet_server.rollouts.model import (
    HistoryEntry,
    Member,
    OnFailure,
    OutcomeGate,
    Rollout,
    RolloutEvent,
    RolloutId,
    RolloutPlan,
    RolloutState,
    WaveCensus,
    WaveSize,
    check_plan,
    next_state,
)
from fleet_server.rollouts.offers import Offer, class_of, offer
from fleet_server.rollouts.planner import FleetView, Wait, awaits_wave, decide, verdict_of

_MEMBERS_SHOWN: Final = 200
_HISTORY_SHOWN: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOrder:
    """What a person asks for; the release's digest and the rollout's id are added here."""

    model: ModelName
    version: Version
    slot: SlotId
    selector: str
    waves: tuple[WaveSize, ...]
    name: str | None = None
    max_failed_ratio: float = 0.0
    soak_s: float = 60.0
    deadline_s: float = 3600.0
    hold_s: float = 0.0
    on_failure: OnFailure = "pause"
    max_trials: int = 3


@dataclass(frozen=True, slots=True)
class WaveStatus:
    """One wave: planned, or opened and judged."""

    index: int
    size: WaveSize
    opened_at: float | None = None
    census: WaveCensus | None = None
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """One reached device: what became of it, and its latest report."""

    member: Member
    reported: Reported | None
    connection: str


@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """A rollout as it stands now."""

    rollout: Rollout
    sentence: str
    """Why it stands where it stands, at this moment."""
    waves: tuple[WaveStatus, ...]
    members: tuple[MemberStatus, ...]
    history: tuple[HistoryEntry, ...]
    """The newest entries, oldest first."""


@dataclass(frozen=True, slots=True)
class DevicePreview:
    """What one device would be offered."""

    device: DeviceId
    wave: int | None
    """First wave that would reach it; None when the waves do not reach every device."""
    runs: str | None
    offered: Offer


@dataclass(frozen=True, slots=True)
class Preview:
    """What a rollout would do, before anything is done."""

    release: ReleaseDetail
    devices: tuple[DevicePreview, ...]


class Rollouts:
    """The rollouts of this fleet."""

    def __init__(
        self, database: Database, inventory: Inventory, releases: Releases, *, unsafe_gate_off: bool = False
    ) -> None:
        self._database = database
        self._inventory = inventory
        self._releases = releases
        self._unsafe_gate_off = unsafe_gate_off

    def create(self, order: RolloutOrder, *, by: str, now: float) -> RolloutId:
        """Begin a rollout; its first wave opens with the next tick.

        Raises:
            NotFound: the release was never pushed here.
            Conflict: the release was withdrawn.
            InvalidRequest: a threshold makes no sense, or the selector matches no device.
        """
        with self._database.session() as session:
            release = self._releases.offered(session, order.model, order.version)
            plan = self._plan(order, release.digest)
            fleet = self._inventory.fleet(session, plan.slot, parse_selector(plan.selector))
            matched = len(fleet)
            if not matched:
                self._refuse_empty_fleet(session, plan)
                raise InvalidRequest(
                    "start the rollout",
                    f"no active device matches {shown(plan.selector)}",
                    "try the selector with: edge-fleet devices list --selector",
                )
            self._refuse_unknown_slot(session, plan, {member.device.id for member in fleet})
            sentence = f"{by} rolls {plan.model} {plan.version} out to {device_count(matched)}"
            rollout = Rollout(
                id=RolloutId(f"r-{secrets.token_hex(4)}"),
                name=order.name or f"{plan.model} {plan.version}",
                plan=plan,
                state=RolloutState.RUNNING,
                generation=1,
                matched_at_start=matched,
                created_at=now,
                created_by=by,
                sentence=sentence,
            )
            store.add_rollout(session, rollout)
            detail = {"release": plan.release, "selector": plan.selector, "unsafe_gate_off": plan.unsafe_gate_off}
            record(session, rollout, "rollout.created", now=now, who=by, detail=detail)
        return rollout.id

    def _refuse_empty_fleet(self, session: Session, plan: RolloutPlan) -> None:
        """Say so where there is nobody at all, rather than blame the selector. Raises: InvalidRequest."""
        if not self._inventory.fleet(session, plan.slot, parse_selector("")):
            raise InvalidRequest(
                "start the rollout",
                "no device has enrolled yet, or none is active any more",
                "edge-fleet devices claim makes its enrolment; start the agent on the device with it",
            )

    def _refuse_unknown_slot(self, session: Session, plan: RolloutPlan, devices: set[DeviceId]) -> None:
        """A device reports every slot it has; one that never reported may have any."""
        reported = [view for view in self._inventory.slots(session, devices) if view.reported is not None]
        slots = {view.slot for view in reported}
        if {view.device for view in reported} == devices and plan.slot not in slots:
            raise InvalidRequest(
                "start the rollout", f"no device has a slot {plan.slot}", f"name one of {', '.join(sorted(slots))}"
            )

    def newest(self, session: Session, *, limit: int = 100) -> list[Rollout]:
        """Rollouts, newest first."""
        return store.list_rollouts(session, limit=limit)

    def get(self, session: Session, rollout: RolloutId) -> Rollout:
        """One rollout. Raises: NotFound."""
        found = store.find_rollout(session, rollout)
        if found is None:
            raise NotFound(f"find rollout {shown(rollout)}", "there is none of this id", "edge-fleet rollouts list")
        return found

    def status(
        self, session: Session, rollout_id: RolloutId, now: float, *, after: str = "", limit: int = _MEMBERS_SHOWN
    ) -> RolloutStatus:
        """A rollout with its waves, verdicts, members and history. Raises: NotFound."""
        rollout = self.get(session, rollout_id)
        fleet = self.look(session, rollout, now)
        decision = decide(rollout, fleet, now)
        members = store.list_members(session, rollout.id, after=after, limit=limit)
        slots = self._inventory.slots(session, [member.device for member in members])
        reported = {view.device: view.reported for view in slots if view.slot == rollout.plan.slot}
        connections = self._inventory.connections(session, [member.device for member in members])
        return RolloutStatus(
            rollout=rollout,
            sentence=decision.sentence if isinstance(decision, Wait) else rollout.sentence,
            waves=_waves(rollout, fleet, store.wave_openings(session, rollout.id)),
            members=tuple(
                MemberStatus(member, reported.get(member.device), connections.get(member.device, "unknown"))
                for member in members
            ),
            history=tuple(store.newest_history(session, rollout.id, limit=_HISTORY_SHOWN)),
        )

    def history(self, session: Session, rollout: RolloutId, *, after: int) -> list[HistoryEntry]:
        """What happened since an entry. Raises: NotFound."""
        return store.list_history(session, self.get(session, rollout).id, after=after)

    def look(self, session: Session, rollout: Rollout, now: float) -> FleetView:
        """What the next decision depends on."""
        waves = store.take_census(session, rollout.id, now)
        unreached = len(self.unreached(session, rollout)) if awaits_wave(rollout, waves) else 0
        return FleetView(waves, unreached, store.take_revert_census(session, rollout.id, now))

    def unreached(self, session: Session, rollout: Rollout) -> list[FleetMember]:
        """Active matching devices that no wave has reached, by device id."""
        reached = store.member_ids(session, rollout.id)
        fleet = self._inventory.fleet(session, rollout.plan.slot, parse_selector(rollout.plan.selector))
        return [candidate for candidate in fleet if candidate.device.id not in reached]

    def offer_to(self, session: Session, device: Device, release: ReleaseDetail, max_trials: int) -> Offer:
        """The variants one device would be offered, the winner of its class first."""
        winner = None if device.facts is None else self._winner(session, release.release.digest, device.facts)
        return offer(release.offered, device.facts, winner, max_trials)

    def pause(self, rollout: RolloutId, *, by: str, now: float) -> None:
        """Assign nobody else until someone resumes. Raises: NotFound, IllegalTransition."""
        self._command(rollout, RolloutEvent.PAUSE, f"paused by {by}; reached devices go on", by=by, now=now)

    def cancel(self, rollout: RolloutId, *, by: str, now: float) -> None:
        """End it where it is: reached devices keep what they have. Raises: NotFound, IllegalTransition."""
        sentence = f"cancelled by {by}: nobody else is assigned, reached devices keep what they have"
        self._command(rollout, RolloutEvent.CANCEL, sentence, by=by, now=now)

    def revert(self, rollout: RolloutId, *, by: str, now: float) -> None:
        """Send every reached device back. Raises: NotFound, IllegalTransition."""
        sentence = f"{by} sends every reached device back to what it ran before"
        self._command(rollout, RolloutEvent.REVERT, sentence, by=by, now=now)

    def resume(self, rollout: RolloutId, *, by: str, now: float) -> None:
        """Go on; a person who resumes after a failed wave accepts it, by name. Raises: NotFound, IllegalTransition."""
        with self._database.session() as session:
            found = self.get(session, rollout)
            state = next_state(found.state, RolloutEvent.RESUME)
            sentence = f"resumed by {by}"
            last = next(iter(reversed(store.take_census(session, rollout, now))), None)
            if last is not None and last.passed_at is None:
                verdict = verdict_of(found, last)
                if verdict.result == "fail":
                    store.pass_wave(session, rollout, last.index, now)
                    sentence += f", who accepts it as it is: {verdict.sentence}"
            resumed = store.advance(session, found, state=state, sentence=sentence)
            record(session, resumed, "rollout.resumed", now=now, who=by)

    def preview(self, order: RolloutOrder) -> Preview:
        """What the rollout would offer to each device. Raises: NotFound, InvalidRequest."""
        with self._database.reading() as session:
            release = self._releases.offered(session, order.model, order.version)
            detail = self._releases.detail(release)
            plan = self._plan(order, release.digest)
            fleet = self._inventory.fleet(session, plan.slot, parse_selector(plan.selector))
            reach = [wave.cumulative(len(fleet)) for wave in plan.waves]
            devices = [
                DevicePreview(
                    device=candidate.device.id,
                    wave=next((wave for wave, until in enumerate(reach) if position < until), None),
                    runs=_runs(candidate),
                    offered=self.offer_to(session, candidate.device, detail, plan.max_trials),
                )
                for position, candidate in enumerate(fleet)
            ]
        return Preview(detail, tuple(devices))

    def _command(self, rollout: RolloutId, event: RolloutEvent, sentence: str, *, by: str, now: float) -> None:
        with self._database.session() as session:
            found = self.get(session, rollout)
            changed = store.advance(session, found, state=next_state(found.state, event), sentence=sentence)
            record(session, changed, _COMMANDS[event], now=now, who=by)

    def _plan(self, order: RolloutOrder, release: Digest) -> RolloutPlan:
        parse_selector(order.selector)
        plan = RolloutPlan(
            model=order.model,
            version=order.version,
            release=release,
            slot=order.slot,
            selector=order.selector,
            waves=order.waves,
            gate=OutcomeGate(order.max_failed_ratio),
            soak_s=order.soak_s,
            deadline_s=order.deadline_s,
            hold_s=order.hold_s,
            on_failure=order.on_failure,
            max_trials=order.max_trials,
        )
        return check_plan(replace(plan, unsafe_gate_off=self._unsafe_gate_off))

    def _winner(self, session: Session, release: Digest, facts: DeviceFacts) -> Digest | None:
        return store.find_winner(session, release, class_of(facts))


_COMMANDS: Final[Mapping[RolloutEvent, str]] = {
    RolloutEvent.PAUSE: "rollout.paused",
    RolloutEvent.CANCEL: "rollout.cancelled",
    RolloutEvent.REVERT: "rollout.revert_begun",
}


def record(
    session: Session,
    rollout: Rollout,
    name: str,
    *,
    now: float,
    who: str | None = None,
    detail: Mapping[str, object] | None = None,
) -> None:
    """Write what was just decided, with its sentence, into the history and the audit log; `who` is a person's name."""
    actor = who or f"rollout {rollout.id}"
    store.add_history(session, rollout.id, HistoryEntry(0, now, actor, name, rollout.sentence))
    audit.record(session, actor, name, rollout.id, now=now, detail={"sentence": rollout.sentence, **(detail or {})})


def _waves(rollout: Rollout, fleet: FleetView, openings: Mapping[int, float]) -> tuple[WaveStatus, ...]:
    planned = [WaveStatus(index, size) for index, size in enumerate(rollout.plan.waves)]
    opened = [
        WaveStatus(
            census.index,
            rollout.plan.waves[census.index],
            openings.get(census.index),
            census,
            verdict_of(rollout, census),
        )
        for census in fleet.waves
    ]
    return (*opened, *planned[len(opened) :])


def _runs(candidate: FleetMember) -> str | None:
    running = candidate.slot.reported.running if candidate.slot.reported else None
    return None if running is None else running.target or running.release
