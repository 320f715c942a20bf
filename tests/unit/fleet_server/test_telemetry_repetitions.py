"""Batches that come twice: stored once, and believed when they declare more samples lost than before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_runtime.contract.ids import DeviceId
from edge_runtime.contract.telemetry import TelemetryBatch
from fleet_server.db import Database
from fleet_server.telemetry.service import DeviceBatch, Telemetry
from tests.fakes import documents

DEVICE = DeviceId("cam-1")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'fleet.db'}")
    database.upgrade()
    yield database
    database.close()


def batch(first_seq: int, dropped: int = 0) -> TelemetryBatch:
    return msgspec.structs.replace(documents.batch(first_seq), dropped=dropped)


def acknowledged(database: Database, *batches: TelemetryBatch) -> int:
    with database.session() as session:
        ((_, ack),) = Telemetry().store(session, [DeviceBatch(DEVICE, one) for one in batches], 1.0)
    return ack.seq


def test_a_repeated_batch_may_declare_what_was_lost_meanwhile(database: Database) -> None:
    assert acknowledged(database, batch(0)) == 0
    assert acknowledged(database, batch(3)) == 0

    # The device gave up 1 and 2 after it had sent 3 for the first time.
    assert acknowledged(database, batch(3, dropped=2)) == 3

    with database.reading() as session:
        assert Telemetry().count(session) == 2


def test_a_declaration_is_not_taken_back_by_an_older_copy_that_comes_late(database: Database) -> None:
    acknowledged(database, batch(0))
    acknowledged(database, batch(5))
    acknowledged(database, batch(4, dropped=0))
    acknowledged(database, batch(4, dropped=2))

    assert acknowledged(database, batch(4, dropped=0)) == 0
    assert acknowledged(database, batch(1)) == 5


def test_the_beginning_of_a_stream_that_has_not_come_is_answered_with_nothing_yet(database: Database) -> None:
    assert acknowledged(database, batch(2)) == -1
    assert acknowledged(database, batch(0), batch(1)) == 2
