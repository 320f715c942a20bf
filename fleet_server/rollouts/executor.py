"""Applies what was decided about rollouts: one decision, one transaction, refused when the facts are no longer newest.

Bells ring after the commit. A server killed in between has assigned everything; the bells ring again by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final, assert_never

import structlog

from edge_runtime.contract.device_state import Running
from edge_runtime.contract.errors import EdgeError
from fleet_server.db import Database, Session
from fleet_server.errors import NotFound
from fleet_server.inventory.model import SlotView
from fleet_server.inventory.service import Inventory
from fleet_server.releases.model import ReleaseDetail
from fleet_server.releases.service import Releases
from fleet_server.rollouts import store
from fleet_server.rollouts.model import (
    HistoryEntry,
    Member,
    Outcome,
    Rollout,
    RolloutEvent,
    RolloutId,
    RolloutState,
    next_state,
)
from fleet_server.rollouts.offers import back_draft, class_of, forward_draft
from fleet_server.rollouts.outcomes import Change, confirmed_before, is_on_trial, may_change, read_report
from fleet_server.rollouts.planner import (
    BeginRevert,
    Complete,
    Decision,
    FinishRevert,
    OpenWave,
    PassWave,
    Pause,
    RevertDevices,
    Wait,
    decide,
)
from fleet_server.rollouts.service import Rollouts, record

_STEPS_PER_TICK: Final = 32
_TOLD_SHOWN: Final = 100

log = structlog.get_logger("rollouts")


class Executor:
    """Looks after the rollouts that are moving."""

    def __init__(self, database: Database, inventory: Inventory, releases: Releases, rollouts: Rollouts) -> None:
        self._database = database
        self._inventory = inventory
        self._releases = releases
        self._rollouts = rollouts

    def tick(self, now: float) -> None:
        """Let every moving rollout do what it can do now; one that fails does not stop the others."""
        with self._database.reading() as session:
            moving = store.moving_rollouts(session)
        for rollout in moving:
            try:
                self._run(rollout, now)
            except store.StaleGeneration:
                log.info("decision.refused", rollout=rollout, reason="the rollout changed meanwhile")
            except EdgeError as error:
                log.warning("decision.failed", rollout=rollout, reason=str(error))
                self._stop(rollout, error, now)

    def observe(self, rollout_id: RolloutId, now: float) -> bool:
        """Take over what devices reported; False when there was nothing new.

        Raises:
            StaleGeneration: someone else wrote about the rollout meanwhile.
        """
        with self._database.reading() as session:
            rollout = self._rollouts.get(session, rollout_id)
            changes = list(self._changes(session, rollout, now))
        if not changes:
            return False
        with self._database.session() as session:
            store.advance(session, rollout)
            for change in changes:
                self._write_change(session, rollout, change, now)
        return True

    def decide(self, rollout_id: RolloutId, now: float) -> tuple[Rollout, Decision]:
        """What there is to do next, and the rollout it was decided for. Raises: NotFound."""
        with self._database.reading() as session:
            rollout = self._rollouts.get(session, rollout_id)
            return rollout, decide(rollout, self._rollouts.look(session, rollout, now), now)

    def apply(self, rollout: Rollout, decision: Decision, now: float) -> None:
        """Do exactly what was decided, all of it or nothing.

        Raises:
            StaleGeneration: it was decided on older facts; nothing was changed.
            ContractError: the release cannot be read any more; nothing was changed.
        """
        release = self._release(rollout) if isinstance(decision, OpenWave) else None
        with self._database.session() as session:
            match decision:
                case Wait():
                    return
                case OpenWave():
                    assert release is not None
                    self._open_wave(session, rollout, decision, release, now)
                case PassWave():
                    after = store.advance(session, rollout, sentence=decision.sentence)
                    store.pass_wave(session, rollout.id, decision.index, now)
                    record(session, after, "rollout.wave_passed", now=now, detail={"wave": decision.index + 1})
                case RevertDevices():
                    self._revert_devices(session, rollout, decision, now)
                case Complete():
                    _enter(session, rollout, RolloutEvent.LAST_WAVE_PASSED, decision.sentence, now)
                case Pause():
                    _enter(session, rollout, RolloutEvent.PAUSE, decision.sentence, now)
                case BeginRevert():
                    _enter(session, rollout, RolloutEvent.REVERT, decision.sentence, now)
                case FinishRevert():
                    _enter(session, rollout, RolloutEvent.ALL_REVERTED, decision.sentence, now)
                case _:
                    assert_never(decision)

    def _run(self, rollout_id: RolloutId, now: float) -> None:
        for _ in range(_STEPS_PER_TICK):
            self.observe(rollout_id, now)
            rollout, decision = self.decide(rollout_id, now)
            if isinstance(decision, Wait):
                return
            self.apply(rollout, decision, now)
            log.info("decision.applied", rollout=rollout_id, decision=type(decision).__name__, why=decision.sentence)

    def _stop(self, rollout_id: RolloutId, error: EdgeError, now: float) -> None:
        with self._database.session() as session:
            rollout = self._rollouts.get(session, rollout_id)
            if rollout.state is RolloutState.RUNNING:
                _enter(session, rollout, RolloutEvent.PAUSE, f"{error}; paused until someone resumes or cancels", now)

    def _open_wave(
        self, session: Session, rollout: Rollout, decision: OpenWave, release: ReleaseDetail, now: float
    ) -> None:
        after = store.advance(session, rollout, sentence=decision.sentence)
        store.open_wave(session, rollout.id, decision.index, now)
        chosen = self._rollouts.unreached(session, rollout)[: decision.devices]
        for candidate in chosen:
            device = candidate.device
            offered = self._rollouts.offer_to(session, device, release, rollout.plan.max_trials)
            draft = forward_draft(rollout.id, rollout.plan, release, offered)
            member = Member(
                device=device.id,
                wave=decision.index,
                seq=self._inventory.assign(session, device.id, rollout.plan.slot, draft, now),
                deadline_at=now + rollout.plan.deadline_s,
                previous=_confirmed(session, candidate.slot),
            )
            store.save_member(session, rollout.id, rollout.plan.slot, member)
        detail = {"wave": decision.index + 1, "devices": [candidate.device.id for candidate in chosen[:_TOLD_SHOWN]]}
        record(session, after, "rollout.wave_opened", now=now, detail=detail)

    def _revert_devices(self, session: Session, rollout: Rollout, decision: RevertDevices, now: float) -> None:
        after = store.advance(session, rollout, sentence=decision.sentence)
        told: dict[str, str] = {}
        for member in store.list_members(session, rollout.id):
            if member.revert_seq is not None or member.outcome is Outcome.SUPERSEDED:
                continue
            view = self._inventory.slot(session, member.device, rollout.plan.slot)
            if view.desired is None or view.desired.seq != member.seq:
                changed = replace(member, outcome=Outcome.SUPERSEDED, decided_at=now)
            else:
                changed = self._send_back(session, rollout, member, now)
                told[member.device] = _back_to(changed)
            store.save_member(session, rollout.id, rollout.plan.slot, changed)
        shown = dict(list(told.items())[:_TOLD_SHOWN])
        record(session, after, "rollout.revert_ordered", now=now, detail={"devices": shown, "told": len(told)})

    def _send_back(self, session: Session, rollout: Rollout, member: Member, now: float) -> Member:
        try:
            draft = back_draft(rollout.id, rollout.plan, member.previous, self._earlier(session, member.previous))
            seq = self._inventory.assign(session, member.device, rollout.plan.slot, draft, now)
        except EdgeError as error:
            log.warning("device.not_reverted", rollout=rollout.id, device=member.device, reason=str(error))
            return replace(member, revert_seq=member.seq, revert_outcome=Outcome.FAILED, detail=str(error))
        return replace(member, revert_seq=seq, revert_deadline_at=now + rollout.plan.deadline_s)

    def _earlier(self, session: Session, previous: Running | None) -> ReleaseDetail | None:
        """The release a device ran before. Raises: NotFound when this server does not have it."""
        if previous is None:
            return None
        release = self._releases.by_digest(session, previous.release)
        if release is None:
            raise NotFound(
                f"go back to {previous.release}", "this server does not have it", "push that release here again"
            )
        return self._releases.detail(release)

    def _release(self, rollout: Rollout) -> ReleaseDetail:
        with self._database.reading() as session:
            release = self._releases.get(session, rollout.plan.model, rollout.plan.version)
        return self._releases.detail(release)

    def _changes(self, session: Session, rollout: Rollout, now: float) -> Iterable[Change]:
        slot = rollout.plan.slot
        progress = {head.device: head for head in self._inventory.progress(session, slot, rollout.id)}
        for member in store.list_members(session, rollout.id):
            if may_change(member, progress.get(member.device)):
                change = read_report(member, self._inventory.slot(session, member.device, slot), now)
                if change is not None:
                    yield change

    def _write_change(self, session: Session, rollout: Rollout, change: Change, now: float) -> None:
        member, won = change.member, change.winner
        store.save_member(session, rollout.id, rollout.plan.slot, member)
        entry = HistoryEntry(0, now, f"device {member.device}", change.name, change.sentence)
        store.add_history(session, rollout.id, entry)
        device = None if won is None else self._inventory.find(session, member.device)
        if won is not None and device is not None and device.facts is not None:
            store.save_winner(session, won.release, class_of(device.facts), (won.variant, won.variant_digest), now)


def _enter(session: Session, rollout: Rollout, event: RolloutEvent, sentence: str, now: float) -> None:
    after = store.advance(session, rollout, state=next_state(rollout.state, event), sentence=sentence)
    record(session, after, _NAMES[event], now=now)


_NAMES: Final[Mapping[RolloutEvent, str]] = {
    RolloutEvent.LAST_WAVE_PASSED: "rollout.completed",
    RolloutEvent.PAUSE: "rollout.paused",
    RolloutEvent.REVERT: "rollout.revert_begun",
    RolloutEvent.ALL_REVERTED: "rollout.reverted",
}


def _confirmed(session: Session, view: SlotView) -> Running | None:
    reported = view.reported
    on_trial = reported is not None and is_on_trial(view)
    under_trial = store.member_by_seq(session, view.device, view.slot, reported.seq) if reported and on_trial else None
    return confirmed_before(view, under_trial)


def _back_to(member: Member) -> str:
    if member.has_no_way_back:
        return member.detail or "cannot go back"
    where = "nothing" if member.previous is None else member.previous.target or member.previous.release
    return f"{where} as #{member.revert_seq}"
