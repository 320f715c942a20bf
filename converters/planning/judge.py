"""Which measured candidates may ship, to which architectures, and which targets are left without one; pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from converters.planning.kernels import UNMEASURED, is_same_speed_class, may_saturate, speed_extensions
from converters.planning.planner import Candidate, Plan
from converters.planning.recipe import Prefer
from devices.catalogue import aliases_of
from edge_runtime.contract import reasons
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.release import Limits, limit_for

ACCURACY: Final = "accuracy"
DIFFERS: Final = "differs"
COMPILE_FAILED: Final = "compile_failed"
NOT_NEEDED: Final = "not_needed"
PREFLIGHT: Final = "preflight"
SATURATION: Final = "saturation"
LOSSES: Final = frozenset({ACCURACY, DIFFERS, reasons.GOLDEN_FAILED, reasons.TRUTH_FAILED})
"""Refusals for what quantisation itself lost, whatever the silicon."""
PARITY: Final = 1e-4
"""Of its range an answer of a float variant may differ. Sums in another order cost 1e-5 and less, as measured on every
float model of the tests by three engines; a weight stored as fp16 costs 1e-3."""
SLOWER_MARGIN: Final = 1.03
"""Ratios within interleaved pairs agree within about 3 %: less is no difference."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a candidate answered with one kind of kernels."""

    kernels: str
    """Their kind, and how they ran when not natively."""
    is_narrow: bool
    """Whether they may saturate."""
    checks: tuple[CheckResult, ...]
    drop: float | None
    """Metric of the source model minus the candidate's; None without labels."""
    agreement: float
    """With the source model, by the task's own measure."""
    snr_db: float = math.inf
    """Against the source model's answers, over the evaluation set."""
    range_error: float | None = None
    """Largest difference over the range of the source model's answers; None where no answer is a float."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Numbers of one candidate: this machine's first, and others' where they can be emulated."""

    here: Answered
    p95_ms: float | None
    """None where nothing was timed: an engine that only a device can build."""
    ratio: float | None
    """Latency over that of the same engine's float variant; None for the float variant itself."""
    elsewhere: tuple[Answered, ...] = ()
    emulated: tuple[CheckResult, ...] = ()
    """The file's own float arithmetic against the source model: what quantisation loses, whatever the kernels."""


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
        here: the profile whose instruction set is exactly this machine's; latency counts for its architecture only.
        gate: False when the engineer switched the accuracy gate off: silicon is still judged, loss is not.
    """
    if gate and (failed := _failed(measured.emulated, "float")):
        # Kernels are not to blame for a file that is wrong in exact arithmetic.
        return Judgement((), reasons.GOLDEN_FAILED, f"too far from the source model: {failed}")
    if refusal := _wrong_kernels(candidate, measured):
        return refusal
    if gate and (refusal := _untrue(measured)):
        return refusal
    if candidate.id == plan.anchor:
        return Judgement(candidate.arch)
    if gate and (unlike := _unlike(candidate, measured.here, plan.prefer)):
        return Judgement((), DIFFERS, unlike)
    if gate:
        for answered in (measured.here, *measured.elsewhere):
            if failed := _failed(answered.checks, "float"):
                because = f"too far from the source model on {answered.kernels}: {failed}"
                return Judgement((), reasons.GOLDEN_FAILED, because)
            if lost := _lost(candidate, answered, limits):
                return Judgement((), ACCURACY, f"{lost} ({answered.kernels})")
    slow = _slow(candidate, measured, plan, limits, here)
    if not slow:
        return Judgement(candidate.arch)
    measured_arch = next(profile.arch for profile in plan.profiles if profile.id == here)
    elsewhere = tuple(arch for arch in candidate.arch if arch != measured_arch)
    return Judgement(elsewhere, reasons.TOO_SLOW, f"on {measured_arch} {slow}")


def refuse_unmeasurable(candidate: Candidate, plan: Plan, *, can_measure: bool) -> Judgement | None:
    """A refusal, before anything is built, where some target's kernels may saturate on a file and nobody can look.

    Args:
        candidate: what would be built.
        plan: for its targets.
        can_measure: whether kernels that may saturate run here, natively or emulated.
    """
    narrow = [] if candidate.method.is_overflow_safe or can_measure else _narrow_targets(candidate, plan)
    if not narrow:
        return None
    because = (
        f"8-bit weights may saturate in the kernels of {', '.join(narrow)}, which do not run here; "
        "qemu-user measures them, unless --no-emulate is said"
    )
    return Judgement((), UNMEASURED, because)


def is_narrow_target(candidate: Candidate, plan: Plan) -> bool:
    """Whether some target of a candidate has kernels that may saturate."""
    return bool(_narrow_targets(candidate, plan))


def same_instructions(plan: Plan, arch: str, isa: Collection[str]) -> str | None:
    """The target whose instruction set is exactly a machine's, so that the machine's latency counts for it."""
    alike = (one.id for one in plan.profiles if one.arch == arch and is_same_speed_class(one.isa, isa))
    return next(alike, None)


def unjudged_latency(plan: Plan, arch: str, isa: Collection[str]) -> list[str]:
    """Why a machine's latency refuses nothing in this build; empty where it counts, or nobody asked for it."""
    if plan.prefer != "latency" or same_instructions(plan, arch, isa) is not None:
        return []
    alike = next((profile for profile in plan.profiles if profile.arch == arch), None)
    if alike is None:
        because = f"no target is {arch} as this machine is"
    else:
        here, there = speed_extensions(isa), speed_extensions(alike.isa)
        more, less = " ".join(sorted(here - there)), " ".join(sorted(there - here))
        differences = [f"has {more} besides" if more else "", f"lacks {less}" if less else ""]
        promised = " ".join(sorted(there)) or "no extension"
        because = f"{alike.id} promises {promised}, this machine {' and '.join(filter(None, differences))}"
    return [f"latency is not judged: {because}. Times are shown and refuse nothing; devices decide by their own"]


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
        elif bound is not None and profile.id == here and all(p95_ms.get(one, 0.0) > bound for one in serving):
            best = min(p95_ms[one] for one in serving)
            failed[profile.id] = f"the fastest variant takes {best:.2f} ms (p95), the limit is {bound:g} ms"
    return failed


def describe_check(check: CheckResult) -> str:
    """One golden check for a person."""
    unit, digits = (" dB", 1) if check.metric.endswith("_db") else ("", 3)
    value = "not a number" if check.value is None else f"{check.value:.{digits}f}"
    bound = f"at least {check.min:g}" if check.min is not None else f"at most {check.max:g}" if check.max else ""
    return f"{check.metric} against {check.against} is {value}{unit}, {bound} is asked"


def _failed(checks: Sequence[CheckResult], against: str) -> str:
    return "; ".join(describe_check(check) for check in checks if check.against == against and not check.passed)


def _wrong_kernels(candidate: Candidate, measured: Measured) -> Judgement | None:
    """A refusal for kernels that answer otherwise than the file's own arithmetic; saturation explains most."""
    found = [_mismatch(candidate, answered) for answered in (measured.here, *measured.elsewhere)]
    refusals = [refusal for refusal in found if refusal is not None]
    return min(refusals, key=lambda refusal: refusal.code != SATURATION, default=None)


def _mismatch(candidate: Candidate, answered: Answered) -> Judgement | None:
    """A refusal where kernels answer otherwise than the file's own float arithmetic; None where they do not."""
    failed = _failed(answered.checks, "own")
    if not failed:
        return None
    if candidate.method.is_quantised and answered.is_narrow and not candidate.method.is_overflow_safe:
        score = "" if answered.drop is None else f"; accuracy drops by {answered.drop:.4f} there"
        because = f"saturation: 16-bit sums of the 8-bit kernels of {answered.kernels} overflow ({failed}){score}"
        return Judgement((), SATURATION, because)
    because = (
        f"kernels of {answered.kernels} differ from the file's own arithmetic: {failed}; where that is how the engine "
        "rounds, the recipe may ask for less (golden.own_snr_min)"
    )
    return Judgement((), reasons.KERNEL_MISMATCH, because)


def _untrue(measured: Measured) -> Judgement | None:
    """A refusal where the labels of the golden set contradict the answers: every device would refuse the variant."""
    for answered in (measured.here, *measured.elsewhere):
        if failed := _failed(answered.checks, "truth"):
            because = f"the golden set's labels contradict its answers on {answered.kernels}: {failed}"
            return Judgement((), reasons.TRUTH_FAILED, because)
    return None


def _narrow_targets(candidate: Candidate, plan: Plan) -> list[str]:
    return [
        profile.id
        for profile in plan.profiles
        if profile.id in candidate.profiles and may_saturate(profile.arch, profile.isa)
    ]


def repeats(answered: Answered) -> bool:
    """Whether answers are the source model's but for the rounding of floats; True where they hold no float."""
    return answered.range_error is None or answered.range_error <= PARITY


def _unlike(candidate: Candidate, answered: Answered, prefer: Prefer) -> str:
    """Why a variant is no float variant of the source model; empty where it is, or need not be one."""
    # Who prefers size takes fp16 weights for what they lose, judged by the limits as int8 is.
    is_lossy = prefer == "size" and not candidate.method.is_plain
    if candidate.precision != "float32" or is_lossy or repeats(answered):
        return ""
    return (
        f"an answer differs from the source model's by {answered.range_error:.1g} of its range; of a float variant "
        f"{PARITY:g} is the most"
    )


def _lost(candidate: Candidate, measured: Answered, limits: Limits) -> str:
    """The strictest bound of the candidate's profiles that it breaks; empty when none."""
    for profile in candidate.profiles:
        aliases = aliases_of(profile)
        drop = limit_for(limits.max_drop, profile, aliases)
        # Written so that what is not a number is never within a bound.
        if drop is not None and measured.drop is not None and not measured.drop <= drop + 1e-9:
            return f"accuracy drops by {measured.drop:.4f}, {profile} allows {drop:g}"
        agreement = limit_for(limits.min_agreement, profile, aliases)
        if agreement is not None and not measured.agreement >= agreement - 1e-9:
            return f"it agrees with the source model on {measured.agreement:.4f}, {profile} asks for {agreement:g}"
        snr = limit_for(limits.min_snr_db, profile, aliases)
        if snr is not None and not measured.snr_db >= snr - 1e-9:
            return f"its answers are {measured.snr_db:.1f} dB from the source model's, {profile} asks for {snr:g} dB"
    return ""


def _slow(candidate: Candidate, measured: Measured, plan: Plan, limits: Limits, here: str | None) -> str:
    """Why the candidate is too slow where it was measured; empty when it is not, or the target is another machine."""
    if here is None or here not in candidate.profiles:
        return ""
    bound = limit_for(limits.latency_p95_ms, here, aliases_of(here))
    if bound is not None and measured.p95_ms is not None and measured.p95_ms > bound:
        return f"it takes {measured.p95_ms:.2f} ms (p95), the limit is {bound:g} ms"
    if plan.prefer == "latency" and measured.ratio is not None and measured.ratio > SLOWER_MARGIN:
        return f"it takes {measured.ratio:.2f} times as long as float"
    return ""
