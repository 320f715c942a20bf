"""What happens to devices and slots: registering, hearing from them, and deciding their sequence numbers.

Every method runs inside the caller's transaction; bells ring only after its commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

import msgspec

from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.device_state import Assignment, Birth, Event, Reported, SlotState, SlotSummary, Status
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import DeviceId, SlotId, parse_device_id, parse_slot_id, shown
from fleet_server.db import Session, on_commit
from fleet_server.errors import Conflict, InvalidRequest, NotFound
from fleet_server.inventory import store
from fleet_server.inventory.model import (
    EVERY_DEVICE,
    AssignmentDraft,
    Device,
    Selector,
    SlotProgress,
    SlotView,
    TimelineEntry,
    check_labels,
)
from fleet_server.settings import SERVER_CLIENT_ID

_GONE: Final = frozenset({"lost", "disconnected"})
_SLOTS_MAX: Final = 64
_EVENT_DETAIL_MAX: Final = 32


class Doorbells(Protocol):
    """Tells a device that something is desired of it; may fail silently, because births ring again."""

    def ring(self, device: DeviceId, slot: SlotId, seq: int) -> None:
        """Ring for one slot."""


@dataclass(frozen=True, slots=True)
class FleetMember:
    """A device and one of its slots."""

    device: Device
    slot: SlotView


class Inventory:
    """The devices of this fleet and what each slot must run."""

    def __init__(self, doorbells: Doorbells) -> None:
        self._doorbells = doorbells

    def register(
        self,
        session: Session,
        device: DeviceId,
        *,
        labels: Mapping[str, str],
        facts: DeviceFacts | None,
        now: float,
    ) -> Device:
        """Add a device, or give a known one a new beginning: its slots keep their sequence numbers.

        Raises:
            Conflict: the id is reserved for the server.
        """
        if parse_device_id(device) == SERVER_CLIENT_ID:
            raise Conflict(f"enrol a device as {device}", "the server itself bears this name", "choose another id")
        known = store.find_device(session, device)
        registered = Device(
            id=device,
            standing="active",
            connection="unknown",
            labels={**(known.labels if known else {}), **check_labels(labels)},
            enrolled_at=now,
            last_seen_at=now,
            session=None,
            agent=known.agent if known else None,
            facts=facts or (known.facts if known else None),
        )
        store.save_device(session, registered)
        for view in store.slot_views(session, devices=[device]):
            if view.reported is not None:
                # A new disk counts its revisions from the start; they must win again.
                store.save_reported(session, msgspec.structs.replace(view.reported, revision=-1))
        store.add_timeline(session, device, "device.replaced" if known else "device.enrolled", at=now)
        return registered

    def find(self, session: Session, device: DeviceId) -> Device | None:
        """One device, or None."""
        return store.find_device(session, device)

    def device(self, session: Session, device: DeviceId) -> Device:
        """One device. Raises: NotFound."""
        found = store.find_device(session, device)
        if found is None:
            raise NotFound(
                f"find device {shown(device)}", "it is not known here", "list devices with: edge-fleet devices list"
            )
        return found

    def devices(
        self, session: Session, selector: Selector = EVERY_DEVICE, *, after: str = "", limit: int | None = None
    ) -> list[Device]:
        """Devices that a selector means, by id, after a cursor; revoked ones included."""
        found: list[Device] = []
        for device in store.list_devices(session, after=after):
            if selector.matches(device.selectable):
                found.append(device)
                if len(found) == limit:
                    break
        return found

    def fleet(self, session: Session, slot: SlotId, selector: Selector = EVERY_DEVICE) -> list[FleetMember]:
        """Active devices that a selector means, each with its view of one slot."""
        views = {view.device: view for view in store.slot_views(session, slot=slot)}
        return [
            FleetMember(device, views.get(device.id, SlotView(device.id, slot, None, None)))
            for device in self.devices(session, selector)
            if device.standing == "active"
        ]

    def slots(self, session: Session, devices: Iterable[DeviceId]) -> list[SlotView]:
        """All slots of some devices."""
        return store.slot_views(session, devices=devices)

    def connections(self, session: Session, devices: Iterable[DeviceId]) -> dict[DeviceId, str]:
        """How some devices are connected: `ready`, `lost`, …"""
        return store.connections(session, devices)

    def slot(self, session: Session, device: DeviceId, slot: SlotId) -> SlotView:
        """One slot; both sides None when nothing is known of it."""
        return store.find_slot(session, device, slot)

    def progress(self, session: Session, slot: SlotId, rollout: str) -> list[SlotProgress]:
        """How far the devices are whose slot is desired by one rollout."""
        return store.list_progress(session, slot, rollout)

    def relabel(self, session: Session, device: DeviceId, labels: Mapping[str, str], now: float) -> Device:
        """Replace a device's labels. Raises: NotFound, InvalidRequest."""
        changed = replace(self.device(session, device), labels=check_labels(labels))
        store.save_device(session, changed)
        store.add_timeline(session, device, "device.relabelled", at=now, detail=dict(changed.labels))
        return changed

    def assign(self, session: Session, device: DeviceId, slot: SlotId, draft: AssignmentDraft, now: float) -> int:
        """Store what a slot must run and return its sequence number; the doorbell rings after the commit.

        The number is one above what the server *and* the device know, so that a restored backup strands nobody.

        Raises:
            NotFound: the device is not known.
            Conflict: it is revoked or decommissioned.
        """
        known = self.device(session, device)
        if known.standing != "active":
            raise Conflict(f"assign to device {device}", f"it is {known.standing}", "enrol it again first")
        seq = store.find_slot(session, device, parse_slot_id(slot)).highest_seq + 1
        assignment = Assignment(
            device=device,
            slot=slot,
            kind=draft.kind,
            seq=seq,
            issued=now,
            expires=now + draft.lifetime_s,
            target=draft.target,
            release=draft.release,
            length=draft.length,
            candidates=list(draft.candidates),
            max_trials=draft.max_trials,
            parameters=dict(draft.parameters),
            policy=draft.policy,
            rollout=draft.rollout,
        )
        store.save_desired(session, assignment)
        detail = {"seq": seq, "target": draft.target, "rollout": draft.rollout}
        store.add_timeline(session, device, "slot.assigned", at=now, slot=slot, detail=detail)
        self._ring_later(session, assignment)
        return seq

    def assignments_for(self, session: Session, device: DeviceId, now: float) -> list[Assignment]:
        """Everything desired and unexpired of a device."""
        views = store.slot_views(session, devices=[device])
        return [view.desired for view in views if view.desired is not None and view.desired.expires > now]

    def unsettled(self, session: Session, now: float) -> list[Assignment]:
        """Desired and unexpired, but neither confirmed nor given up: the bells that may have gone unheard."""
        return [
            view.desired
            for view in store.slot_views(session)
            if view.desired is not None and view.desired.expires > now and not view.is_settled
        ]

    def ring(self, assignment: Assignment) -> None:
        """Ring for one assignment now."""
        self._doorbells.ring(assignment.device, assignment.slot, assignment.seq)

    def apply_birth(self, session: Session, birth: Birth, now: float) -> None:
        """A device begins a session: remember it, and ring again for everything it may have missed."""
        device = self._heard(session, birth.device, now) or self._recalled(session, birth.device, now)
        if device is None:
            return
        store.save_device(
            session,
            replace(
                device,
                connection="ready",
                session=birth.session,
                agent=birth.agent[:100],
                facts=birth.facts,
                # What the operator wrote wins over what the device says of itself.
                labels={**_plausible(birth.labels), **device.labels},
                capabilities=tuple(name[:100] for name in birth.capabilities[:_SLOTS_MAX]),
            ),
        )
        store.add_timeline(session, device.id, "device.born", at=now, detail={"agent": birth.agent[:100]})
        for slot, summary in list(birth.slots.items())[:_SLOTS_MAX]:
            self._apply_summary(session, device.id, parse_slot_id(slot), summary, now)
        for assignment in self.assignments_for(session, device.id, now):
            view = store.find_slot(session, device.id, assignment.slot)
            if not view.is_settled:
                self._ring_later(session, assignment)

    def apply_status(self, session: Session, status: Status, now: float) -> None:
        """A connection changed; the will of a session that is over says nothing about the one that is."""
        device = store.find_device(session, status.device)
        if device is None or device.standing != "active":
            return
        if status.state in _GONE and device.session not in {None, status.session}:
            return
        session_id = device.session if status.state in _GONE else status.session
        seen_at = device.last_seen_at if status.state == "lost" else now
        if device.connection != status.state:
            name = "device.lost" if status.state == "lost" else f"connection.became_{status.state}"
            store.add_timeline(session, device.id, name, at=now)
        store.save_device(session, replace(device, connection=status.state, session=session_id, last_seen_at=seen_at))

    def apply_reported(self, session: Session, reported: Reported, now: float) -> bool:
        """A slot reported; False when a newer revision is already known, or the device is not.

        Raises:
            ContractError: a counter is out of range, or the slot's name is none.
        """
        check_counters(reported.seq, reported.revision)
        device = self._heard(session, reported.device, now)
        view = store.find_slot(session, reported.device, parse_slot_id(reported.slot))
        before = view.reported
        if device is None or (before is not None and reported.revision < before.revision):
            return False
        store.save_device(session, replace(device, last_seen_at=now))
        kept = reported
        if before is not None and before.seq > reported.seq:
            # A wiped device forgets; the server must not, or it would issue a number twice.
            kept = msgspec.structs.replace(reported, seq=before.seq)
        store.save_reported(session, kept)
        if before is None or (before.state, before.seq) != (kept.state, kept.seq):
            _note_state(session, kept, now)
        self._adopt(session, view, kept, now)
        return True

    def apply_event(self, session: Session, device: DeviceId, event: Event, now: float) -> None:
        """A device tells of something; kept in its timeline."""
        if self._heard(session, device, now) is not None:
            detail = {key[:100]: event.detail[key] for key in list(event.detail)[:_EVENT_DETAIL_MAX]}
            store.add_timeline(session, device, event.name[:100], at=now, slot=event.slot, detail=detail)

    def revoke(self, session: Session, device: DeviceId, now: float) -> None:
        """Stop believing a device; its certificates are refused by `identity`. Raises: NotFound."""
        self._retire(session, device, "revoked", now)

    def decommission(self, session: Session, device: DeviceId, now: float) -> None:
        """The device has left the fleet for good. Raises: NotFound."""
        self._retire(session, device, "decommissioned", now)

    def timeline(self, session: Session, device: DeviceId, *, before: int | None, limit: int) -> list[TimelineEntry]:
        """A device's events, newest first. Raises: NotFound."""
        return store.list_timeline(session, self.device(session, device).id, before=before, limit=limit)

    def counts(self, session: Session) -> tuple[dict[tuple[str, str], int], dict[str, int]]:
        """Devices by (standing, connection), slots by reported state."""
        return store.count_devices(session), store.count_slots(session)

    def _heard(self, session: Session, device: DeviceId, now: float) -> Device | None:
        """The device, seen now, if it is one of ours; a revoked one is not heard."""
        found = store.find_device(session, device)
        return replace(found, last_seen_at=now) if found is not None and found.standing == "active" else None

    def _recalled(self, session: Session, device: DeviceId, now: float) -> Device | None:
        """A device that enrolled after the copy from which this database was restored; None for a known one.

        Its certificate vouches for it: whoever cannot prove the name in it does not get as far as a birth.
        """
        if device == SERVER_CLIENT_ID or store.find_device(session, device) is not None:
            return None
        self.register(session, device, labels={}, facts=None, now=now)
        return store.find_device(session, device)

    def _retire(self, session: Session, device: DeviceId, standing: str, now: float) -> None:
        known = self.device(session, device)
        retired = replace(known, standing="revoked" if standing == "revoked" else "decommissioned")
        store.save_device(session, retired)
        store.add_timeline(session, device, f"device.{standing}", at=now)

    def _ring_later(self, session: Session, assignment: Assignment) -> None:
        on_commit(session, lambda: self.ring(assignment))

    def _apply_summary(
        self, session: Session, device: DeviceId, slot: SlotId, summary: SlotSummary, now: float
    ) -> None:
        check_counters(summary.seq, summary.revision)
        view = store.find_slot(session, device, slot)
        if view.reported is not None and summary.revision <= view.reported.revision:
            return
        running = summary.running
        reported = Reported(
            device=device,
            slot=slot,
            revision=summary.revision,
            seq=max(summary.seq, view.reported.seq if view.reported else 0),
            state=summary.state,
            at=now,
            target=running.target if running else None,
            release=running.release if running else None,
            variant=running.variant if running else None,
            running=running,
        )
        store.save_reported(session, reported)
        self._adopt(session, view, reported, now)

    def _adopt(self, session: Session, view: SlotView, reported: Reported, now: float) -> None:
        """A device that knows more than a restored database was right: what it accepted was signed by us."""
        if reported.seq <= (view.desired.seq if view.desired else 0):
            return
        running = reported.running
        adopted = Assignment(
            device=reported.device,
            slot=reported.slot,
            kind="model" if running else "none",
            seq=reported.seq,
            issued=now,
            # Already expired: it says what is so and orders nothing.
            expires=now,
            target=running.target if running else None,
            release=running.release if running else None,
            rollout=reported.rollout,
        )
        store.save_desired(session, adopted)
        store.add_timeline(
            session, reported.device, "slot.adopted", at=now, slot=reported.slot, detail={"seq": reported.seq}
        )


def encoded_facts(device: Device) -> dict[str, object] | None:
    """A device's facts as plain JSON values."""
    return None if device.facts is None else msgspec.json.decode(encode(device.facts), type=dict[str, object])


def check_counters(*counters: int) -> None:
    """Refuse numbers that no honest device counts to. Raises: ContractError."""
    # Beyond 2^53 neither JSON nor SQL keeps them exactly, and one more must still fit.
    if any(not 0 <= counter < 2**53 - 1 for counter in counters):
        raise ContractError("accept the report", "a sequence or revision number is out of range")


def _plausible(labels: Mapping[str, str]) -> dict[str, str]:
    """A device's own labels; one that could not be selected is dropped rather than losing the whole birth."""
    kept: dict[str, str] = {}
    for key, value in list(labels.items())[:_SLOTS_MAX]:
        try:
            kept.update(check_labels({key: value}))
        except InvalidRequest:
            continue
    return kept


def _note_state(session: Session, reported: Reported, now: float) -> None:
    detail: dict[str, object] = {"seq": reported.seq, "target": reported.target}
    if reported.reason is not None:
        detail |= {"reason": reported.reason.code, "because": reported.reason.detail[:500]}
    name = f"slot.{reported.state}" if reported.state in {state.value for state in SlotState} else "slot.changed"
    store.add_timeline(session, reported.device, name, at=now, slot=reported.slot, detail=detail)
