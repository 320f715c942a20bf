"""Telemetry: windows of counters and sketches in batches whose borders are fixed when they are stored."""

from __future__ import annotations

from typing import Final

from edge_runtime.contract.codec import MESSAGE_MAX_BYTES, SCHEMA, Document, decode
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import SlotId, VariantId
from edge_runtime.contract.sketch import MAX_COUNT, SketchData

BATCH_MAX_SAMPLES: Final = 1000


class Sample(Document, frozen=True, kw_only=True):
    """What one slot did during one window, all by one variant of one release."""

    start: float
    end: float
    """Window in device time, seconds since 1970."""
    slot: SlotId
    release: Digest
    variant: VariantId
    requests: int
    correct: int | None = None
    total: int | None = None
    """Answers compared with known labels, and how many were right; None without labels."""
    errors: dict[str, int] = {}
    latency_ms: SketchData | None = None
    confidence: SketchData | None = None
    gauges: dict[str, float] = {}
    """`temperature_c`, `memory_bytes`, … at the end of the window."""


class TelemetryBatch(Document, frozen=True, kw_only=True):
    """Consecutive samples first_seq … first_seq + count − 1 of one stream; key (device, epoch, stream, first_seq).

    A stream's first sample has number 0. A batch sent again is the same but for `dropped`, which may have grown.
    """

    schema: str = SCHEMA
    epoch: str
    """Random per agent start."""
    stream: str
    first_seq: int
    count: int
    samples: list[Sample]
    dropped: int = 0
    """Samples between the previous batch and this one that the device had to give up."""


class TelemetryAck(Document, frozen=True, kw_only=True):
    """Cumulative: everything of this stream up to and including `seq` is committed or given up; −1: nothing yet."""

    schema: str = SCHEMA
    epoch: str
    stream: str
    seq: int


def read_batch(content: bytes) -> TelemetryBatch:
    """Read and check one batch. Raises: ContractError when counts, borders or sizes cannot be true."""
    batch = decode(content, TelemetryBatch, max_bytes=MESSAGE_MAX_BYTES)
    if not 0 < batch.count <= BATCH_MAX_SAMPLES or batch.count != len(batch.samples):
        raise ContractError("read telemetry", f"count {batch.count} with {len(batch.samples)} samples")
    if not (0 <= batch.first_seq <= MAX_COUNT and 0 <= batch.dropped <= MAX_COUNT):
        raise ContractError("read telemetry", "first_seq or dropped is out of range")
    if not (0 < len(batch.epoch) <= 64 and 0 < len(batch.stream) <= 64):
        raise ContractError("read telemetry", "epoch or stream has another length than 1 to 64")
    for sample in batch.samples:
        _check_sample(sample)
    return batch


def _check_sample(sample: Sample) -> None:
    counts = [sample.requests, sample.correct or 0, sample.total or 0, *sample.errors.values()]
    if any(not 0 <= count <= MAX_COUNT for count in counts) or (sample.correct or 0) > (sample.total or 0):
        raise ContractError("read telemetry", "a counter is out of range")
    if len(sample.errors) > 64 or len(sample.gauges) > 64:
        raise ContractError("read telemetry", "a sample has more than 64 errors or gauges")
