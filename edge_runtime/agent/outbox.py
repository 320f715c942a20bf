"""Store and forward: telemetry stays on disk until the server says that it has committed it.

A batch's borders are fixed when it is stored, so that a batch sent twice is recognised as the same batch.
A broker's PUBACK means nothing here: brokers confirm publishes that they refuse.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

import msgspec

from edge_runtime.contract.codec import MESSAGE_MAX_BYTES, encode
from edge_runtime.contract.telemetry import BATCH_MAX_SAMPLES, Sample, TelemetryAck, TelemetryBatch, read_batch
from edge_runtime.update.database import StateDatabase

_TABLES: Final = (
    (
        """CREATE TABLE outbox_batches (
            id INTEGER PRIMARY KEY AUTOINCREMENT, epoch TEXT NOT NULL, stream TEXT NOT NULL, first_seq INTEGER NOT NULL,
            count INTEGER NOT NULL, payload BLOB NOT NULL, UNIQUE (epoch, stream, first_seq))""",
        """CREATE TABLE outbox_streams (
            epoch TEXT NOT NULL, stream TEXT NOT NULL, next_seq INTEGER NOT NULL, dropped INTEGER NOT NULL,
            PRIMARY KEY (epoch, stream))""",
    ),
)


_SAMPLES_MAX_BYTES: Final = MESSAGE_MAX_BYTES - 1024
"""A batch has to fit into one message, together with what is said about it."""


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """One batch as it will be sent, again and again, until it is acknowledged."""

    id: int
    payload: bytes


class Outbox:
    """The telemetry a device has not yet got rid of.

    Args:
        database: the device's one database.
        epoch: random text of this agent start.
        max_bytes: payload bytes kept at most; beyond them the oldest batches are given up, and that is declared.
    """

    def __init__(self, database: StateDatabase, epoch: str, max_bytes: int) -> None:
        self._database = database
        self._epoch = epoch
        self._max_bytes = max_bytes
        database.migrate("outbox", _TABLES)

    def store(self, stream: str, samples: list[Sample]) -> None:
        """Store samples as the next batch of a stream; they are on disk when this returns. Raises: UpdateError."""
        if not samples:
            return
        if len(samples) > 1 and (len(samples) > BATCH_MAX_SAMPLES or _size_bytes(samples) > _SAMPLES_MAX_BYTES):
            middle = len(samples) // 2
            self.store(stream, samples[:middle])
            self.store(stream, samples[middle:])
            return
        self._store_batch(stream, samples)

    def unacknowledged(self, limit: int) -> list[StoredBatch]:
        """The oldest batches, at most `limit`. Raises: UpdateError."""
        rows = self._database.rows("SELECT id, payload FROM outbox_batches ORDER BY id LIMIT ?", (limit,))
        return [StoredBatch(int(str(row_id)), bytes(payload)) for row_id, payload in rows if isinstance(payload, bytes)]

    def acknowledge(self, ack: TelemetryAck) -> None:
        """Forget what the server has committed; repeated, stale and foreign acknowledgements change nothing.

        A server whose database was restored acknowledges less than it once did. What is between is gone on both
        sides: the oldest batch here declares it, or the server would wait for it for ever.
        """
        with self._database.transaction() as connection:
            self._declare_forgotten(connection, ack)
            connection.execute(
                "DELETE FROM outbox_batches WHERE epoch = ? AND stream = ? AND first_seq + count - 1 <= ?",
                (ack.epoch, ack.stream, ack.seq),
            )
            # An earlier start's stream never grows again: once it is empty, it is finished.
            connection.execute(
                """DELETE FROM outbox_streams WHERE epoch <> ? AND NOT EXISTS (SELECT 1 FROM outbox_batches AS b
                   WHERE b.epoch = outbox_streams.epoch AND b.stream = outbox_streams.stream)""",
                (self._epoch,),
            )

    @property
    def size_bytes(self) -> int:
        """Payload bytes waiting."""
        rows = self._database.rows("SELECT coalesce(sum(length(payload)), 0) FROM outbox_batches")
        return int(str(rows[0][0]))

    def _store_batch(self, stream: str, samples: list[Sample]) -> None:
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT next_seq, dropped FROM outbox_streams WHERE epoch = ? AND stream = ?", (self._epoch, stream)
            ).fetchone()
            first_seq, dropped = (0, 0) if row is None else row
            batch = TelemetryBatch(
                epoch=self._epoch,
                stream=stream,
                first_seq=first_seq,
                count=len(samples),
                samples=samples,
                dropped=dropped,
            )
            connection.execute(
                "INSERT INTO outbox_batches (epoch, stream, first_seq, count, payload) VALUES (?, ?, ?, ?, ?)",
                (self._epoch, stream, first_seq, batch.count, encode(batch)),
            )
            connection.execute(
                "INSERT OR REPLACE INTO outbox_streams VALUES (?, ?, ?, 0)",
                (self._epoch, stream, first_seq + batch.count),
            )
            self._make_room()

    def _declare_forgotten(self, connection: sqlite3.Connection, ack: TelemetryAck) -> None:
        row = connection.execute(
            "SELECT first_seq, payload FROM outbox_batches WHERE epoch = ? AND stream = ? ORDER BY first_seq LIMIT 1",
            (ack.epoch, ack.stream),
        ).fetchone()
        if row is None:
            return
        first_seq, payload = row
        forgotten = first_seq - read_batch(payload).dropped - (ack.seq + 1)
        if forgotten > 0:
            self._declare(ack.epoch, ack.stream, first_seq, forgotten)

    def _make_room(self) -> None:
        """Give up the oldest batches beyond the limit; the batch after each says how many samples are missing."""
        with self._database.transaction() as connection:
            total = self.size_bytes
            while total > self._max_bytes:
                oldest = connection.execute(
                    "SELECT id, epoch, stream, first_seq, count, payload FROM outbox_batches ORDER BY id LIMIT 1"
                ).fetchone()
                row_id, epoch, stream, first_seq, count, payload = oldest
                connection.execute("DELETE FROM outbox_batches WHERE id = ?", (row_id,))
                lost = count + read_batch(payload).dropped
                total -= len(payload) - self._declare(epoch, stream, first_seq + count, lost)

    def _declare(self, epoch: str, stream: str, next_seq: int, lost: int) -> int:
        """Write `lost` into the batch that follows, or keep it for the next one; returns how many bytes that added."""
        with self._database.transaction() as connection:
            row = connection.execute(
                "SELECT id, payload FROM outbox_batches WHERE epoch = ? AND stream = ? AND first_seq = ?",
                (epoch, stream, next_seq),
            ).fetchone()
            if row is None:
                connection.execute(
                    "UPDATE outbox_streams SET dropped = dropped + ? WHERE epoch = ? AND stream = ?",
                    (lost, epoch, stream),
                )
                return 0
            row_id, payload = row
            batch = read_batch(payload)
            changed = encode(msgspec.structs.replace(batch, dropped=batch.dropped + lost))
            connection.execute("UPDATE outbox_batches SET payload = ? WHERE id = ?", (changed, row_id))
            return len(changed) - len(payload)


def _size_bytes(samples: list[Sample]) -> int:
    return sum(len(encode(sample)) + 1 for sample in samples)


class SendWindow:
    """Which stored batches are due: few in flight, sent again when no acknowledgement came in time (pure)."""

    def __init__(self, *, in_flight: int = 8, resend_after_s: float = 10.0) -> None:
        self.in_flight = in_flight
        self._resend_after_s = resend_after_s
        self._sent_at: dict[int, float] = {}

    def due(self, waiting: list[StoredBatch], now_monotonic: float) -> list[StoredBatch]:
        """The batches to send now, oldest first; call with the oldest unacknowledged ones."""
        alive = {batch.id for batch in waiting}
        self._sent_at = {row_id: at for row_id, at in self._sent_at.items() if row_id in alive}
        due = [
            batch
            for batch in waiting[: self.in_flight]
            if now_monotonic - self._sent_at.get(batch.id, float("-inf")) >= self._resend_after_s
        ]
        self._sent_at.update({batch.id: now_monotonic for batch in due})
        return due

    def reset(self) -> None:
        """After a reconnect everything is due again: what was on its way may be lost."""
        self._sent_at.clear()
