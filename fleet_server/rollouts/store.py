"""Rows of rollouts, their waves, members and history; they are parsed into domain types before they leave."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec
from sqlalchemy import Column, Index, and_, case, func, update
from sqlalchemy import Text as TextType
from sqlmodel import Field, SQLModel, col, select

from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_state import Running
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import DeviceId, SlotId, VariantId
from fleet_server.db import Session
from fleet_server.errors import Conflict
from fleet_server.rollouts.model import (
    HistoryEntry,
    Member,
    Outcome,
    RevertCensus,
    Rollout,
    RolloutId,
    RolloutPlan,
    RolloutState,
    WaveCensus,
)

_NAMED = 3
"""Devices named in a verdict's sentence."""


class RolloutRow(SQLModel, table=True):
    """One rollout."""

    __tablename__ = "rollout"

    id: str = Field(primary_key=True)
    name: str
    state: str = Field(index=True)
    generation: int
    matched_at_start: int
    created_at: float
    created_by: str
    sentence: str = Field(sa_column=Column(TextType, nullable=False))
    plan: str = Field(sa_column=Column(TextType, nullable=False))


class RolloutWaveRow(SQLModel, table=True):
    """One opened wave."""

    __tablename__ = "rollout_wave"

    rollout: str = Field(primary_key=True)
    wave: int = Field(primary_key=True)
    opened_at: float
    passed_at: float | None = None


class RolloutMemberRow(SQLModel, table=True):
    """One device reached by a rollout."""

    __tablename__ = "rollout_member"
    __table_args__ = (
        Index("ix_rollout_member_census", "rollout", "wave", "outcome", "deadline_at"),
        Index("ix_rollout_member_slot", "device", "slot", "seq"),
    )

    rollout: str = Field(primary_key=True)
    device: str = Field(primary_key=True)
    slot: str
    wave: int
    seq: int
    deadline_at: float
    outcome: str
    reason: str | None = None
    detail: str | None = Field(default=None, sa_column=Column(TextType))
    variant: str | None = None
    decided_at: float | None = None
    previous: str | None = Field(default=None, sa_column=Column(TextType))
    revert_seq: int | None = None
    revert_outcome: str
    revert_deadline_at: float | None = None


class RolloutEventRow(SQLModel, table=True):
    """One thing that happened in a rollout."""

    __tablename__ = "rollout_event"

    id: int | None = Field(default=None, primary_key=True)
    rollout: str = Field(index=True)
    at: float
    who: str
    name: str
    sentence: str = Field(sa_column=Column(TextType, nullable=False))


class ClassWinnerRow(SQLModel, table=True):
    """The variant of a release that won on a class of devices."""

    __tablename__ = "class_winner"

    release: str = Field(primary_key=True)
    device_class: str = Field(primary_key=True)
    variant: str
    digest: str
    at: float


class StaleGeneration(Conflict):
    """Someone else wrote about the rollout meanwhile: what was decided on older facts must not be applied."""


def add_rollout(session: Session, rollout: Rollout) -> None:
    """Store a new rollout."""
    session.add(
        RolloutRow(
            id=rollout.id,
            name=rollout.name,
            state=rollout.state.value,
            generation=rollout.generation,
            matched_at_start=rollout.matched_at_start,
            created_at=rollout.created_at,
            created_by=rollout.created_by,
            sentence=rollout.sentence,
            plan=msgspec.json.encode(rollout.plan).decode(),
        )
    )
    session.flush()


def find_rollout(session: Session, rollout: RolloutId) -> Rollout | None:
    """One rollout, or None."""
    row = session.get(RolloutRow, rollout)
    return None if row is None else _rollout(row)


def list_rollouts(session: Session, *, limit: int) -> list[Rollout]:
    """Rollouts, newest first."""
    query = select(RolloutRow).order_by(col(RolloutRow.created_at).desc(), col(RolloutRow.id)).limit(limit)
    return [_rollout(row) for row in session.exec(query)]


def moving_rollouts(session: Session) -> list[RolloutId]:
    """Rollouts that the executor looks after, oldest first."""
    states = [state.value for state in RolloutState if state.is_moving]
    query = select(RolloutRow.id).where(col(RolloutRow.state).in_(states)).order_by(col(RolloutRow.created_at))
    return [RolloutId(found) for found in session.exec(query)]


def advance(session: Session, rollout: Rollout, *, state: RolloutState | None = None, sentence: str = "") -> Rollout:
    """Claim the right to write about a rollout, by compare-and-set of its generation.

    Raises:
        StaleGeneration: it was written about since `rollout` was read.
    """
    after = replace(
        rollout,
        generation=rollout.generation + 1,
        state=state or rollout.state,
        sentence=sentence or rollout.sentence,
    )
    done = session.connection().execute(
        update(RolloutRow)
        .where(col(RolloutRow.id) == rollout.id, col(RolloutRow.generation) == rollout.generation)
        .values(generation=after.generation, state=after.state.value, sentence=after.sentence)
    )
    if done.rowcount != 1:
        raise StaleGeneration(
            f"change rollout {rollout.id}", "it changed in the meantime", "look at it again, then repeat"
        )
    return after


def open_wave(session: Session, rollout: RolloutId, wave: int, now: float) -> None:
    """Write down that a wave is open."""
    session.add(RolloutWaveRow(rollout=rollout, wave=wave, opened_at=now))


def pass_wave(session: Session, rollout: RolloutId, wave: int, now: float) -> None:
    """Write down that a wave has passed."""
    session.connection().execute(
        update(RolloutWaveRow)
        .where(col(RolloutWaveRow.rollout) == rollout, col(RolloutWaveRow.wave) == wave)
        .values(passed_at=now)
    )


def wave_openings(session: Session, rollout: RolloutId) -> dict[int, float]:
    """When each opened wave was opened."""
    query = select(RolloutWaveRow.wave, RolloutWaveRow.opened_at).where(RolloutWaveRow.rollout == rollout)
    return dict(session.exec(query).all())


def save_member(session: Session, rollout: RolloutId, slot: SlotId, member: Member) -> None:
    """Insert or replace a member."""
    session.merge(
        RolloutMemberRow(
            rollout=rollout,
            device=member.device,
            slot=slot,
            wave=member.wave,
            seq=member.seq,
            deadline_at=member.deadline_at,
            outcome=member.outcome.value,
            reason=member.reason,
            detail=member.detail,
            variant=member.variant,
            decided_at=member.decided_at,
            previous=None if member.previous is None else encode(member.previous).decode(),
            revert_seq=member.revert_seq,
            revert_outcome=member.revert_outcome.value,
            revert_deadline_at=member.revert_deadline_at,
        )
    )


def list_members(session: Session, rollout: RolloutId, *, after: str = "", limit: int | None = None) -> list[Member]:
    """Members by wave and device, after a device id when given."""
    query = select(RolloutMemberRow).where(RolloutMemberRow.rollout == rollout)
    if after:
        query = query.where(col(RolloutMemberRow.device) > after).order_by(col(RolloutMemberRow.device))
    else:
        query = query.order_by(col(RolloutMemberRow.wave), col(RolloutMemberRow.device))
    return [_member(row) for row in session.exec(query if limit is None else query.limit(limit))]


def member_ids(session: Session, rollout: RolloutId) -> set[DeviceId]:
    """The devices a rollout has reached."""
    query = select(RolloutMemberRow.device).where(RolloutMemberRow.rollout == rollout)
    return {DeviceId(device) for device in session.exec(query)}


def member_by_seq(session: Session, device: DeviceId, slot: SlotId, seq: int) -> Member | None:
    """The membership under which a slot was given a sequence number."""
    query = select(RolloutMemberRow).where(
        RolloutMemberRow.device == device, RolloutMemberRow.slot == slot, RolloutMemberRow.seq == seq
    )
    row = session.exec(query).first()
    return None if row is None else _member(row)


def take_census(session: Session, rollout: RolloutId, now: float) -> tuple[WaveCensus, ...]:
    """The opened waves, counted by the database."""
    silent = and_(col(RolloutMemberRow.outcome) == Outcome.PENDING.value, col(RolloutMemberRow.deadline_at) <= now)
    what = case((silent, "silent"), else_=col(RolloutMemberRow.outcome))
    query = (
        select(RolloutMemberRow.wave, what, func.count())
        .where(RolloutMemberRow.rollout == rollout)
        .group_by(col(RolloutMemberRow.wave), what)
    )
    counts = {(wave, kind): count for wave, kind, count in session.exec(query)}
    waves = select(RolloutWaveRow).where(RolloutWaveRow.rollout == rollout).order_by(col(RolloutWaveRow.wave))
    return tuple(_census(session, row, counts, now) for row in session.exec(waves))


def take_revert_census(session: Session, rollout: RolloutId, now: float) -> RevertCensus:
    """How far a revert has come, counted by the database; devices assigned elsewhere meanwhile are left out."""
    row = RolloutMemberRow
    told, pending = col(row.revert_seq).is_not(None), col(row.revert_outcome) == Outcome.PENDING.value
    what = case(
        (~told, "waiting"),
        (and_(pending, col(row.revert_deadline_at) > now), "moving"),
        (col(row.revert_outcome) == Outcome.CONFIRMED.value, "back"),
        else_="stuck",
    )
    left_out = Outcome.SUPERSEDED.value
    query = (
        select(what, func.count())
        .where(row.rollout == rollout, col(row.outcome) != left_out, col(row.revert_outcome) != left_out)
        .group_by(what)
    )
    counts = dict(session.exec(query).all())
    return RevertCensus(**{kind: counts.get(kind, 0) for kind in ("waiting", "moving", "back", "stuck")})


def add_history(session: Session, rollout: RolloutId, entry: HistoryEntry) -> None:
    """Append to a rollout's history; the entry's id is given by the database."""
    row = RolloutEventRow(rollout=rollout, at=entry.at, who=entry.who, name=entry.name, sentence=entry.sentence)
    session.add(row)
    session.flush()


def list_history(session: Session, rollout: RolloutId, *, after: int = 0, limit: int = 1000) -> list[HistoryEntry]:
    """History, oldest first, after a cursor."""
    query = (
        select(RolloutEventRow)
        .where(RolloutEventRow.rollout == rollout, col(RolloutEventRow.id) > after)
        .order_by(col(RolloutEventRow.id))
        .limit(limit)
    )
    return [_entry(row) for row in session.exec(query)]


def newest_history(session: Session, rollout: RolloutId, *, limit: int) -> list[HistoryEntry]:
    """The last entries of a history, oldest first."""
    query = (
        select(RolloutEventRow)
        .where(RolloutEventRow.rollout == rollout)
        .order_by(col(RolloutEventRow.id).desc())
        .limit(limit)
    )
    return [_entry(row) for row in reversed(session.exec(query).all())]


def find_winner(session: Session, release: Digest, device_class: str) -> Digest | None:
    """The variant that won on a class of devices."""
    row = session.get(ClassWinnerRow, (release, device_class))
    return None if row is None else Digest(row.digest)


def save_winner(
    session: Session, release: Digest, device_class: str, winner: tuple[VariantId, Digest], now: float
) -> None:
    """Remember what won on a class of devices; the first winner stays."""
    if session.get(ClassWinnerRow, (release, device_class)) is None:
        variant, digest = winner
        session.add(ClassWinnerRow(release=release, device_class=device_class, variant=variant, digest=digest, at=now))
        session.flush()


def _census(session: Session, row: RolloutWaveRow, counts: dict[tuple[int, str], int], now: float) -> WaveCensus:
    of_wave = {kind: count for (wave, kind), count in counts.items() if wave == row.wave}
    census = WaveCensus(
        index=row.wave,
        reached=sum(of_wave.values()),
        confirmed=of_wave.get(Outcome.CONFIRMED.value, 0),
        failed=of_wave.get(Outcome.FAILED.value, 0),
        rolled_back=of_wave.get(Outcome.ROLLED_BACK.value, 0),
        silent=of_wave.get("silent", 0),
        superseded=of_wave.get(Outcome.SUPERSEDED.value, 0),
        passed_at=row.passed_at,
    )
    return replace(census, reasons=tuple(_reasons(session, row, now))) if census.bad else census


def _reasons(session: Session, wave: RolloutWaveRow, now: float) -> Iterable[tuple[str, str]]:
    row = RolloutMemberRow
    ended = col(row.outcome).in_([Outcome.FAILED.value, Outcome.ROLLED_BACK.value])
    silent = and_(col(row.outcome) == Outcome.PENDING.value, col(row.deadline_at) <= now)
    query = (
        select(row.device, row.outcome, row.reason)
        .where(row.rollout == wave.rollout, row.wave == wave.wave, ended | silent)
        .order_by(col(row.device))
        .limit(_NAMED)
    )
    for device, outcome, reason in session.exec(query):
        yield device, reason or ("silent" if outcome == Outcome.PENDING.value else outcome)


def _rollout(row: RolloutRow) -> Rollout:
    return Rollout(
        id=RolloutId(row.id),
        name=row.name,
        plan=msgspec.json.decode(row.plan, type=RolloutPlan),
        state=RolloutState(row.state),
        generation=row.generation,
        matched_at_start=row.matched_at_start,
        created_at=row.created_at,
        created_by=row.created_by,
        sentence=row.sentence,
    )


def _entry(row: RolloutEventRow) -> HistoryEntry:
    return HistoryEntry(row.id or 0, row.at, row.who, row.name, row.sentence)


def _member(row: RolloutMemberRow) -> Member:
    return Member(
        device=DeviceId(row.device),
        wave=row.wave,
        seq=row.seq,
        deadline_at=row.deadline_at,
        outcome=Outcome(row.outcome),
        reason=row.reason,
        detail=row.detail,
        variant=row.variant,
        decided_at=row.decided_at,
        previous=None if row.previous is None else msgspec.json.decode(row.previous, type=Running),
        revert_seq=row.revert_seq,
        revert_outcome=Outcome(row.revert_outcome),
        revert_deadline_at=row.revert_deadline_at,
    )
