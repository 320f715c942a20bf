"""Telemetry counts once, is acknowledged only as far as it is committed, and one bad message spoils nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import pytest

from edge_runtime.contract import topics
from edge_runtime.contract.codec import decode, encode
from edge_runtime.contract.device_state import Status
from edge_runtime.contract.ids import DeviceId
from edge_runtime.contract.telemetry import TelemetryAck, TelemetryBatch
from fleet_server.messaging.ingest import Publication, UpMessage
from fleet_server.telemetry.ingest import Ingest
from fleet_server.telemetry.model import Extent, StreamState, advance
from fleet_server.telemetry.store import Filter
from tests.fakes import documents
from tests.fakes.server import LocalFleet


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Station:
    """A device, as the writer sees it."""

    def __init__(self, fleet: LocalFleet, name: str) -> None:
        self.fleet, self.id, self.clock = fleet, DeviceId(name), Clock()
        fleet.enrol(name)
        self.ingest = Ingest(fleet.context.database, fleet.context.inventory, fleet.context.telemetry, self.clock)

    def send(self, *batches: TelemetryBatch) -> list[TelemetryAck]:
        return acks(self.ingest.apply([self.message(batch) for batch in batches]))

    def message(self, batch: TelemetryBatch) -> UpMessage:
        return UpMessage(topics.parse_up(topics.up(self.id, topics.TELEMETRY)), encode(batch))

    @property
    def requests(self) -> int:
        with self.fleet.context.database.reading() as session:
            (summary,) = self.fleet.context.telemetry.summary(session, Filter(device=self.id), ["device"])
            return summary.requests


def acks(publications: Sequence[Publication]) -> list[TelemetryAck]:
    return [decode(publication.payload, TelemetryAck) for publication in publications]


def batch(first_seq: int, count: int = 1, dropped: int = 0) -> TelemetryBatch:
    return msgspec.structs.replace(documents.batch(first_seq, count), dropped=dropped)


def test_a_batch_that_arrives_twice_counts_once_and_is_acknowledged_twice(fleet: LocalFleet) -> None:
    station = Station(fleet, "twice-1")

    first, second = station.send(batch(0, 3)), station.send(batch(0, 3))

    assert [ack.seq for ack in first + second] == [2, 2]
    assert station.requests == 3 * 4


def test_the_acknowledgement_stops_before_a_missing_batch_and_jumps_when_it_arrives(fleet: LocalFleet) -> None:
    station = Station(fleet, "gap-1")

    assert [ack.seq for ack in station.send(batch(0, 2), batch(4, 2))] == [1]
    assert [ack.seq for ack in station.send(batch(2, 2))] == [5]
    assert station.requests == 6 * 4


def test_what_the_device_declared_dropped_is_no_gap(fleet: LocalFleet) -> None:
    station = Station(fleet, "dropped-1")

    assert [ack.seq for ack in station.send(batch(0, 2), batch(12, 2, dropped=10))] == [13]


def test_a_restored_server_tells_what_it_misses_and_goes_on_when_that_is_declared_lost(fleet: LocalFleet) -> None:
    station = Station(fleet, "restored-1")

    assert [ack.seq for ack in station.send(batch(100, 2))] == [-1]

    assert [ack.seq for ack in station.send(batch(100, 2, dropped=100))] == [101]
    assert station.requests == 2 * 4


def test_a_message_that_cannot_be_read_spoils_nothing_beside_it(fleet: LocalFleet) -> None:
    station = Station(fleet, "poison-1")
    status = topics.parse_up(topics.up(station.id, topics.STATUS))
    foreign = encode(Status(device=DeviceId("other-1"), state="ready", session="s"))
    good = encode(Status(device=station.id, state="ready", session="s"))
    broken = documents.batch(0)
    poison = [
        UpMessage(status, b"{"),
        UpMessage(status, foreign),
        station.message(msgspec.structs.replace(broken, count=7)),
        UpMessage(topics.parse_up(topics.up(station.id, topics.TELEMETRY)), b'{"epoch":1e999}'),
    ]

    published = station.ingest.apply([*poison, UpMessage(status, good), station.message(batch(0))])

    assert [ack.seq for ack in acks(published)] == [0]
    assert station.ingest.refused == 4
    with fleet.context.database.reading() as session:
        assert fleet.context.inventory.device(session, station.id).connection == "ready"


def test_a_device_that_is_not_ours_is_not_counted(fleet: LocalFleet) -> None:
    station = Station(fleet, "counted-2")
    station.id = DeviceId("stranger-1")

    assert station.send(batch(0)) == []


def test_nothing_is_acknowledged_when_the_transaction_fails(fleet: LocalFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    station = Station(fleet, "fails-1")

    def full(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr("sqlalchemy.engine.default.DefaultDialect.do_commit", full)
        with pytest.raises(OSError, match="disk full"):
            station.send(batch(0))

    assert [ack.seq for ack in station.send(batch(0))] == [0]
    assert station.requests == 4


def test_summaries_measure_accuracy_and_merge_latencies(fleet: LocalFleet) -> None:
    station = Station(fleet, "summed-1")
    station.send(batch(0, 3))

    with fleet.context.database.reading() as session:
        (found,) = fleet.context.telemetry.summary(session, Filter(device=station.id), ["device", "variant"])

    assert (found.correct, found.total, found.accuracy) == (9, 12, 0.75)
    assert found.errors == {"inference": 3}
    assert found.latency_p50_ms == pytest.approx(1.5, rel=0.1)


@pytest.mark.parametrize(
    ("state", "stored", "next_seq"),
    [
        (StreamState(), [Extent(0, 2, 0)], 2),
        (StreamState(), [Extent(2, 2, 0)], 0),
        (StreamState(5), [Extent(5, 1, 0), Extent(6, 4, 0), Extent(11, 1, 0)], 10),
        (StreamState(5, gap_since=0.0), [Extent(9, 1, 0)], 5),
        (StreamState(5, gap_since=0.0), [Extent(9, 1, 4)], 10),
    ],
)
def test_a_stream_advances_as_far_as_it_has_no_gap(state: StreamState, stored: list[Extent], next_seq: int) -> None:
    assert advance(state, stored, now=0.0).next_seq == next_seq
