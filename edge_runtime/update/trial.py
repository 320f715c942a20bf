"""Judges a trial: did the candidate pass on this device, and if not, what does the failure mean? Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edge_runtime.contract import reasons
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.update.ports import TrialMeasurement
from edge_runtime.update.states import Passed

WIN_MARGIN: Final = 0.03
"""A later candidate replaces an earlier one only when it is faster by more than this share: less is noise."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a candidate must hold on this device."""

    checks: int
    """How many golden checks the release asks for."""
    own_is_float: bool
    """The variant brings no reference of its own: its `own` checks compare with the float model."""
    latency_p95_ms: float | None = None
    max_latency_ratio: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The candidate may run."""

    p50_ms: float
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The candidate must not run."""

    code: str
    detail: str


Verdict = Accepted | Refused


def judge(measurement: TrialMeasurement, bounds: Bounds) -> Verdict:
    """Decide about one candidate; anything missing or not a number counts against it."""
    if measurement.failure is not None:
        return Refused(measurement.failure.code, measurement.failure.detail)
    if refusal := _judge_answers(measurement.checks, bounds):
        return refusal
    if bounds.memory_bytes is not None and (measurement.peak_bytes or 0) > bounds.memory_bytes:
        return Refused(
            reasons.MEMORY, f"it needed {measurement.peak_bytes} bytes, the device grants {bounds.memory_bytes}"
        )
    return _judge_latency(measurement, bounds)


def choose_fastest(passed: Iterable[Passed]) -> Passed | None:
    """The candidate to activate, the earlier one where the difference is within noise; None when none passed."""
    best: Passed | None = None
    for one in passed:
        if best is None or _is_faster(one, best):
            best = one
    return best


def _judge_answers(checks: tuple[CheckResult, ...], bounds: Bounds) -> Refused | None:
    failed = [check for check in checks if not check.passed]
    detail = "; ".join(_describe(check) for check in failed)
    against = {check.against for check in failed}
    if "own" in against and not bounds.own_is_float:
        # The emulation of this very file passed when it was built, so it is this machine's kernels that differ.
        return Refused(reasons.KERNEL_MISMATCH, detail)
    if "truth" in against and (bounds.own_is_float or against == {"truth"}):
        # A float variant has no quantisation to blame: answers against the labels say most.
        return Refused(reasons.TRUTH_FAILED, detail)
    if failed:
        return Refused(reasons.GOLDEN_FAILED, detail)
    if len(checks) != bounds.checks:
        return Refused(reasons.GOLDEN_FAILED, f"{len(checks)} of {bounds.checks} golden checks were made")
    return None


def _judge_latency(measurement: TrialMeasurement, bounds: Bounds) -> Verdict:
    p50, p95 = measurement.p50_ms, measurement.p95_ms
    if p50 is None or p95 is None or not (math.isfinite(p50) and math.isfinite(p95)):
        return Refused(reasons.INTERNAL, "the trial measured no latency")
    if bounds.latency_p95_ms is not None and p95 > bounds.latency_p95_ms:
        return Refused(reasons.TOO_SLOW, f"p95 {p95:.3g} ms exceeds the limit of {bounds.latency_p95_ms:g} ms")
    running = measurement.running_p50_ms
    ratio = p50 / running if running is not None and running > 0 else None
    if bounds.max_latency_ratio is not None and ratio is not None and ratio > bounds.max_latency_ratio:
        return Refused(
            reasons.TOO_SLOW, f"{ratio:.3g} times the running model's latency exceeds {bounds.max_latency_ratio:g}"
        )
    return Accepted(p50, ratio)


def _describe(check: CheckResult) -> str:
    bounds = [f"min {check.min:g}"] if check.min is not None else []
    bounds += [f"max {check.max:g}"] if check.max is not None else []
    value = "not a number" if check.value is None else f"{check.value:.4g}"
    on = f" on {check.on}" if check.on else ""
    return f"{check.metric}{on} against {check.against} is {value} ({', '.join(bounds) or 'no bound'})"


def _is_faster(one: Passed, best: Passed) -> bool:
    if one.ratio is not None and best.ratio is not None:
        return one.ratio < best.ratio * (1 - WIN_MARGIN)
    return one.p50_ms < best.p50_ms * (1 - WIN_MARGIN)
