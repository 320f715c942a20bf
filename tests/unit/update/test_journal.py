"""The journal and its database: flushed, all or nothing, and never back to a lower sequence number."""

import sqlite3
from pathlib import Path

import pytest

from edge_runtime.contract.device_state import Assignment, SlotState
from edge_runtime.contract.errors import UpdateError
from edge_runtime.update.database import StateDatabase
from edge_runtime.update.journal import Journal
from edge_runtime.update.planner import Waiting, reason
from edge_runtime.update.states import Attempt, Failed, Idle, IllegalTransition, Offered, UpdateEvent
from tests.fakes.documents import DEVICE, RELEASE, SLOT


def assignment(seq: int) -> Assignment:
    return Assignment(
        device=DEVICE, slot=SLOT, kind="model", seq=seq, issued=1.0, expires=2.0, release=RELEASE, length=10
    )


def reopened(path: Path) -> Journal:
    return Journal(StateDatabase(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    journal = reopened(path)
    journal.accept(SLOT, assignment(3), 10.0)
    journal.advance(journal.read(SLOT), UpdateEvent.OFFER, Offered(Attempt(assignment(3), 10.0)), 11.0, taken_up=True)
    journal.wait(SLOT, Waiting("network", 20.0, 2), 12.0)

    record = reopened(path).read(SLOT)

    assert record == journal.read(SLOT)
    assert record.status == Offered(Attempt(assignment(3), 10.0))
    assert (record.highest_seq, record.pending, record.waiting) == (3, None, Waiting("network", 20.0, 2))


def test_every_commit_is_flushed(path: Path) -> None:
    database = StateDatabase(path)

    assert database.rows("PRAGMA journal_mode") == [("wal",)]
    assert database.rows("PRAGMA synchronous") == [(2,)]


def test_an_unknown_slot_is_idle(path: Path) -> None:
    record = reopened(path).read(SLOT)

    assert (record.status, record.highest_seq, record.revision) == (Idle(), 0, 0)


def test_a_transition_the_table_does_not_know_is_not_written(path: Path) -> None:
    journal = reopened(path)
    attempt = Attempt(assignment(1), 0.0)

    with pytest.raises(IllegalTransition):
        journal.advance(journal.read(SLOT), UpdateEvent.SOAK, Offered(attempt), 1.0)
    with pytest.raises(UpdateError, match="the table leads to offered"):
        journal.advance(journal.read(SLOT), UpdateEvent.OFFER, Failed(attempt, reason("internal")), 1.0)

    assert journal.read(SLOT).state is SlotState.IDLE


def test_the_highest_sequence_number_survives_a_status_written_without_it(path: Path) -> None:
    journal = reopened(path)
    journal.accept(SLOT, assignment(9), 1.0)

    journal.accept(SLOT, assignment(4), 2.0)

    assert journal.read(SLOT).highest_seq == 9
    assert journal.highest_seqs() == {SLOT: 9}


def test_an_assignment_accepted_while_another_is_taken_up_is_not_lost(path: Path) -> None:
    journal = reopened(path)
    journal.accept(SLOT, assignment(1), 1.0)
    planned_on = journal.read(SLOT)
    journal.accept(SLOT, assignment(2), 2.0)

    journal.advance(planned_on, UpdateEvent.OFFER, Offered(Attempt(assignment(1), 1.0)), 3.0, taken_up=True)

    assert journal.read(SLOT).pending == assignment(2)


def test_a_bad_end_and_its_quarantine_are_one_commit(path: Path) -> None:
    journal = reopened(path)
    record = journal.note(journal.read(SLOT), Offered(Attempt(assignment(1), 1.0)), 1.0)
    stale = record
    journal.note(record, record.status, 2.0)

    with pytest.raises(UpdateError):
        journal.conclude(
            stale, UpdateEvent.FAIL, Failed(Attempt(assignment(1), 1.0), reason("too_slow")), 3.0, quarantine=True
        )

    assert journal.quarantined(SLOT, RELEASE, 1) is None


def test_a_full_disk_is_named_and_nothing_is_changed(path: Path) -> None:
    database = StateDatabase(path)
    journal = Journal(database)
    journal.accept(SLOT, assignment(1), 1.0)
    pages = database.rows("PRAGMA page_count")[0][0]
    database.rows(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(UpdateError) as caught:
        database.put("key", "x" * 1_000_000)

    assert caught.value.code == "disk_full"
    assert database.get("key") is None
    assert journal.read(SLOT).highest_seq == 1


def test_parts_migrate_on_their_own(path: Path) -> None:
    database = StateDatabase(path)
    first = ("CREATE TABLE box (id INTEGER PRIMARY KEY)",)
    second = ("ALTER TABLE box ADD COLUMN name TEXT",)

    database.migrate("outbox", (first,))
    database.migrate("outbox", (first, second))
    database.migrate("outbox", (first, second))

    assert [row[1] for row in database.rows("PRAGMA table_info(box)")] == ["id", "name"]
    with pytest.raises(UpdateError, match="newer software"):
        database.migrate("outbox", (first,))


def test_a_database_of_newer_software_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(UpdateError, match="newer software"):
        StateDatabase(path)


def test_a_file_that_is_no_database_is_refused_with_one_sentence(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)

    with pytest.raises(UpdateError, match="cannot open"):
        StateDatabase(path)


def test_a_nested_transaction_commits_with_the_outermost(path: Path) -> None:
    database = StateDatabase(path)

    def break_off() -> None:
        with database.transaction():
            database.put("key", "value")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        break_off()

    assert database.get("key") is None


def test_a_record_that_cannot_be_read_is_one_error(path: Path) -> None:
    database = StateDatabase(path)
    journal = Journal(database)
    journal.accept(SLOT, assignment(1), 1.0)
    with database.transaction() as connection:
        connection.execute("UPDATE slots SET status = ?, state = ?", (b"{", "soaking"))

    with pytest.raises(UpdateError, match="damaged"):
        journal.read(SLOT)
