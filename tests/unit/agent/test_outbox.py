"""Store and forward: nothing is deleted that the server has not, and what is given up is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.agent.outbox import Outbox, SendWindow, StoredBatch
from edge_runtime.contract.codec import MESSAGE_MAX_BYTES
from edge_runtime.contract.telemetry import Sample, TelemetryAck, TelemetryBatch, read_batch
from edge_runtime.update.database import StateDatabase
from tests.fakes import documents


def sample(requests: int = 1, **gauges: float) -> Sample:
    one = documents.batch().samples[0]
    return Sample(
        start=0.0, end=1.0, slot=one.slot, release=one.release, variant=one.variant, requests=requests, gauges=gauges
    )


@pytest.fixture
def database(tmp_path: Path) -> StateDatabase:
    return StateDatabase(tmp_path / "state.db")


def stored(outbox: Outbox, limit: int = 1000) -> list[TelemetryBatch]:
    return [read_batch(batch.payload) for batch in outbox.unacknowledged(limit)]


def ack(seq: int, epoch: str = "e1", stream: str = "windows") -> TelemetryAck:
    return TelemetryAck(epoch=epoch, stream=stream, seq=seq)


def test_batches_are_numbered_from_zero_and_survive_a_restart_with_their_borders(tmp_path: Path) -> None:
    first = StateDatabase(tmp_path / "state.db")
    outbox = Outbox(first, "e1", 1 << 20)
    outbox.store("windows", [sample(), sample()])
    outbox.store("windows", [sample()])
    before = [batch.payload for batch in outbox.unacknowledged(10)]
    first.close()

    again = Outbox(StateDatabase(tmp_path / "state.db"), "e2", 1 << 20)
    again.store("windows", [sample()])

    assert [batch.payload for batch in again.unacknowledged(10)][:2] == before
    assert [(batch.epoch, batch.first_seq, batch.count) for batch in stored(again)] == [
        ("e1", 0, 2),
        ("e1", 2, 1),
        ("e2", 0, 1),
    ]


def test_only_what_is_acknowledged_in_full_is_deleted(database: StateDatabase) -> None:
    outbox = Outbox(database, "e1", 1 << 20)
    outbox.store("windows", [sample(), sample()])
    outbox.store("windows", [sample()])

    for harmless in (ack(-1), ack(0), ack(5, epoch="other"), ack(5, stream="other")):
        outbox.acknowledge(harmless)
    assert [batch.first_seq for batch in stored(outbox)] == [0, 2]

    outbox.acknowledge(ack(1))
    outbox.acknowledge(ack(1))
    assert [batch.first_seq for batch in stored(outbox)] == [2]


def test_a_full_outbox_gives_up_the_oldest_and_the_next_batch_says_how_many(database: StateDatabase) -> None:
    size = _size_of_one(database)
    outbox = Outbox(database, "e1", 3 * size + 20)

    for _ in range(6):
        outbox.store("windows", [sample()])

    assert [(batch.first_seq, batch.dropped) for batch in stored(outbox)] == [(3, 3), (4, 0), (5, 0)]
    assert outbox.size_bytes <= 3 * size + 20


def test_an_outbox_too_small_for_one_batch_declares_what_it_lost_in_the_next_that_fits(database: StateDatabase) -> None:
    tiny = Outbox(database, "e1", 1)
    for _ in range(3):
        tiny.store("windows", [sample()])
    assert stored(tiny) == []

    roomy = Outbox(database, "e1", 1 << 20)
    roomy.store("windows", [sample()])

    assert [(batch.first_seq, batch.dropped) for batch in stored(roomy)] == [(3, 3)]


def test_a_server_that_forgot_what_it_had_acknowledged_is_told_that_it_is_gone(database: StateDatabase) -> None:
    outbox = Outbox(database, "e1", 1 << 20)
    for _ in range(4):
        outbox.store("windows", [sample()])
    outbox.acknowledge(ack(2))

    # Its database was restored from before: it says how far it is now.
    outbox.acknowledge(ack(0))
    outbox.acknowledge(ack(0))

    assert [(batch.first_seq, batch.dropped) for batch in stored(outbox)] == [(3, 2)]


def test_many_samples_become_batches_that_fit_into_messages(database: StateDatabase) -> None:
    outbox = Outbox(database, "e1", 1 << 24)
    wide = {f"gauge_{number}_{'x' * 40}": float(number) for number in range(64)}

    outbox.store("windows", [sample(**wide) for _ in range(300)])
    outbox.store("windows", [])

    batches = outbox.unacknowledged(1000)
    assert max(len(batch.payload) for batch in batches) <= MESSAGE_MAX_BYTES
    assert sum(batch.count for batch in stored(outbox)) == 300


def test_few_batches_are_in_flight_and_unanswered_ones_are_sent_again() -> None:
    window = SendWindow(in_flight=2, resend_after_s=10.0)
    waiting = [StoredBatch(number, b"") for number in (1, 2, 3)]

    assert [batch.id for batch in window.due(waiting, 0.0)] == [1, 2]
    assert window.due(waiting, 9.0) == []
    assert [batch.id for batch in window.due(waiting[1:], 9.5)] == [3]
    assert [batch.id for batch in window.due(waiting[1:], 10.0)] == [2]
    window.reset()
    assert [batch.id for batch in window.due(waiting[1:], 10.1)] == [2, 3]


def _size_of_one(database: StateDatabase) -> int:
    probe = Outbox(database, "probe", 1 << 20)
    probe.store("windows", [sample()])
    size = probe.size_bytes
    probe.acknowledge(ack(0, epoch="probe"))
    return size
