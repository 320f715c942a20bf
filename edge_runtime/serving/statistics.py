"""What a served version has done so far, in the terms in which inference servers report it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge_runtime.inference.requests.accounting import ANSWERED_NS, FAILED_NS, WAITED_NS, Accounting
from edge_runtime.inference.requests.statistics import Histogram, statistics_of


@dataclass(frozen=True, slots=True)
class Spent:
    """How often something happened and how long it took in all."""

    count: int = 0
    ns: int = 0


@dataclass(frozen=True, slots=True)
class ServedStatistics:
    """Counters of one version since it was first loaded; they outlive unloading, reloading and falling back."""

    success: Spent
    """Calls that were answered, waiting included."""
    fail: Spent
    """Calls that were begun and not answered, waiting included, and those that were turned away, without their time."""
    queue: Spent
    """Waiting of the calls that were answered: for the model, and for others to share a run with."""
    compute_input: Spent
    """Decoding and preprocessing."""
    compute_infer: Spent
    """Inside the engine."""
    compute_output: Spent
    """Postprocessing."""
    inference_count: int
    """Samples answered."""
    execution_count: int
    """Runs of the engine; fewer than samples where it took several at once."""
    last_inference_ms: int
    """Wall clock, milliseconds since 1970; 0: never."""
    bad_input: int
    """Calls with names, shapes, dtypes or bytes that the model does not take; the caller is to blame."""
    expired: int
    """Calls whose deadline passed before they ran."""
    cancelled: int
    rejected: int
    """Calls that met a full queue."""
    faults: int
    """Times that a variant or its engine was to blame; a call that another one answered then is a success as well."""
    stages: Mapping[str, Histogram]
    """Durations by stage: `queue`, `prepare`, `run`, `interpret`."""


def read_statistics(accounting: Accounting, *, last_inference_ms: int) -> ServedStatistics:
    """What was counted, as clients are told."""
    counted = statistics_of(accounting)
    stages = counted.stages
    steps = [Spent(stages[name].count, stages[name].total_ns) for name in ("prepare", "run", "interpret")]
    turned_away = counted.expired + counted.cancelled + counted.rejected
    return ServedStatistics(
        # Of answered calls alone: who divides time by count must not be told the time of others.
        success=Spent(counted.success, accounting.total(ANSWERED_NS)),
        fail=Spent(counted.failed + counted.bad_input + turned_away, accounting.total(FAILED_NS)),
        queue=Spent(counted.success, accounting.total(WAITED_NS)),
        compute_input=steps[0],
        compute_infer=steps[1],
        compute_output=steps[2],
        inference_count=counted.samples,
        execution_count=stages["run"].count,
        last_inference_ms=last_inference_ms,
        bad_input=counted.bad_input,
        expired=counted.expired,
        cancelled=counted.cancelled,
        rejected=counted.rejected,
        faults=counted.faults,
        stages=stages,
    )
