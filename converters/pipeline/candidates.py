"""One candidate from plan to verdict: compiled, asked with real kernels, compared, timed, judged."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import msgspec

from converters.building.builders import build_candidate
from converters.building.tflite_binding import find_raw_inputs
from converters.building.workshop import (
    EMULATED,
    Workshop,
    activation_bytes,
    find_absorptions,
    float_model,
    open_built,
    prepare_model,
)
from converters.caching.stages import Filled, Once
from converters.evaluation import measure
from converters.evaluation.disagreement import Example
from converters.evaluation.emulation import Emulator
from converters.passes.bake_constants import bake_constants
from converters.passes.take_branches import take_branches
from converters.pipeline.asking import Asked, ask_here, ask_itself
from converters.pipeline.material import Order
from converters.planning.age import stamp
from converters.planning.judge import (
    NOT_NEEDED,
    PREFLIGHT,
    Judgement,
    Measured,
    is_narrow_target,
    judge,
    refuse_unmeasurable,
    repeats,
)
from converters.planning.kernels import kernels_of, may_saturate
from converters.planning.planner import ACCELERATED, Candidate
from converters.planning.sensitivity import Sensitivity, explain, explain_mixed, explain_unlike
from converters.release.packaging import Measurement
from converters.release.variants import Built, for_arch, with_own, with_peak, with_resources
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.evidence import By, CheckResult, Elsewhere, Evidence, Latency, Where
from edge_runtime.inference.backend import BackendOptions, load_backend
from edge_runtime.inference.checks.golden import pack_own

MEASURED_WITH: Final = BackendOptions(threads=1)
NATIVE: Final = "native"
FAKE_QUANT: Final = "fake_quant"
_UNKEYED: Final = Digest("")


@dataclass(frozen=True, slots=True)
class Bench:
    """What trying candidates needs besides the candidate."""

    order: Order
    workshop: Once[Workshop]
    """Opened when the first candidate has to be compiled."""
    answers: Filled
    """The source model's answers to the evaluation set."""
    where: Where
    """This machine; the engine is filled in per candidate."""
    here: str | None
    """The profile whose instruction set is exactly this machine's."""
    gate: bool
    emulators: tuple[Emulator, ...] = ()

    @property
    def has_narrow_kernels(self) -> bool:
        """Whether kernels that may saturate run here, natively or emulated."""
        return may_saturate(self.where.arch, self.where.isa) or any(one.is_narrow for one in self.emulators)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """How a candidate is computed when it is asked on this machine."""

    options: BackendOptions
    kernels: str
    is_narrow: bool
    execution: str
    """As evidence says it."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """What one candidate did on this machine; nothing in it is a judgement."""

    at: str
    """RFC 3339, UTC."""
    where: Where
    here: Asked
    latency: Latency | None
    """None for what only a device can build."""
    peak_bytes: int | None
    emulated: tuple[CheckResult, ...]
    """Golden checks of the file's own float arithmetic."""


@dataclass(frozen=True, slots=True)
class Result:
    """One candidate at the end."""

    candidate: Candidate
    judgement: Judgement
    measurement: Measurement | None = None
    drop: float | None = None
    sensitivity: Sensitivity | None = None
    """Where it loses; only of what lost too much."""
    worst: tuple[Example, ...] = ()
    """Samples on which it is farthest from the source model."""
    repeats: bool = False
    """Whether its answers are the source model's but for the rounding of floats."""

    @property
    def lost(self) -> float:
        """Accuracy lost; without labels the share of answers that differ from the source model's."""
        accuracy = self.measurement.evidence.accuracy if self.measurement else None
        agreement = accuracy.agreement if accuracy else None
        return self.drop if self.drop is not None else 1.0 - (agreement or 0.0)


def open_workshop(order: Order, folder: Path, calibration: Path | None, timeout_s: float) -> Workshop:
    """Prepare the float model. Raises: BadModel, BadDataset.

    Args:
        order: what is built.
        folder: for what compilers need and make.
        calibration: folder that calibration examples were written to; None when nothing is calibrated.
        timeout_s: limit for one compilation.
    """
    material, plan = order.material, order.plan
    asked = [sample.inputs for sample in order.reference.golden.samples]
    is_tflite = isinstance(material.model, bytes)
    model, draft = material.model, material.draft
    if not is_tflite:
        model, draft = bake_constants(prepare_model(model, plan.ceiling), draft.constants), draft.without_constants()
    if draft.manifest.stream is not None and not is_tflite:
        # Sizes of a session's calls never change.
        model = take_branches(model, draft.fed_sizes())
    workshop = Workshop(
        draft=draft,
        model=model,
        absorptions={} if is_tflite else find_absorptions(draft, model, asked),
        raw_inputs=find_raw_inputs(draft),
        ceiling=plan.ceiling,
        folder=folder,
        calibration=calibration,
        timeout_s=timeout_s,
    )
    # Written once, before candidates are compiled side by side.
    float_model(workshop)
    return workshop


def compile_candidate(candidate: Candidate, bench: Bench) -> Built:
    """Compile one candidate, with what any correct silicon must say to the golden set and an estimate of its memory.

    Raises:
        CompileFailed, BadModel: there is no such file.
        InferenceError: its engine does not load it.
    """
    workshop = bench.workshop()
    built = build_candidate(candidate, workshop)
    if (emulation := _emulation_of(candidate)) is not None:
        built = _with_emulation(built, bench, emulation)
    return with_resources(built, activation_bytes(workshop.model))


def measure_candidate(built: Built, beside: Built | None, bench: Bench) -> Numbers:
    """Ask a compiled candidate everything, with real kernels; nothing else may run meanwhile.

    The source model's answers must be there (`bench.answers`).

    Args:
        built: what was compiled.
        beside: the same engine's float variant, for the latency ratio; None when this is it.
        bench: what it is measured with.

    Raises:
        InferenceError: its engine does not load or run it.
        BadDataset: a sample cannot be used.
    """
    order = bench.order
    draft, candidate = order.material.draft, built.candidate
    sample = order.reference.golden.samples[0].inputs
    # Emulation says nothing about the speed and the memory of an engine that only a device can build.
    is_real = built.manifest.build is None
    with ExitStack() as opened:
        predictor = opened.enter_context(closing(open_built(draft, built, MEASURED_WITH)))
        other = opened.enter_context(closing(open_built(draft, beside, MEASURED_WITH))) if beside else None
        said = arithmetic_of(built, bench)
        is_other = said.options != MEASURED_WITH
        asked = opened.enter_context(closing(open_built(draft, built, said.options))) if is_other else predictor
        here = ask_here(asked, built, order, kernels=said.kernels, is_narrow=said.is_narrow)
        is_timed = is_real and said.execution == NATIVE
        latency = measure.measure_latency(predictor, other, sample) if is_timed else None
        emulated = ask_itself(built, predictor, order)
    peak = measure.measure_peak(draft.manifest, built.manifest, dict(built.files), sample) if is_real else None
    return Numbers(
        at=stamp(datetime.now(timezone.utc)),
        where=_where(candidate, bench, execution=said.execution),
        here=here,
        latency=latency,
        peak_bytes=peak,
        emulated=emulated,
    )


def judge_candidate(
    built: Built, numbers: Numbers, bench: Bench, elsewhere: Sequence[tuple[Emulator, Asked]] = ()
) -> Result:
    """What becomes of a measured candidate, given what other kernels answered."""
    here, latency, limits = numbers.here, numbers.latency, bench.order.material.draft.manifest.limits
    answered = tuple(asked.answered for _, asked in elsewhere)
    p95_ms, ratio = (latency.p95, latency.ratio_to_float) if latency else (None, None)
    measured = Measured(here.answered, p95_ms, ratio, answered, numbers.emulated)
    judgement = judge(built.candidate, measured, bench.order.plan, limits, here=bench.here, gate=bench.gate)
    built = with_peak(built, numbers.peak_bytes)
    if judgement.ships:
        built = for_arch(built, judgement.arch)
    evidence = Evidence(
        variant=_UNKEYED,
        release=None,
        at=numbers.at,
        by=By(kind="build"),
        where=numbers.where,
        verdict=judgement.verdict,
        accuracy=here.accuracy,
        latency_ms=latency,
        checks=list(here.checks),
        peak_bytes=numbers.peak_bytes,
        size_bytes=sum(len(content) for content in built.files.values()),
        detail=judgement.because or None,
        elsewhere=[
            Elsewhere(where=emulator.where(numbers.where), accuracy=asked.accuracy, checks=list(asked.checks))
            for emulator, asked in elsewhere
        ],
    )
    measurement = Measurement(built, evidence)
    return Result(
        built.candidate,
        judgement,
        measurement,
        here.answered.drop,
        worst=here.worst,
        repeats=repeats(here.answered),
    )


def leave_out(result: Result, because: str) -> Result:
    """A result that passed and does not ship, because another one is better."""
    judgement = Judgement((), NOT_NEEDED, because)
    if result.measurement is None:
        return replace(result, judgement=judgement)
    evidence = msgspec.structs.replace(result.measurement.evidence, verdict=judgement.verdict, detail=because)
    return replace(result, judgement=judgement, measurement=replace(result.measurement, evidence=evidence))


def with_layers(result: Result, layers: Sensitivity) -> Result:
    """The same result with the layers it lost in, in its reason and beside it."""
    accuracy = result.measurement.evidence.accuracy if result.measurement else None
    said = explain_unlike(layers, accuracy.float_snr_db if accuracy else None)
    if not said and layers.curve:
        said = explain_mixed(layers)
    said = said or explain(layers, per_channel=result.candidate.method.per_channel)
    judgement = replace(result.judgement, because=f"{result.judgement.because}; {said}")
    return replace(result, judgement=judgement, sensitivity=layers)


def refuse_candidate(candidate: Candidate, code: str, because: str) -> Result:
    """A candidate that could not be compiled, loaded or asked."""
    return Result(candidate, Judgement((), code, because))


def refuse_unseen(candidate: Candidate, bench: Bench) -> Result | None:
    """A candidate whose accelerator refuses the model, or that nobody here can measure where it may saturate."""
    family = ACCELERATED.get(candidate.engine)
    if family is not None and (because := bench.order.material.refusals.get(family)):
        return Result(candidate, Judgement((), PREFLIGHT, because))
    refusal = refuse_unmeasurable(candidate, bench.order.plan, can_measure=bench.has_narrow_kernels)
    return Result(candidate, refusal) if refusal else None


def arithmetic_of(built: Built, bench: Bench) -> Arithmetic:
    """Which arithmetic speaks for a candidate on this machine.

    Kernels that saturate say nothing about targets whose kernels do not: there the file's own float arithmetic answers.
    """
    if built.manifest.build is not None:
        return Arithmetic(MEASURED_WITH, FAKE_QUANT, is_narrow=False, execution=FAKE_QUANT)
    kernels, is_narrow = kernels_of(bench.where.arch, bench.where.isa), may_saturate(bench.where.arch, bench.where.isa)
    if not is_narrow or is_narrow_target(built.candidate, bench.order.plan) or built.candidate.method.is_overflow_safe:
        return Arithmetic(MEASURED_WITH, kernels, is_narrow=is_narrow, execution=NATIVE)
    return Arithmetic(EMULATED, FAKE_QUANT, is_narrow=False, execution=FAKE_QUANT)


def _emulation_of(candidate: Candidate) -> BackendOptions | None:
    """How the variant's own reference is computed; None where the source model's answers are that reference."""
    if candidate.method.is_plain or (candidate.engine == "litert" and candidate.method.scheme == "source"):
        return None
    # LiteRT's kernels do not saturate, but its reference kernels round in another way after every layer: 26 dB apart
    # on a healthy MobileNet. So this machine's kernels, which the evaluation judges, are what others must agree with;
    # those of Arm do, by 42 dB and more (ADR 0008).
    return MEASURED_WITH if candidate.engine == "litert" else EMULATED


def _with_emulation(built: Built, bench: Bench, emulation: BackendOptions) -> Built:
    """Answer the golden set in the variant's own emulation: what any correct silicon must say."""
    emulator = open_built(bench.order.material.draft, built, emulation)
    try:
        asked = bench.order.reference.golden.samples
        return with_own(built, pack_own([emulator.run_decoded(one.inputs) for one in asked]))
    finally:
        emulator.close()


def _where(candidate: Candidate, bench: Bench, *, execution: str) -> Where:
    # TensorRT's files are judged here by the engine that emulates them.
    ran = "onnxruntime" if candidate.engine == "tensorrt" else candidate.engine
    engine = f"{ran} {_version(ran)}"
    return msgspec.structs.replace(bench.where, engine=engine, execution=execution)


@functools.cache
def _version(engine: str) -> str:
    fact = load_backend(engine).probe()
    return fact.version if fact else "unknown"
