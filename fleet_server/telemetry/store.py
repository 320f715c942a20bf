"""Telemetry rows by raw SQL: neither ORM nor pydantic between a batch and its table."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import DeviceId, SlotId, VariantId
from edge_runtime.contract.sketch import SketchData
from edge_runtime.contract.telemetry import Sample
from fleet_server.db import Session, raw_connection
from fleet_server.telemetry.model import Extent, StreamKey, StreamState, Window

_INSERT_SAMPLE = """
INSERT INTO telemetry_sample
  (device, slot, release, variant, start_s, end_s, requests, correct, total, errors, latency, confidence, gauges)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which samples are meant; None means any."""

    device: DeviceId | None = None
    slot: SlotId | None = None
    release: Digest | None = None
    variant: VariantId | None = None
    since: float | None = None
    """Windows that end after this time."""
    until: float | None = None
    """Windows that start before this time."""


def read_stream(session: Session, key: StreamKey) -> StreamState:
    """How far a stream is committed."""
    query = "SELECT next_seq, gap_since, missing FROM telemetry_stream WHERE device = ? AND epoch = ? AND stream = ?"
    row = raw_connection(session).execute(query, (key.device, key.epoch, key.stream)).fetchone()
    return StreamState() if row is None else StreamState(*row)


def write_stream(session: Session, key: StreamKey, state: StreamState, now: float) -> None:
    """Remember how far a stream is committed."""
    raw_connection(session).execute(
        "INSERT OR REPLACE INTO telemetry_stream (device, epoch, stream, next_seq, gap_since, missing, updated_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (key.device, key.epoch, key.stream, state.next_seq, state.gap_since, state.missing, now),
    )


def insert_batch(session: Session, key: StreamKey, extent: Extent, now: float) -> bool:
    """Remember a batch by its key; False when it is known already, though it may declare more samples lost by now."""
    connection = raw_connection(session)
    cursor = connection.execute(
        "INSERT OR IGNORE INTO telemetry_batch (device, epoch, stream, first_seq, count, dropped, received_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (key.device, key.epoch, key.stream, extent.first_seq, extent.count, extent.dropped, now),
    )
    if cursor.rowcount == 1:
        return True
    connection.execute(
        "UPDATE telemetry_batch SET dropped = max(dropped, ?) "
        "WHERE device = ? AND epoch = ? AND stream = ? AND first_seq = ?",
        (extent.dropped, key.device, key.epoch, key.stream, extent.first_seq),
    )
    return False


def batches_from(session: Session, key: StreamKey, next_seq: int) -> list[Extent]:
    """Stored batches that begin at or after a sequence number, in order."""
    rows = raw_connection(session).execute(
        "SELECT first_seq, count, dropped FROM telemetry_batch "
        "WHERE device = ? AND epoch = ? AND stream = ? AND first_seq >= ? ORDER BY first_seq",
        (key.device, key.epoch, key.stream, next_seq),
    )
    return [Extent(*row) for row in rows]


def insert_samples(session: Session, samples: Iterable[tuple[DeviceId, Sample]]) -> None:
    """Insert samples by the thousand."""
    raw_connection(session).executemany(_INSERT_SAMPLE, (_row(device, sample) for device, sample in samples))


def read_windows(session: Session, chosen: Filter) -> Iterator[Window]:
    """Samples that a filter means, in no order."""
    where, values = _where(chosen)
    # Only our own column names are put into the text; every value is bound.
    columns = "device, slot, release, variant, start_s, end_s, requests, correct, total, errors, latency"
    query = f"SELECT {columns} FROM telemetry_sample{where}"  # noqa: S608
    for row in raw_connection(session).execute(query, values):
        yield _window(row)


def prune(session: Session, before: float) -> int:
    """Forget samples that ended, and streams that were silent, before a time; returns how many samples went."""
    connection = raw_connection(session)
    gone = connection.execute("DELETE FROM telemetry_sample WHERE end_s < ?", (before,)).rowcount
    connection.execute("DELETE FROM telemetry_batch WHERE received_at < ?", (before,))
    connection.execute("DELETE FROM telemetry_stream WHERE updated_at < ?", (before,))
    return gone


def count_samples(session: Session) -> int:
    """How many samples are stored."""
    (count,) = raw_connection(session).execute("SELECT count(*) FROM telemetry_sample").fetchone()
    return int(count)


def _row(device: DeviceId, sample: Sample) -> tuple[object, ...]:
    return (
        device,
        sample.slot,
        sample.release,
        sample.variant,
        sample.start,
        sample.end,
        sample.requests,
        sample.correct,
        sample.total,
        _json(sample.errors),
        None if sample.latency_ms is None else _json(sample.latency_ms),
        None if sample.confidence is None else _json(sample.confidence),
        _json(sample.gauges),
    )


def _window(row: sqlite3.Row) -> Window:
    device, slot, release, variant, start, end, requests, correct, total, errors, latency = row
    return Window(
        DeviceId(device),
        SlotId(slot),
        Digest(release),
        VariantId(variant),
        start,
        end,
        requests,
        correct,
        total,
        msgspec.json.decode(errors, type=dict[str, int]),
        None if latency is None else msgspec.json.decode(latency, type=SketchData),
    )


def _where(chosen: Filter) -> tuple[str, list[object]]:
    terms: list[tuple[str, object]] = [
        ("device = ?", chosen.device),
        ("slot = ?", chosen.slot),
        ("release = ?", chosen.release),
        ("variant = ?", chosen.variant),
        ("end_s > ?", chosen.since),
        ("start_s < ?", chosen.until),
    ]
    used = [(text, value) for text, value in terms if value is not None]
    text = " WHERE " + " AND ".join(text for text, _ in used) if used else ""
    return text, [value for _, value in used]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
