"""What a device's report makes of its membership in a rollout, in one sentence (pure).

Only the report of the member's own sequence number counts; a device that was assigned elsewhere is superseded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from edge_runtime.contract.device_state import Reported, Running, SlotState
from fleet_server.inventory.model import SlotProgress, SlotView
from fleet_server.rollouts.model import Member, Outcome, outcome_of

_ON_TRIAL: Final = frozenset({SlotState.ACTIVATED.value, SlotState.SOAKING.value})


@dataclass(frozen=True, slots=True)
class Change:
    """A member as it is from now on, and what there is to say about it."""

    member: Member
    name: str
    """`device.verb_past`."""
    sentence: str
    winner: Running | None = None
    """The variant that proved itself on the device."""


def may_change(member: Member, progress: SlotProgress | None) -> bool:
    """Whether it is worth reading the device's whole report; false for nearly all members at nearly all times."""
    if Outcome.SUPERSEDED in {member.outcome, member.revert_outcome} or member.has_no_way_back:
        return False
    if progress is None or progress.desired_seq != member.awaited_seq:
        return True
    if progress.reported_seq != member.awaited_seq or progress.state is None:
        return False
    return outcome_of(progress.state) not in {Outcome.PENDING, _current(member)}


def read_report(member: Member, view: SlotView, now: float) -> Change | None:
    """What the slot's two sides say about a member; None when it is nothing new."""
    if view.desired is None or view.desired.seq != member.awaited_seq:
        return _superseded(member, now)
    reported = view.reported
    if reported is None or reported.seq != member.awaited_seq:
        return None
    outcome = outcome_of(reported.state)
    running = reported.running.release if reported.running else None
    if outcome in {Outcome.PENDING, _current(member)}:
        return None
    if outcome is Outcome.CONFIRMED and running != view.desired.release:
        # A wiped device may report a number it never earned; it has confirmed only what it runs.
        return None
    return _decided(member, outcome, reported, now)


def confirmed_before(view: SlotView, under_trial: Member | None) -> Running | None:
    """What a slot had confirmed before it is assigned anew.

    Args:
        view: the slot.
        under_trial: the membership under which it runs what it has not confirmed yet, if any.
    """
    running = view.reported.running if view.reported else None
    if is_on_trial(view):
        return under_trial.previous if under_trial else None
    return running


def is_on_trial(view: SlotView) -> bool:
    """Whether the slot answers with something that it has activated but not confirmed."""
    reported = view.reported
    if reported is None or reported.running is None:
        return False
    return reported.state in _ON_TRIAL and reported.running.seq == reported.seq


def _current(member: Member) -> Outcome:
    return member.outcome if member.revert_seq is None else member.revert_outcome


def _superseded(member: Member, now: float) -> Change:
    sentence = f"{member.device} was assigned elsewhere meanwhile"
    if member.revert_seq is None:
        changed = replace(member, outcome=Outcome.SUPERSEDED, decided_at=now)
    else:
        changed = replace(member, revert_outcome=Outcome.SUPERSEDED)
    return Change(changed, "device.superseded", sentence)


def _decided(member: Member, outcome: Outcome, reported: Reported, now: float) -> Change:
    if member.revert_seq is not None:
        back = replace(member, revert_outcome=outcome)
        if outcome is Outcome.CONFIRMED:
            return Change(back, "device.went_back", f"{member.device} is back on {_runs(reported)}")
        return Change(back, "device.stuck", f"{member.device} could not go back{_why(reported)}")
    reason = reported.reason
    changed = replace(
        member,
        outcome=outcome,
        reason=reason.code if reason and outcome is not Outcome.CONFIRMED else None,
        detail=reason.detail[:500] if reason and outcome is not Outcome.CONFIRMED else None,
        variant=reported.running.variant if outcome is Outcome.CONFIRMED and reported.running else reported.variant,
        decided_at=now,
    )
    if outcome is Outcome.CONFIRMED:
        return Change(changed, "device.confirmed", f"{member.device} confirmed {_runs(reported)}", reported.running)
    return Change(changed, f"device.{outcome.value}", f"{member.device} {_VERBS[outcome]}{_why(reported)}")


_VERBS: Final[Mapping[Outcome, str]] = {
    Outcome.FAILED: "refused the release",
    Outcome.ROLLED_BACK: "rolled back",
}


def _runs(reported: Reported) -> str:
    running = reported.running
    return "nothing, as before" if running is None else f"{running.target or running.release} ({running.variant})"


def _why(reported: Reported) -> str:
    reason = reported.reason
    if reason is None:
        return ""
    return f": {reason.code}" + (f", {reason.detail[:300]}" if reason.detail else "")
