"""What a slot reports: its journal record, and what really answers. Pure.

Equal revisions mean equal reports: `SlotMachine` raises the record's when only what answers has changed.
"""

from __future__ import annotations

from edge_runtime.contract.device_state import Reported, Running, SlotState, SlotSummary
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import DeviceId, VariantId
from edge_runtime.update.journal import SlotRecord
from edge_runtime.update.planner import is_superseded
from edge_runtime.update.states import (
    ENDED,
    Activated,
    Activation,
    Built,
    Failed,
    Fetching,
    RolledBack,
    Shadowing,
    SlotStatus,
    Soaking,
    Verified,
    attempt_of,
)


def make_report(device: DeviceId, record: SlotRecord, live: Activation | None) -> Reported:
    """The report of one slot.

    Args:
        device: this device.
        record: what the journal knows.
        live: what is really answering.
    """
    taken_up = not _is_only_accepted(record)
    state = record.state if taken_up else SlotState.OFFERED
    attempt = attempt_of(record.status) if taken_up else None
    assignment = attempt.assignment if attempt is not None else record.pending
    status = record.status if taken_up else None
    waiting = record.waiting if state not in ENDED else None
    release = assignment.release if assignment is not None else None
    return Reported(
        device=device,
        slot=record.slot,
        revision=record.revision,
        seq=record.highest_seq,
        state=state.value,
        at=record.at,
        target=assignment.target if assignment is not None else None,
        release=release,
        variant=_variant(status, live, release),
        running=_running(live),
        reason=status.reason if isinstance(status, (Failed, RolledBack)) else None,
        waiting_for=waiting.code if waiting is not None else None,
        trials=list(attempt.trials) if attempt is not None else [],
        rollout=assignment.rollout if assignment is not None else None,
    )


def summarise(record: SlotRecord, live: Activation | None) -> SlotSummary:
    """The slot as a birth message shows it."""
    state = SlotState.OFFERED if _is_only_accepted(record) else record.state
    return SlotSummary(
        seq=record.highest_seq, state=state.value, revision=record.revision, running=_running(live)
    )


def _is_only_accepted(record: SlotRecord) -> bool:
    """What was accepted but not taken up yet must never be shown with the state of what came before it."""
    attempt = attempt_of(record.status)
    return record.pending is not None and (attempt is None or is_superseded(attempt, record.pending))


def _variant(status: SlotStatus | None, live: Activation | None, release: Digest | None) -> VariantId | None:
    if isinstance(status, (Fetching, Verified, Built)):
        return status.search.candidate.id
    if isinstance(status, (Shadowing, Activated, Soaking)):
        return status.chosen.variant
    return live.variant if live is not None and live.release == release else None


def _running(live: Activation | None) -> Running | None:
    if live is None:
        return None
    return Running(
        seq=live.seq, release=live.release, variant=live.variant, variant_digest=live.variant_digest, target=live.target
    )
