"""Evidence: one measurement of one variant on one machine; never part of a variant's digest."""

from __future__ import annotations

from typing import Final

import msgspec

from edge_runtime.contract.codec import SCHEMA, Document
from edge_runtime.contract.digest import Digest

EVIDENCE_LAYER: Final = "evidence.json"


class By(Document, frozen=True, kw_only=True):
    """Who measured: `build` (converter), `farm`, `device`."""

    kind: str
    id: str | None = None
    key_id: str | None = None


class Where(Document, frozen=True, kw_only=True):
    """The machine and engine a number belongs to; a number without them is worth nothing."""

    arch: str
    isa: list[str]
    cpu: str
    execution: str
    """`native`, `emulated:qemu-user`, `fake_quant`."""
    engine: str
    """Name and version, `onnxruntime 1.23.2`."""
    board: str | None = None
    power_mode: str | None = None
    tuned: dict[str, int | float | str] = {}


class Accuracy(Document, frozen=True, kw_only=True):
    """A task metric over a labelled set, beside the float model's on the same set."""

    metric: str
    value: float
    count: int
    float_value: float | None = msgspec.field(name="float", default=None)
    own_snr_db: float | None = None
    float_snr_db: float | None = None
    agreement: float | None = None
    """With the source model, by the task's own measure."""
    agreement_metric: str | None = None
    """`top1_agreement`, `box_agreement`, `pixel_agreement`, `cosine`, `r2_agreement`; None: `top1_agreement`."""
    cosine: float | None = None
    """Between all answers and all of the source model's."""
    range_error: float | None = None
    """Largest difference from the source model's answers over their range, of the tensor that has the greatest."""
    ci95: list[float] | None = None
    """95 % confidence interval of `value`."""


class Latency(Document, frozen=True, kw_only=True):
    """Milliseconds per call, and the ratio to the float variant measured interleaved."""

    p50: float
    p95: float
    ratio_to_float: float | None = None
    float_p50: float | None = None
    """Of the same engine's float variant, in the very calls that the ratio is from."""


class CheckResult(Document, frozen=True, kw_only=True):
    """One golden check with the number that decided it."""

    against: str
    metric: str
    value: float | None
    """None when the answer was not a number (NaN or infinite)."""
    passed: bool
    on: str | None = None
    min: float | None = None
    max: float | None = None


class Elsewhere(Document, frozen=True, kw_only=True):
    """The same variant's answers on another instruction set than the evidence's own: accuracy, never latency."""

    where: Where
    accuracy: Accuracy
    checks: list[CheckResult] = []


class Evidence(Document, frozen=True, kw_only=True):
    """A measurement, keyed by variant digest (and release digest, once there is one)."""

    schema: str = SCHEMA
    variant: Digest
    release: Digest | None
    at: str
    """RFC 3339, UTC."""
    by: By
    where: Where
    verdict: str
    """`shipped`, `passed`, `refused:<reason code>`."""
    accuracy: Accuracy | None = None
    latency_ms: Latency | None = None
    checks: list[CheckResult] = []
    elsewhere: list[Elsewhere] = []
    peak_bytes: int | None = None
    size_bytes: int | None = None
    detail: str | None = None


class EvidenceFile(Document, frozen=True, kw_only=True):
    """The converter's evidence layer: everything measured, shipped or refused, by variant id."""

    schema: str = SCHEMA
    variants: dict[str, Evidence]
    refused: dict[str, Evidence] = {}
    """Candidates that did not ship, by the id they would have had."""
