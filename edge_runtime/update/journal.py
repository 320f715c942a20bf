"""The journal: where every slot stands, written and flushed before anything is done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_state import Assignment, Reason, SlotState
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import UpdateError
from edge_runtime.contract.ids import SlotId
from edge_runtime.update.database import StateDatabase, Value
from edge_runtime.update.planner import Waiting
from edge_runtime.update.states import (
    STATUS_TYPES,
    Failed,
    Idle,
    RolledBack,
    SlotStatus,
    UpdateEvent,
    next_state,
    state_of,
)

_VERSIONS: Final = (
    (
        """CREATE TABLE slots (
            slot TEXT PRIMARY KEY,
            state TEXT NOT NULL,
            status BLOB NOT NULL,
            generation INTEGER NOT NULL,
            highest_seq INTEGER NOT NULL,
            revision INTEGER NOT NULL,
            at REAL NOT NULL,
            pending BLOB,
            waiting BLOB,
            clean INTEGER NOT NULL
        )""",
        """CREATE TABLE quarantine (
            slot TEXT NOT NULL,
            release TEXT NOT NULL,
            seq INTEGER NOT NULL,
            reason BLOB NOT NULL,
            at REAL NOT NULL,
            PRIMARY KEY (slot, release, seq)
        )""",
    ),
)

_ValueT = TypeVar("_ValueT")


@dataclass(frozen=True, slots=True)
class SlotRecord:
    """All the journal knows about a slot."""

    slot: SlotId
    status: SlotStatus
    generation: int
    """Grows with every status written; whoever planned on an older one may not act."""
    highest_seq: int
    """Highest assignment sequence ever accepted; never goes down."""
    revision: int
    """Grows with everything a report shows."""
    at: float
    pending: Assignment | None
    waiting: Waiting | None
    clean: bool
    """The agent said goodbye since it last opened this slot."""

    @property
    def state(self) -> SlotState:
        """The state of its status."""
        return state_of(self.status)


class Journal:
    """Reads and writes slot records; every write is one flushed transaction.

    Args:
        database: the device's database.

    Raises:
        UpdateError: newer software wrote the journal.
    """

    def __init__(self, database: StateDatabase) -> None:
        self._database = database
        database.migrate("journal", _VERSIONS)

    def slots(self) -> tuple[SlotId, ...]:
        """Every slot the journal knows. Raises: UpdateError."""
        return tuple(SlotId(str(slot)) for (slot,) in self._database.rows("SELECT slot FROM slots ORDER BY slot"))

    def highest_seqs(self) -> Mapping[SlotId, int]:
        """The highest accepted sequence number of every slot. Raises: UpdateError."""
        rows = self._database.rows("SELECT slot, highest_seq FROM slots")
        return MappingProxyType({SlotId(str(slot)): int(str(seq)) for slot, seq in rows})

    def read(self, slot: SlotId) -> SlotRecord:
        """The slot's record; an unknown slot is idle. Raises: UpdateError when a record cannot be read."""
        rows = self._database.rows(
            "SELECT state, status, generation, highest_seq, revision, at, pending, waiting, clean"
            " FROM slots WHERE slot = ?",
            (slot,),
        )
        if not rows:
            return SlotRecord(slot, Idle(), 0, 0, 0, 0.0, None, None, clean=True)
        state, status, generation, highest_seq, revision, at, pending, waiting, clean = rows[0]
        kind: type[SlotStatus] = STATUS_TYPES[SlotState(state)]
        return SlotRecord(
            slot,
            _decoded(status, kind, slot),
            int(str(generation)),
            int(str(highest_seq)),
            int(str(revision)),
            float(str(at)),
            None if pending is None else _decoded(pending, Assignment, slot),
            None if waiting is None else _decoded(waiting, Waiting, slot),
            clean=bool(clean),
        )

    def accept(self, slot: SlotId, assignment: Assignment, now: float) -> None:
        """Remember an assignment to be taken up, and raise the highest sequence number. Raises: UpdateError."""
        with self._database.transaction():
            record = self.read(slot)
            # A new assignment is tried at once; a retry keeps its back-off.
            waiting = record.waiting if assignment.seq == record.highest_seq else None
            self._write(record, record.status, now, pending=assignment, waiting=waiting,
                        generation=record.generation)  # fmt: skip

    def advance(
        self, record: SlotRecord, event: UpdateEvent, status: SlotStatus, now: float, *, taken_up: bool = False
    ) -> SlotRecord:
        """Move a slot to its next state; `taken_up` says that the pending assignment became this status.

        Raises:
            IllegalTransition: the table does not lead from the record's state to that of `status`.
            UpdateError: the record is out of date: someone else moved the slot meanwhile.
        """
        expected = next_state(record.state, event)
        if state_of(status) is not expected:
            raise UpdateError(
                f"journal {state_of(status).value}", f"the table leads to {expected.value}", "report this as a bug"
            )
        return self.note(record, status, now, taken_up=taken_up)

    def note(self, record: SlotRecord, status: SlotStatus, now: float, *, taken_up: bool = False) -> SlotRecord:
        """Write new data of a slot, which ends its back-off. Raises: UpdateError when the record is out of date."""
        with self._database.transaction():
            present = self.read(record.slot)
            if present.generation != record.generation:
                raise UpdateError(
                    f"move slot {record.slot}", "someone else moved it meanwhile", "run one agent per data folder"
                )
            pending = None if taken_up and present.pending == record.pending else present.pending
            generation = record.generation + 1
            self._write(present, status, now, pending=pending, waiting=None, generation=generation)
        return self.read(record.slot)

    def wait(self, slot: SlotId, waiting: Waiting, now: float) -> None:
        """Remember a back-off. Raises: UpdateError."""
        with self._database.transaction():
            record = self.read(slot)
            self._write(record, record.status, now, pending=record.pending, waiting=waiting,
                        generation=record.generation)  # fmt: skip

    def set_clean(self, slot: SlotId, *, clean: bool) -> None:
        """Remember whether the agent has said goodbye; a new report is due. Raises: UpdateError."""
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE slots SET clean = ?, revision = revision + 1 WHERE slot = ?", (int(clean), slot)
            )

    def renew(self, slot: SlotId) -> SlotRecord:
        """Let the next report outdo the last one, though the record is the same. Raises: UpdateError."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE slots SET revision = revision + 1 WHERE slot = ?", (slot,))
            return self.read(slot)

    def conclude(
        self, record: SlotRecord, event: UpdateEvent, status: Failed | RolledBack, now: float, *, quarantine: bool
    ) -> SlotRecord:
        """End an attempt badly, and remember it under this release and sequence number. Raises: as `advance`."""
        assignment = status.attempt.assignment
        with self._database.transaction() as connection:
            if quarantine:
                connection.execute(
                    "INSERT OR REPLACE INTO quarantine (slot, release, seq, reason, at) VALUES (?, ?, ?, ?, ?)",
                    (record.slot, assignment.release or "", assignment.seq, encode(status.reason), now),
                )
            return self.advance(record, event, status, now)

    def quarantined(self, slot: SlotId, release: Digest | None, seq: int) -> Reason | None:
        """Why a release ended badly under this sequence number; None when it did not. Raises: UpdateError."""
        rows = self._database.rows(
            "SELECT reason FROM quarantine WHERE slot = ? AND release = ? AND seq = ?", (slot, release or "", seq)
        )
        return _decoded(rows[0][0], Reason, slot) if rows else None

    def _write(
        self,
        record: SlotRecord,
        status: SlotStatus,
        now: float,
        *,
        pending: Assignment | None,
        waiting: Waiting | None,
        generation: int,
    ) -> None:
        highest_seq = max(record.highest_seq, pending.seq if pending is not None else 0)
        with self._database.transaction() as connection:
            connection.execute(
                # The highest sequence number is what stops replays: not even a bug of ours may lower it.
                "INSERT INTO slots"
                " (slot, state, status, generation, highest_seq, revision, at, pending, waiting, clean)"
                " VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, 0) ON CONFLICT (slot) DO UPDATE SET state = excluded.state,"
                " status = excluded.status, generation = excluded.generation,"
                " highest_seq = max(highest_seq, excluded.highest_seq), revision = revision + 1, at = excluded.at,"
                " pending = excluded.pending, waiting = excluded.waiting",
                (
                    record.slot,
                    state_of(status).value,
                    msgspec.json.encode(status),
                    generation,
                    highest_seq,
                    now,
                    None if pending is None else encode(pending),
                    None if waiting is None else msgspec.json.encode(waiting),
                ),
            )


def _decoded(content: Value, kind: type[_ValueT], slot: SlotId) -> _ValueT:
    try:
        return msgspec.json.decode(content if isinstance(content, (bytes, str)) else b"", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpdateError(
            f"read the journal of slot {slot}", "its record is damaged", "re-enrol the device with an empty data folder"
        ) from error
