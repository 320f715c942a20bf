"""What agents' outboxes have stored, read from their databases, held against what the server's database counts."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edge_runtime.contract.telemetry import Sample, read_batch


class Stream(NamedTuple):
    """One stream of one agent start."""

    device: str
    epoch: str
    stream: str


class Counted(NamedTuple):
    """A sample, as both sides can name it."""

    device: str
    slot: str
    release: str
    variant: str
    start: float
    end: float
    requests: int


@dataclass
class Ledger:
    """The outboxes' side. An outbox is the only witness of what it has stored, so it is read before it can forget."""

    stored: dict[Stream, int] = field(default_factory=dict)
    """Samples that were ever stored, by stream; final once the agent start of that epoch is over."""
    samples: dict[tuple[Stream, int], Counted] = field(default_factory=dict)
    """Every sample that was seen waiting, by its number."""

    def read(self, device: str, state_dir: Path) -> None:
        """Note what a device stores; call while its agent does not run."""
        with tempfile.TemporaryDirectory() as folder:
            # A copy: SQLite's own recovery after the kill is left to the agent.
            for name in ("state.db", "state.db-wal"):
                if (state_dir / name).exists():
                    shutil.copy(state_dir / name, folder)
            self._read(device, f"file:{folder}/state.db")

    def glance(self, device: str, state_dir: Path) -> None:
        """Note what waits in a running agent's outbox now."""
        self._read(device, f"file:{state_dir / 'state.db'}?mode=ro")

    def _read(self, device: str, database: str) -> None:
        with closing(sqlite3.connect(database, uri=True, timeout=10)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            if "outbox_streams" not in names:
                return
            streams = connection.execute("SELECT epoch, stream, next_seq, dropped FROM outbox_streams").fetchall()
            batches = connection.execute("SELECT payload FROM outbox_batches").fetchall()
        for epoch, stream, next_seq, dropped in streams:
            assert dropped == 0, (device, epoch, stream, dropped)
            key = Stream(device, epoch, stream)
            self.stored[key] = max(next_seq, self.stored.get(key, 0))
        for (payload,) in batches:
            self._note(device, payload)

    def _note(self, device: str, payload: bytes) -> None:
        batch = read_batch(payload)
        key = Stream(device, batch.epoch, batch.stream)
        assert batch.dropped == 0, (key, batch.first_seq, batch.dropped)
        for number, sample in enumerate(batch.samples, batch.first_seq):
            counted = _counted(device, sample)
            assert self.samples.setdefault((key, number), counted) == counted, "a stored batch has changed"


def waiting(state_dir: Path) -> int:
    """Batches of an agent that the server has not acknowledged."""
    with closing(sqlite3.connect(f"file:{state_dir / 'state.db'}?mode=ro", uri=True, timeout=10)) as connection:
        return int(connection.execute("SELECT count(*) FROM outbox_batches").fetchone()[0])


@dataclass(frozen=True)
class Books:
    """The server's side."""

    streams: dict[Stream, tuple[int, int, bool]]
    """Committed up to (exclusive), declared lost, and whether a gap is open."""
    batches: dict[Stream, list[tuple[int, int, int]]]
    """first_seq, count and dropped of every stored batch, in order."""
    samples: Counter[Counted]

    @classmethod
    def of(cls, data: Path) -> Books:
        """Read a server's database."""
        with closing(sqlite3.connect(f"file:{data / 'fleet.db'}?mode=ro", uri=True, timeout=10)) as connection:
            streams = {
                Stream(*row[:3]): (row[3], row[4], row[5] is not None)
                for row in connection.execute(
                    "SELECT device, epoch, stream, next_seq, missing, gap_since FROM telemetry_stream"
                )
            }
            batches: dict[Stream, list[tuple[int, int, int]]] = {}
            for row in connection.execute(
                "SELECT device, epoch, stream, first_seq, count, dropped FROM telemetry_batch ORDER BY first_seq"
            ):
                batches.setdefault(Stream(*row[:3]), []).append(row[3:])
            samples = Counter(
                Counted(*row)
                for row in connection.execute(
                    "SELECT device, slot, release, variant, start_s, end_s, requests FROM telemetry_sample"
                )
            )
        return cls(streams, batches, samples)

    def requests(self, device: str) -> int:
        """What a device answered, by its samples."""
        return sum(sample.requests * times for sample, times in self.samples.items() if sample.device == device)


def check_nothing_lost_or_doubled(ledger: Ledger, books: Books) -> None:
    """Raises: AssertionError unless the server holds every stored sample exactly once, and nothing else."""
    expected_streams = {key: (count, 0, False) for key, count in ledger.stored.items()}
    wrong = {
        key: {"stored": expected_streams.get(key), "counted": books.streams.get(key)}
        for key in expected_streams.keys() | books.streams.keys()
        if expected_streams.get(key) != books.streams.get(key)
    }
    assert not wrong, wrong
    for key, batches in books.batches.items():
        expected = 0
        for first_seq, count, dropped in batches:
            assert (first_seq, dropped) == (expected, 0), (key, batches)
            expected += count
        assert expected == ledger.stored[key], (key, expected)
    doubled = {sample: times for sample, times in books.samples.items() if times != 1}
    assert not doubled, doubled
    by_device = Counter(sample.device for sample in books.samples)
    expected_by_device: Counter[str] = Counter()
    for key, count in ledger.stored.items():
        expected_by_device[key.device] += count
    assert by_device == expected_by_device
    lost = [sample for sample in ledger.samples.values() if sample not in books.samples]
    assert not lost, lost


def _counted(device: str, sample: Sample) -> Counted:
    return Counted(device, sample.slot, sample.release, sample.variant, sample.start, sample.end, sample.requests)
