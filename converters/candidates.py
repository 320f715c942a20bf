"""One candidate from plan to verdict: compiled, asked with real kernels, compared, timed, judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from converters import measure
from converters.asking import Asked, ask_elsewhere, ask_here
from converters.building import build_candidate
from converters.emulation import EXECUTION, Emulator
from converters.errors import CompileFailed
from converters.judge import COMPILE_FAILED, Judgement, Measured, is_narrow_target, judge, refuse_unmeasurable
from converters.kernels import kernels_of, may_saturate
from converters.material import Order
from converters.packaging import Measurement
from converters.planner import Candidate
from converters.tflite_binding import find_raw_inputs
from converters.variants import Built, for_arch, with_own, with_resources
from converters.workshop import (
    EMULATED,
    Workshop,
    activation_bytes,
    find_absorptions,
    open_built,
    prepare_model,
)
from edge_runtime.contract import reasons
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.evidence import By, Elsewhere, Evidence, Where
from edge_runtime.inference.arrays import write_npz
from edge_runtime.inference.backend import BackendOptions
from edge_runtime.inference.golden import pack_own
from edge_runtime.inference.predictor import Predictor

MEASURED_WITH: Final = BackendOptions(threads=1)
FAKE_QUANT: Final = "fake_quant"
_UNKEYED: Final = Digest("")


@dataclass(frozen=True, slots=True)
class Bench:
    """What measuring needs besides the candidate."""

    order: Order
    workshop: Workshop
    where: Where
    """This machine; the engine is filled in per candidate."""
    engines: Mapping[str, str]
    """Version by engine name."""
    here: str | None
    """The profile whose instruction set is exactly this machine's."""
    gate: bool
    at: str
    emulators: tuple[Emulator, ...] = ()

    @property
    def has_narrow_kernels(self) -> bool:
        """Whether kernels that may saturate run here, natively or emulated."""
        return may_saturate(self.where.arch, self.where.isa) or any(one.is_narrow for one in self.emulators)


@dataclass(frozen=True, slots=True)
class Result:
    """One candidate at the end."""

    candidate: Candidate
    judgement: Judgement
    measurement: Measurement | None = None
    drop: float | None = None

    @property
    def lost(self) -> float:
        """Accuracy lost; without labels the share of answers that differ from the source model's."""
        accuracy = self.measurement.evidence.accuracy if self.measurement else None
        agreement = accuracy.agreement if accuracy else None
        return self.drop if self.drop is not None else 1.0 - (agreement or 0.0)


def open_workshop(order: Order, folder: Path, timeout_s: float) -> Workshop:
    """Prepare the float model and write the calibration samples, one file each. Raises: BadModel, BadDataset."""
    material, plan = order.material, order.plan
    calibration = None
    if material.calibration is not None:
        calibration = folder / "calibration"
        calibration.mkdir()
        for number, sample in enumerate(material.calibration.prepared(material.preprocessor)):
            named = {material.draft.inputs[name]: array for name, array in sample.canonical.items()}
            (calibration / f"{number:06d}.npz").write_bytes(write_npz(named))
    asked = [sample.inputs for sample in order.reference.golden.samples]
    is_tflite = isinstance(material.model, bytes)
    model = material.model if is_tflite else prepare_model(material.model, plan.ceiling)
    return Workshop(
        draft=material.draft,
        model=model,
        absorptions={} if is_tflite else find_absorptions(material.draft, model, asked),
        raw_inputs=find_raw_inputs(material.draft),
        ceiling=plan.ceiling,
        folder=folder,
        calibration=calibration,
        timeout_s=timeout_s,
    )


def try_candidate(candidate: Candidate, bench: Bench, beside: Built | None) -> tuple[Result, Built | None]:
    """Compile, measure and judge one candidate.

    Args:
        candidate: what to try.
        bench: what it is tried with.
        beside: the same engine's float variant, for the latency ratio; None when this is it.
    """
    release = bench.order.material.draft.manifest
    if refusal := refuse_unmeasurable(candidate, bench.order.plan, can_measure=bench.has_narrow_kernels):
        return Result(candidate, refusal), None
    try:
        built = build_candidate(candidate, bench.workshop)
        if (emulation := _emulation_of(candidate)) is not None:
            built = _with_emulation(built, bench, emulation)
        predictor = open_built(release, built, MEASURED_WITH)
    except CompileFailed as error:
        return Result(candidate, Judgement((), COMPILE_FAILED, error.because)), None
    except InferenceError as error:
        return Result(candidate, Judgement((), reasons.LOAD_FAILED, error.because)), None
    float_predictor = open_built(release, beside, MEASURED_WITH) if beside else None
    try:
        return _measured(built, predictor, float_predictor, bench)
    except InferenceError as error:
        return Result(candidate, Judgement((), reasons.GOLDEN_FAILED, error.because)), None
    finally:
        predictor.close()
        if float_predictor:
            float_predictor.close()


def _measured(
    built: Built, predictor: Predictor, beside: Predictor | None, bench: Bench
) -> tuple[Result, Built | None]:
    order = bench.order
    release, candidate = order.material.draft.manifest, built.candidate
    here, execution = _ask_here(built, predictor, bench)
    elsewhere = _ask_elsewhere(built, predictor, bench)
    sample = order.reference.golden.samples[0].inputs
    latency = measure.measure_latency(predictor, beside, sample)
    peak = measure.measure_peak(release, built.manifest, dict(built.files), sample)
    measured = Measured(
        here.answered, latency.p95, latency.ratio_to_float, tuple(asked.answered for _, asked in elsewhere)
    )
    judgement = judge(candidate, measured, order.plan, release.limits, here=bench.here, gate=bench.gate)
    built = with_resources(built, activation_bytes(bench.workshop.model), peak)
    if judgement.ships:
        built = for_arch(built, judgement.arch)
    where = _where(candidate, bench, execution=execution)
    evidence = msgspec.structs.replace(
        _evidence(built, bench, judgement, where),
        accuracy=here.accuracy,
        latency_ms=latency,
        checks=list(here.checks),
        peak_bytes=peak,
        elsewhere=[
            Elsewhere(where=_emulated(emulator, where), accuracy=asked.accuracy, checks=list(asked.checks))
            for emulator, asked in elsewhere
        ],
    )
    return Result(candidate, judgement, Measurement(built, evidence), here.answered.drop), built


def _ask_here(built: Built, predictor: Predictor, bench: Bench) -> tuple[Asked, str]:
    """Answers of this machine's kernels, and how they ran.

    Kernels that saturate say nothing about targets whose kernels do not: there the file's own float arithmetic answers.
    """
    kernels, is_narrow = kernels_of(bench.where.arch, bench.where.isa), may_saturate(bench.where.arch, bench.where.isa)
    if not is_narrow or is_narrow_target(built.candidate, bench.order.plan) or built.candidate.method.is_overflow_safe:
        return ask_here(predictor, built, bench.order, kernels=kernels, is_narrow=is_narrow), "native"
    emulating = open_built(bench.order.material.draft.manifest, built, EMULATED)
    try:
        return ask_here(emulating, built, bench.order, kernels=FAKE_QUANT, is_narrow=False), FAKE_QUANT
    finally:
        emulating.close()


def _ask_elsewhere(built: Built, predictor: Predictor, bench: Bench) -> list[tuple[Emulator, Asked]]:
    """Answers of the targets' other kernels, as far as they can be emulated and may differ."""
    candidate, answers = built.candidate, []
    for emulator in bench.emulators if candidate.method.is_quantised else ():
        # What is safe by construction answers on every x86 as it does here.
        is_alike = candidate.method.is_overflow_safe or not is_narrow_target(candidate, bench.order.plan)
        if emulator.arch not in candidate.arch or (emulator.is_narrow and is_alike):
            continue
        folder = bench.workshop.folder / f"{candidate.id}-{emulator.arch}"
        answers.append((emulator, ask_elsewhere(emulator, built, predictor, bench.order, folder)))
    return answers


def _emulation_of(candidate: Candidate) -> BackendOptions | None:
    """How the variant's own reference is computed; None where the source model's answers are that reference."""
    if candidate.precision == "float32" or (candidate.engine == "litert" and candidate.method.scheme == "source"):
        return None
    # LiteRT's kernels do not saturate, but its reference kernels round in another way after every layer: 26 dB apart
    # on a healthy MobileNet. So this machine's kernels, which the evaluation judges, are what others must agree with.
    return MEASURED_WITH if candidate.engine == "litert" else EMULATED


def _with_emulation(built: Built, bench: Bench, emulation: BackendOptions) -> Built:
    """Answer the golden set in the variant's own emulation: what any correct silicon must say."""
    emulator = open_built(bench.order.material.draft.manifest, built, emulation)
    try:
        asked = bench.order.reference.golden.samples
        return with_own(built, pack_own([emulator.run_decoded(one.inputs) for one in asked]))
    finally:
        emulator.close()


def _where(candidate: Candidate, bench: Bench, *, execution: str) -> Where:
    engine = f"{candidate.engine} {bench.engines.get(candidate.engine, 'unknown')}"
    return msgspec.structs.replace(bench.where, engine=engine, execution=execution)


def _emulated(emulator: Emulator, where: Where) -> Where:
    return msgspec.structs.replace(
        where, arch=emulator.arch, isa=list(emulator.isa), cpu=emulator.kernels, execution=EXECUTION
    )


def _evidence(built: Built, bench: Bench, judgement: Judgement, where: Where) -> Evidence:
    return Evidence(
        variant=_UNKEYED,
        release=None,
        at=bench.at,
        by=By(kind="build"),
        where=where,
        verdict=judgement.verdict,
        size_bytes=sum(len(content) for content in built.files.values()),
        detail=judgement.because or None,
    )
