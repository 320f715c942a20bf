"""What the server's writer costs per telemetry batch, beside the bare database taking the same samples as rows."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import msgspec

from edge_runtime.contract import topics
from edge_runtime.contract.codec import encode
from edge_runtime.contract.ids import DeviceId
from fleet_server.messaging.ingest import UpMessage
from fleet_server.telemetry.ingest import Ingest
from tests.bench.figures import ratio, spread, table
from tests.fakes import documents
from tests.fakes.server import LocalFleet

DEVICES = 50
ROUNDS = 20
SAMPLES = 5
"""Per batch."""


def report() -> list[str]:
    """Measure in turns and return a section of Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        fleet = LocalFleet(Path(folder) / "data")
        try:
            ours, bare = _measure(fleet, Path(folder) / "bare.db")
        finally:
            fleet.close()
    rows = [
        ["decode, check, merge, store, acknowledge", spread(ours, "µs CPU"), ratio(median(ours), median(bare))],
        ["bare: the same JSON and counters by `executemany`", spread(bare, "µs CPU"), "1.00 x"],
    ]
    return [
        "## One telemetry batch at the server",
        "",
        f"{SAMPLES} samples per batch, {DEVICES} devices in one transaction (SQLite, WAL).",
        f"Process CPU per batch, {ROUNDS} rounds in turns, median (lowest to highest).",
        "",
        *table(["writer", "per batch", "ratio"], rows),
        "",
        f"One core takes about {1e6 / median(ours):,.0f} batches a second:",
        f"{60e6 / median(ours):,.0f} devices that send one a minute.",
    ]


def _measure(fleet: LocalFleet, bare_path: Path) -> tuple[list[float], list[float]]:
    devices = [DeviceId(f"bench-{number}") for number in range(DEVICES)]
    for device in devices:
        fleet.enrol(device)
    ingest = Ingest(fleet.context.database, fleet.context.inventory, fleet.context.telemetry)
    bare = sqlite3.connect(bare_path)
    bare.execute("PRAGMA journal_mode=WAL")
    bare.execute("CREATE TABLE sample (device TEXT, seq INTEGER, start REAL, requests INTEGER, content BLOB)")
    ours_us, bare_us = [], []
    for turn in range(ROUNDS):
        messages = [_message(device, turn * SAMPLES) for device in devices]
        ours_us.append(_cpu_us(partial(ingest.apply, messages)))
        bare_us.append(_cpu_us(partial(_store_bare, bare, messages)))
    bare.close()
    return ours_us, bare_us


def _message(device: DeviceId, first_seq: int) -> UpMessage:
    batch = msgspec.structs.replace(documents.batch(first_seq, SAMPLES), dropped=0)
    return UpMessage(topics.parse_up(topics.up(device, topics.TELEMETRY)), encode(batch))


def _store_bare(database: sqlite3.Connection, messages: list[UpMessage]) -> None:
    rows = []
    for message in messages:
        batch = msgspec.json.decode(message.payload)
        for number, sample in enumerate(batch["samples"]):
            latency = msgspec.json.encode(sample["latency_ms"])
            row = (message.topic.device, batch["first_seq"] + number, sample["start"], sample["requests"], latency)
            rows.append(row)
    with database:
        database.executemany("INSERT INTO sample VALUES (?, ?, ?, ?, ?)", rows)


def _cpu_us(work: Callable[[], object]) -> float:
    """CPU microseconds of this process per batch."""
    began = time.process_time_ns()
    work()
    return (time.process_time_ns() - began) / 1000 / DEVICES
