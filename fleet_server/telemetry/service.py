"""Batches in, once each; cumulative acknowledgements and summaries out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_runtime.contract.digest import parse_digest
from edge_runtime.contract.ids import DeviceId, parse_slot_id, parse_variant_id
from edge_runtime.contract.sketch import Sketch
from edge_runtime.contract.telemetry import Sample, TelemetryAck, TelemetryBatch
from fleet_server.db import Session
from fleet_server.telemetry import store
from fleet_server.telemetry.model import Extent, GroupKey, StreamKey, StreamState, Summary, advance, summarise
from fleet_server.telemetry.store import Filter


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """A batch and the device that vouches for it."""

    device: DeviceId
    batch: TelemetryBatch


class Telemetry:
    """What devices measured."""

    def store(
        self, session: Session, batches: Sequence[DeviceBatch], now: float
    ) -> list[tuple[DeviceId, TelemetryAck]]:
        """Store batches that are new, in the caller's transaction.

        Returns:
            One acknowledgement per stream, to be sent only after the commit; −1 while its beginning is missing.
        """
        states: dict[StreamKey, StreamState] = {}
        fresh: list[tuple[DeviceId, Sample]] = []
        for entry in batches:
            batch = entry.batch
            key = StreamKey(entry.device, batch.epoch, batch.stream)
            state = states.get(key) or store.read_stream(session, key)
            extent = Extent(batch.first_seq, batch.count, batch.dropped)
            if extent.first_seq >= state.next_seq:
                if store.insert_batch(session, key, extent, now):
                    fresh += [(entry.device, sample) for sample in batch.samples]
                state = advance(state, self._waiting(session, key, state, extent), now)
            states[key] = state
        store.insert_samples(session, fresh)
        for key, state in states.items():
            store.write_stream(session, key, state, now)
        return [
            (key.device, TelemetryAck(epoch=key.epoch, stream=key.stream, seq=state.next_seq - 1))
            for key, state in states.items()
        ]

    def summary(self, session: Session, chosen: Filter, by: Iterable[GroupKey]) -> list[Summary]:
        """What the chosen samples add up to, by group."""
        return summarise(store.read_windows(session, chosen), by)

    def prune(self, session: Session, before: float) -> int:
        """Forget what is older than a time; returns how many samples went."""
        return store.prune(session, before)

    def count(self, session: Session) -> int:
        """How many samples are stored."""
        return store.count_samples(session)

    def _waiting(self, session: Session, key: StreamKey, state: StreamState, extent: Extent) -> list[Extent]:
        if state.gap_since is None and extent.first_seq == state.next_seq:
            return [extent]
        return store.batches_from(session, key, state.next_seq)


def check_samples(batch: TelemetryBatch) -> TelemetryBatch:
    """Refuse names and sketches that could not be summarised later. Raises: ContractError."""
    for sample in batch.samples:
        parse_slot_id(sample.slot)
        parse_digest(sample.release)
        parse_variant_id(sample.variant)
        for sketch in (sample.latency_ms, sample.confidence):
            if sketch is not None:
                Sketch.from_data(sketch)
    return batch
