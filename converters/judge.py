"""Which measured candidates may ship, to which architectures, and which targets are left without one; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from converters.planner import Candidate, Plan
from devices.catalogue import aliases_of
from edge_runtime.contract import reasons
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.release import Limits, limit_for

ACCURACY: Final = "accuracy"
COMPILE_FAILED: Final = "compile_failed"
NOT_NEEDED: Final = "not_needed"
SLOWER_MARGIN: Final = 1.03
"""Interleaved measurements agree within about 3 %: less is no difference."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Numbers of one candidate, from this machine's real kernels."""

    checks: tuple[CheckResult, ...]
    drop: float | None
    """Metric of the source model minus the candidate's; None without labels."""
    agreement: float
    p95_ms: float
    ratio: float | None
    """Latency over that of the same engine's float variant; None for the float variant itself."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of a candidate."""

    arch: tuple[str, ...]
    """Architectures it may ship to; empty: refused."""
    code: str | None = None
    because: str = ""

    @property
    def ships(self) -> bool:
        """Whether the candidate is part of the release."""
        return bool(self.arch)

    @property
    def verdict(self) -> str:
        """As evidence carries it."""
        if self.code == NOT_NEEDED:
            return f"skipped:{self.code}"
        return "shipped" if self.ships else f"refused:{self.code}"


def judge(
    candidate: Candidate, measured: Measured, plan: Plan, limits: Limits, *, here: str | None, gate: bool
) -> Judgement:
    """Judge one candidate.

    Args:
        candidate: what was built.
        measured: what it did here.
        plan: profiles and preference of the build.
        limits: bounds by profile, alias or `*`.
        here: profile of this machine; its latency counts for that profile's architecture only.
        gate: False when the engineer switched the accuracy gate off: silicon is still judged, loss is not.
    """
    if failed := _failed(measured.checks, "own"):
        return Judgement((), reasons.KERNEL_MISMATCH, f"kernels differ from the file's own arithmetic: {failed}")
    if candidate.id == plan.anchor:
        return Judgement(candidate.arch)
    if gate:
        if failed := _failed(measured.checks, "float"):
            return Judgement((), reasons.GOLDEN_FAILED, f"too far from the source model: {failed}")
        if lost := _lost(candidate, measured, limits):
            return Judgement((), ACCURACY, lost)
    slow = _slow(candidate, measured, plan, limits, here)
    if not slow:
        return Judgement(candidate.arch)
    measured_arch = next(profile.arch for profile in plan.profiles if profile.id == here)
    elsewhere = tuple(arch for arch in candidate.arch if arch != measured_arch)
    return Judgement(elsewhere, reasons.TOO_SLOW, f"on {measured_arch} {slow}")


def failed_targets(
    plan: Plan,
    shipped: Mapping[VariantId, Judgement],
    p95_ms: Mapping[VariantId, float],
    limits: Limits,
    *,
    here: str | None,
) -> dict[str, str]:
    """Profiles that no shipped variant serves, with the reason."""
    failed: dict[str, str] = {}
    for profile in plan.profiles:
        serving = [
            candidate.id
            for candidate in plan.candidates
            if profile.id in candidate.profiles
            and candidate.id in shipped
            and profile.arch in shipped[candidate.id].arch
        ]
        bound = limit_for(limits.latency_p95_ms, profile.id, aliases_of(profile.id))
        if not serving:
            failed[profile.id] = "no candidate passed"
        elif bound is not None and profile.id == here and all(p95_ms[variant] > bound for variant in serving):
            best = min(p95_ms[variant] for variant in serving)
            failed[profile.id] = f"the fastest variant takes {best:.2f} ms (p95), the limit is {bound:g} ms"
    return failed


def describe_check(check: CheckResult) -> str:
    """One golden check for a person."""
    value = "not a number" if check.value is None else f"{check.value:.1f}"
    unit = " dB" if check.metric.endswith("_db") else ""
    bound = f"at least {check.min:g}" if check.min is not None else f"at most {check.max:g}" if check.max else ""
    return f"{check.metric} against {check.against} is {value}{unit}, {bound} is asked"


def _failed(checks: Sequence[CheckResult], against: str) -> str:
    return "; ".join(describe_check(check) for check in checks if check.against == against and not check.passed)


def _lost(candidate: Candidate, measured: Measured, limits: Limits) -> str:
    """The strictest bound of the candidate's profiles that it breaks; empty when none."""
    for profile in candidate.profiles:
        aliases = aliases_of(profile)
        drop = limit_for(limits.max_drop, profile, aliases)
        if drop is not None and measured.drop is not None and measured.drop > drop + 1e-9:
            return f"accuracy drops by {measured.drop:.4f}, {profile} allows {drop:g}"
        agreement = limit_for(limits.min_agreement, profile, aliases)
        if agreement is not None and measured.agreement < agreement - 1e-9:
            return f"it agrees with the source model on {measured.agreement:.4f}, {profile} asks for {agreement:g}"
    return ""


def _slow(candidate: Candidate, measured: Measured, plan: Plan, limits: Limits, here: str | None) -> str:
    """Why the candidate is too slow where it was measured; empty when it is not, or the target is another machine."""
    if here is None or here not in candidate.profiles:
        return ""
    bound = limit_for(limits.latency_p95_ms, here, aliases_of(here))
    if bound is not None and measured.p95_ms > bound:
        return f"it takes {measured.p95_ms:.2f} ms (p95), the limit is {bound:g} ms"
    if plan.prefer == "latency" and measured.ratio is not None and measured.ratio > SLOWER_MARGIN:
        return f"it takes {measured.ratio:.2f} times as long as float"
    return ""
