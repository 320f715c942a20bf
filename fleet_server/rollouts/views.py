"""A rollout as people see it: what the routes answer, made from domain types in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fleet_server.rollouts.model import HistoryEntry, Rollout
from fleet_server.rollouts.service import DevicePreview, MemberStatus, Preview, RolloutStatus, WaveStatus


@dataclass(frozen=True, slots=True)
class RolloutView:
    """A rollout in a list."""

    id: str
    name: str
    state: str
    sentence: str
    model: str
    version: str
    release: str
    slot: str
    selector: str
    waves: list[str]
    max_failed_ratio: float
    soak_s: float
    deadline_s: float
    hold_s: float
    on_failure: str
    max_trials: int
    unsafe_gate_off: bool
    generation: int
    matched_at_start: int
    created_at: float
    created_by: str


@dataclass(frozen=True, slots=True)
class RolloutList:
    """Rollouts, newest first."""

    items: list[RolloutView]


@dataclass(frozen=True, slots=True)
class WaveView:
    """One wave: `planned`, `open` or `passed`; with its census and verdict once it is open."""

    wave: int
    """From 1."""
    size: str
    state: Literal["planned", "open", "passed"]
    opened_at: float | None
    passed_at: float | None
    reached: int
    confirmed: int
    failed: int
    rolled_back: int
    silent: int
    superseded: int
    undecided: int
    verdict: str | None
    """`pass`, `fail`, `inconclusive`."""
    sentence: str | None


@dataclass(frozen=True, slots=True)
class MemberView:
    """One reached device."""

    device: str
    wave: int
    seq: int
    outcome: str
    state: str | None
    """Its latest report, if it is about this rollout's assignment."""
    variant: str | None
    reason: str | None
    detail: str | None
    connection: str
    """Of its device now: `ready`, `lost`, …"""
    deadline_at: float
    decided_at: float | None
    previous: str | None
    revert_seq: int | None
    revert_outcome: str | None


@dataclass(frozen=True, slots=True)
class HistoryView:
    """Something that happened in a rollout."""

    id: int
    at: float
    who: str
    name: str
    sentence: str


@dataclass(frozen=True, slots=True)
class RolloutDetailView:
    """A rollout as it stands now."""

    rollout: RolloutView
    waves: list[WaveView]
    members: list[MemberView]
    history: list[HistoryView]


@dataclass(frozen=True, slots=True)
class EventPage:
    """What happened after a cursor; pass `next_cursor` as `after`."""

    items: list[HistoryView]
    next_cursor: int


@dataclass(frozen=True, slots=True)
class CandidateView:
    """A variant a device would be offered."""

    variant: str
    digest: str
    size_bytes: int
    because: str


@dataclass(frozen=True, slots=True)
class RejectedView:
    """A variant that cannot run on a device."""

    variant: str
    code: str
    because: str


@dataclass(frozen=True, slots=True)
class DevicePreviewView:
    """What one device would be offered."""

    device: str
    wave: int | None
    runs: str | None
    candidates: list[CandidateView]
    rejected: list[RejectedView]


@dataclass(frozen=True, slots=True)
class PreviewView:
    """What a rollout would do."""

    release: str
    devices: list[DevicePreviewView]
    without_variant: list[str]
    """Devices that no variant fits."""
    bytes_first: int
    """All devices together, when each fetches its first candidate only."""


def detail_view(status: RolloutStatus) -> RolloutDetailView:
    """A rollout as people see it."""
    return RolloutDetailView(
        rollout=rollout_view(status.rollout, status.sentence),
        waves=[_wave_view(wave) for wave in status.waves],
        members=[_member_view(member) for member in status.members],
        history=[history_view(entry) for entry in status.history],
    )


def rollout_view(rollout: Rollout, sentence: str | None = None) -> RolloutView:
    """A rollout, with the sentence that holds now when it is known."""
    plan = rollout.plan
    return RolloutView(
        id=rollout.id,
        name=rollout.name,
        state=rollout.state.value,
        sentence=sentence or rollout.sentence,
        model=plan.model,
        version=plan.version,
        release=plan.release,
        slot=plan.slot,
        selector=plan.selector,
        waves=[str(wave) for wave in plan.waves],
        max_failed_ratio=plan.gate.max_failed_ratio,
        soak_s=plan.soak_s,
        deadline_s=plan.deadline_s,
        hold_s=plan.hold_s,
        on_failure=plan.on_failure,
        max_trials=plan.max_trials,
        unsafe_gate_off=plan.unsafe_gate_off,
        generation=rollout.generation,
        matched_at_start=rollout.matched_at_start,
        created_at=rollout.created_at,
        created_by=rollout.created_by,
    )


def _wave_view(wave: WaveStatus) -> WaveView:
    census = wave.census
    state: Literal["planned", "open", "passed"] = "planned"
    if census is not None:
        state = "open" if census.passed_at is None else "passed"
    return WaveView(
        wave=wave.index + 1,
        size=str(wave.size),
        state=state,
        opened_at=wave.opened_at,
        passed_at=census.passed_at if census else None,
        reached=census.reached if census else 0,
        confirmed=census.confirmed if census else 0,
        failed=census.failed if census else 0,
        rolled_back=census.rolled_back if census else 0,
        silent=census.silent if census else 0,
        superseded=census.superseded if census else 0,
        undecided=census.undecided if census else 0,
        verdict=wave.verdict.result if wave.verdict else None,
        sentence=wave.verdict.sentence if wave.verdict else None,
    )


def _member_view(status: MemberStatus) -> MemberView:
    member, reported = status.member, status.reported
    is_about_it = reported is not None and reported.seq == member.awaited_seq
    return MemberView(
        device=member.device,
        wave=member.wave + 1,
        seq=member.seq,
        outcome=member.outcome.value,
        state=reported.state if reported and is_about_it else None,
        variant=member.variant or (reported.variant if reported and is_about_it else None),
        reason=member.reason,
        detail=member.detail,
        connection=status.connection,
        deadline_at=member.deadline_at,
        decided_at=member.decided_at,
        previous=None if member.previous is None else member.previous.target or member.previous.release,
        revert_seq=member.revert_seq,
        revert_outcome=None if member.revert_seq is None else member.revert_outcome.value,
    )


def history_view(entry: HistoryEntry) -> HistoryView:
    """One entry of a history."""
    return HistoryView(entry.id, entry.at, entry.who, entry.name, entry.sentence)


def preview_view(preview: Preview) -> PreviewView:
    """What a rollout would do."""
    devices = [_device_preview(device) for device in preview.devices]
    return PreviewView(
        release=preview.release.release.target,
        devices=devices,
        without_variant=[device.device for device in devices if not device.candidates],
        bytes_first=sum(device.candidates[0].size_bytes for device in devices if device.candidates),
    )


def _device_preview(preview: DevicePreview) -> DevicePreviewView:
    return DevicePreviewView(
        device=preview.device,
        wave=None if preview.wave is None else preview.wave + 1,
        runs=preview.runs,
        candidates=[
            CandidateView(one.variant, one.digest, one.size_bytes, one.because) for one in preview.offered.suggestions
        ],
        rejected=[RejectedView(one.variant, one.code, one.because) for one in preview.offered.rejected],
    )
