"""One candidate from plan to verdict: compiled, asked with real kernels, compared, timed, judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from converters import measure
from converters.building import build_candidate
from converters.errors import CompileFailed
from converters.evaluate import Evaluated, evaluate
from converters.judge import COMPILE_FAILED, Judgement, Measured, judge
from converters.material import Order
from converters.packaging import Measurement
from converters.planner import Candidate
from converters.variants import Built, for_arch, with_own, with_resources
from converters.workshop import (
    EMULATED,
    Workshop,
    activation_bytes,
    find_absorptions,
    find_raw_inputs,
    open_built,
    prepare_model,
)
from edge_runtime.contract import reasons
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.evidence import Accuracy, By, CheckResult, Evidence, Where
from edge_runtime.inference.arrays import write_npz
from edge_runtime.inference.backend import BackendOptions
from edge_runtime.inference.golden import load_own, pack_own, run_golden
from edge_runtime.inference.predictor import Predictor

MEASURED_WITH: Final = BackendOptions(threads=1)
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
    """Profile of this machine."""
    gate: bool
    at: str


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
    finally:
        predictor.close()
        if float_predictor:
            float_predictor.close()


def _measured(
    built: Built, predictor: Predictor, beside: Predictor | None, bench: Bench
) -> tuple[Result, Built | None]:
    material, reference = bench.order.material, bench.order.reference
    candidate = built.candidate
    evaluated = evaluate(predictor, reference.examination)
    own = load_own(built.own) if built.own is not None else None
    checks = run_golden(predictor, reference.golden, reference.spec, own)
    sample = reference.golden.samples[0].inputs
    latency = measure.measure_latency(predictor, beside, sample)
    peak = measure.measure_peak(material.draft.manifest, built.manifest, dict(built.files), sample)
    accuracy, drop = _accuracy(evaluated, checks, bench)
    measured = Measured(
        checks=tuple(_judged(checks, bench)),
        drop=drop,
        agreement=accuracy.agreement or 0.0,
        p95_ms=latency.p95,
        ratio=latency.ratio_to_float,
    )
    limits = material.draft.manifest.limits
    judgement = judge(candidate, measured, bench.order.plan, limits, here=bench.here, gate=bench.gate)
    built = with_resources(built, activation_bytes(bench.workshop.model), peak)
    if judgement.ships:
        built = for_arch(built, judgement.arch)
    evidence = msgspec.structs.replace(
        _evidence(built, bench, judgement), accuracy=accuracy, latency_ms=latency, checks=checks, peak_bytes=peak
    )
    return Result(candidate, judgement, Measurement(built, evidence), drop), built


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


def _accuracy(evaluated: Evaluated, checks: list[CheckResult], bench: Bench) -> tuple[Accuracy, float | None]:
    reference = bench.order.reference.score
    shown, drop = evaluated.score or evaluated.agreement, None
    if evaluated.score is not None and reference is not None:
        drop = evaluated.score.lost_from(reference.value)
    accuracy = Accuracy(
        metric=shown.metric,
        value=round(shown.value, 6),
        count=shown.count,
        float_value=reference.value if reference else None,
        # Of the golden set: emulation is far too slow for the whole evaluation set.
        own_snr_db=next((one.value for one in checks if one.against == "own" and one.metric == "snr_db"), None),
        float_snr_db=_finite(evaluated.snr_db),
        agreement=round(evaluated.agreement.value, 6),
        agreement_metric=evaluated.agreement.metric,
        cosine=_finite(evaluated.cosine, 6),
        ci95=[round(bound, 4) for bound in shown.ci95] if shown.ci95 else None,
    )
    return accuracy, None if drop is None else round(drop, 6) + 0.0


def _judged(checks: list[CheckResult], bench: Bench) -> list[CheckResult]:
    """Where the source model itself was allowed to contradict the labels, no variant is blamed for it."""
    is_waived = any(waiver.check == "golden" for waiver in bench.order.reference.waivers)
    return [check for check in checks if not (is_waived and check.against == "truth")]


def _evidence(built: Built, bench: Bench, judgement: Judgement) -> Evidence:
    engine = built.candidate.engine
    where = msgspec.structs.replace(bench.where, engine=f"{engine} {bench.engines.get(engine, 'unknown')}")
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


def _finite(value: float, digits: int = 2) -> float | None:
    return round(value, digits) if np.isfinite(value) else None
