"""A device's outbox and the server's telemetry over a bad network: every sample arrives once, or is declared lost."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.agent.outbox import Outbox
from edge_runtime.contract.ids import DeviceId
from edge_runtime.contract.telemetry import Sample, TelemetryAck, read_batch
from edge_runtime.update.database import StateDatabase
from fleet_server.db import Database, raw_connection
from fleet_server.telemetry.service import DeviceBatch, Telemetry
from tests.fakes import documents

DEVICE = DeviceId("cam-1")
TEMPLATE = documents.batch().samples[0]
# Sent and its fate: index among the waiting batches, whether it arrives, whether its answer does.
SENDING = st.tuples(st.just("send"), st.integers(0, 3), st.booleans(), st.booleans())
STEPS = st.lists(st.one_of(st.just(("store",)), SENDING, st.just(("restart",)), st.just(("repeat",))), max_size=25)


@functools.cache
def template() -> Path:
    """An empty server database; migrations are too slow for every example."""
    path = Path(tempfile.mkdtemp(prefix="edgefleet-template-")) / "fleet.db"
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    with database.session() as session:
        raw_connection(session).execute("SELECT 1")
    database.close()
    return path


class Line:
    """Device on one side, server on the other."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.starts = 0
        self.made = 0
        self.late: TelemetryAck | None = None
        shutil.copy(template(), folder / "fleet.db")
        self.server = Database(f"sqlite:///{folder / 'fleet.db'}")
        self.telemetry = Telemetry()
        self.start()

    def start(self) -> None:
        """A new agent over the same disk."""
        if self.starts:
            self.database.close()
        self.starts += 1
        self.database = StateDatabase(self.folder / "state.db")
        self.outbox = Outbox(self.database, f"e{self.starts}", self.max_bytes)

    def store(self) -> None:
        self.made += 1
        sample = Sample(
            start=0.0, end=float(self.made), slot=TEMPLATE.slot, release=TEMPLATE.release, variant=TEMPLATE.variant,
            requests=1,
        )  # fmt: skip
        self.outbox.store("windows", [sample])

    def send(self, index: int, arrives: bool, answered: bool) -> None:
        waiting = self.outbox.unacknowledged(index + 1)
        if index >= len(waiting) or not arrives:
            return
        with self.server.session() as session:
            ((_, ack),) = self.telemetry.store(session, [DeviceBatch(DEVICE, read_batch(waiting[index].payload))], 0.0)
        if answered:
            self.outbox.acknowledge(ack)
            self.late = ack

    def arrived(self) -> list[float]:
        with self.server.reading() as session:
            rows = raw_connection(session).execute("SELECT end_s FROM telemetry_sample").fetchall()
        return sorted(float(row[0]) for row in rows)

    def missing(self) -> int:
        with self.server.reading() as session:
            row = raw_connection(session).execute("SELECT coalesce(sum(missing), 0) FROM telemetry_stream").fetchone()
        return int(row[0])

    def close(self) -> None:
        self.database.close()
        self.server.close()


@settings(max_examples=25)
@given(steps=STEPS, max_bytes=st.sampled_from([600, 1500, 1 << 20]))
def test_every_sample_arrives_exactly_once_or_is_declared_lost(steps: list[tuple], max_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        line = Line(Path(name), max_bytes)
        try:
            for kind, *fate in steps:
                if kind == "store":
                    line.store()
                elif kind == "send":
                    line.send(*fate)
                elif kind == "restart":
                    line.start()
                elif line.late is not None:
                    line.outbox.acknowledge(line.late)
            # The network is well again, and every stream goes on a little: losses at its end are declared by then.
            line.max_bytes = 1 << 20
            line.store()
            for _ in range(3 * line.made):
                line.send(0, arrives=True, answered=True)

            arrived = line.arrived()
            assert len(arrived) == len(set(arrived))
            assert len(arrived) + line.missing() <= line.made
            if max_bytes == 1 << 20:
                assert arrived == [float(number + 1) for number in range(line.made)]
                assert line.missing() == 0
            assert line.outbox.unacknowledged(1) == []
        finally:
            line.close()
