"""Tries candidates in rounds: what a round needs is compiled side by side, then measured one after the other.

Nothing runs beside a measurement: its latency would be that of a busy machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, TypeVar

from converters.building.diagnosis import can_diagnose, diagnose
from converters.caching.stages import Stages
from converters.compilers.isolated import MEMORY_BYTES, stop_compilers
from converters.compilers.outside import lies_outside
from converters.errors import CompileFailed, CompilerRefused
from converters.evaluation.emulation import Emulator
from converters.pipeline.asking import Asked
from converters.pipeline.candidates import (
    Bench,
    Numbers,
    Result,
    compile_candidate,
    judge_candidate,
    leave_out,
    measure_candidate,
    refuse_candidate,
    refuse_unseen,
    with_layers,
)
from converters.pipeline.emulating import emulate_candidate, emulators_for
from converters.pipeline.facts import Facts
from converters.planning.age import is_recent
from converters.planning.judge import COMPILE_FAILED, LOSSES, NOT_NEEDED, Judgement
from converters.planning.kernels import UNMEASURED
from converters.planning.planner import Candidate
from converters.planning.search import Tried, find_better, mixed_from, outdone, worth_mixing
from converters.planning.sensitivity import Sensitivity
from converters.release.variants import Built
from edge_runtime.contract import reasons
from edge_runtime.contract.errors import InferenceError

T = TypeVar("T")

_STOPPING_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a candidate cannot be compiled, loaded or asked."""

    code: str
    because: str


_SILENT: Final = Refusal(reasons.GOLDEN_FAILED, "it said nothing")


@dataclass(frozen=True, slots=True)
class Compilation:
    """What compiling a candidate came to; exactly one of the two."""

    built: Built | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Measuring:
    """What measuring a candidate came to; exactly one of the two."""

    numbers: Numbers | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Emulating:
    """What asking a candidate on another instruction set came to; exactly one of the two."""

    asked: Asked | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The layers that a candidate loses in; None where its file cannot be looked at."""

    layers: Sensitivity | None = None


def try_all(bench: Bench, stages: Stages, facts: Facts) -> list[Result]:
    """Try every planned candidate that is still needed when its turn comes; results in the plan's order.

    Raises:
        EdgeError: something is wrong with the model or the data, not with a candidate.
    """
    plan = bench.order.plan
    results: dict[str, Result] = {}
    tried: list[Tried] = []
    floats: dict[str, Built] = {}
    waiting = list(plan.candidates)
    while waiting:
        needed, waiting = next_round(waiting)
        for candidate in tuple(needed):
            if better := find_better(candidate, tried, plan.prefer):
                results[candidate.id] = Result(candidate, Judgement((), NOT_NEEDED, better))
                needed.remove(candidate)
            elif unseen := refuse_unseen(candidate, bench):
                results[candidate.id] = unseen
                needed.remove(candidate)
        for candidate, built in zip(needed, _compile(needed, bench, stages, facts), strict=True):
            beside = None if candidate.precision == "float32" else floats.get(candidate.engine)
            result = _measured(candidate, built, beside, (bench, stages, facts))
            if isinstance(built, Built) and candidate.precision == "float32":
                floats[candidate.engine] = built
            tried.append(_tried(result))
            results[candidate.id] = explained(result, bench, stages, facts)
    if bench.gate and bench.order.recipe.methods is None and (base := worth_mixing(tried)) is not None:
        for result in _mixed(results[base.id], floats.get(base.engine), (bench, stages, facts)):
            results[result.candidate.id] = result
    for variant, better in outdone(tried).items():
        results[variant] = leave_out(results[variant], f"{better} differs only in its ranges, and loses less")
    planned = [results.pop(candidate.id) for candidate in plan.candidates]
    return [*planned, *results.values()]


def _tried(result: Result) -> Tried:
    is_lossy = result.judgement.code in LOSSES
    return Tried(result.candidate, result.judgement.arch, result.lost, is_lossy, result.repeats)


def explained(result: Result, bench: Bench, stages: Stages, facts: Facts) -> Result:
    """A result that says in which layers a candidate lost, where it lost too much."""
    if result.judgement.code not in LOSSES or result.measurement is None:
        return result
    layers = _layers(result.candidate, (bench, stages, facts), undo=False)
    return result if layers is None else with_layers(result, layers)


def _mixed(base: Result, beside: Built | None, tools: tuple[Bench, Stages, Facts]) -> list[Result]:
    """Where every int8 variant loses too much: whether layers in float would help, and a candidate with them."""
    bench, stages, facts = tools
    layers = _layers(base.candidate, tools, undo=True)
    if layers is None:
        return []
    mixed = mixed_from(base.candidate, layers)
    if mixed is None:
        return [with_layers(base, layers)]
    (built,) = _compile([mixed], bench, stages, facts)
    return [with_layers(base, layers), _measured(mixed, built, beside, tools)]


def _layers(candidate: Candidate, tools: tuple[Bench, Stages, Facts], *, undo: bool) -> Sensitivity | None:
    bench, stages, facts = tools
    if not can_diagnose(candidate.method):
        return None
    workshop = bench.workshop

    def work() -> Diagnosis:
        try:
            return Diagnosis(diagnose(candidate, workshop(), undo=undo))
        except CompilerRefused:
            return Diagnosis()

    try:
        return stages.run(facts.layers_stage(candidate, undo=undo), Diagnosis, work).layers
    except CompileFailed:
        # An explanation that cannot be had changes no verdict.
        return None


def next_round(waiting: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """The first candidate of each engine, and the others.

    One of each engine, because whether its next one is needed depends on how this one does.
    """
    first: dict[str, Candidate] = {}
    for candidate in waiting:
        first.setdefault(candidate.engine, candidate)
    now = list(first.values())
    return now, [candidate for candidate in waiting if candidate not in now]


def fitting_at_once(available_bytes: int, cores: int, limit_bytes: int = MEMORY_BYTES) -> int:
    """How many compilers may run at once: all of them may take what they are granted, and it is there."""
    return max(1, min(cores, available_bytes // limit_bytes))


def side_by_side(works: Sequence[Callable[[], T]], at_once: int) -> list[T]:
    """What every work gives, in order; the first error ends the others and is raised."""
    if at_once == 1 or len(works) < 2:
        return [work() for work in works]
    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(work) for work in works]
        try:
            ended, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in ended:
                future.result()
            return [future.result() for future in futures]
        except BaseException:
            _stop(futures)
            raise


def _stop(futures: Sequence[Future[T]]) -> None:
    """Again and again, because a thread may start its compiler just after the others were killed."""
    for future in futures:
        future.cancel()
    while not all(future.done() for future in futures):
        stop_compilers()
        wait(futures, timeout=_STOPPING_S)


def _compile(needed: Sequence[Candidate], bench: Bench, stages: Stages, facts: Facts) -> list[Built | Refusal]:
    def work(candidate: Candidate) -> Callable[[], Built | Refusal]:
        return lambda: _compiled(candidate, bench, stages, facts)

    return side_by_side([work(one) for one in needed], fitting_at_once(_available_bytes(), os.cpu_count() or 1))


def _compiled(candidate: Candidate, bench: Bench, stages: Stages, facts: Facts) -> Built | Refusal:
    def work() -> Compilation:
        # What is wrong with the model or the data ends the build; it is no candidate's fault.
        bench.workshop()
        try:
            return Compilation(built=compile_candidate(candidate, bench))
        except CompilerRefused as error:
            return Compilation(refusal=Refusal(COMPILE_FAILED, error.because))
        except InferenceError as error:
            if lies_outside(error):
                raise
            return Compilation(refusal=Refusal(reasons.LOAD_FAILED, error.because))

    try:
        compilation = stages.run(facts.compile_stage(candidate), Compilation, work)
    except CompileFailed as error:
        # A limit was met, or it crashed: the next build tries again.
        return Refusal(COMPILE_FAILED, error.because)
    except InferenceError as error:
        # There was no memory for it, which says nothing of the file.
        return Refusal(reasons.LOAD_FAILED, error.because)
    return compilation.built or compilation.refusal or Refusal(COMPILE_FAILED, "the compiler said nothing")


def _measured(
    candidate: Candidate, built: Built | Refusal, beside: Built | None, tools: tuple[Bench, Stages, Facts]
) -> Result:
    bench, stages, facts = tools
    if isinstance(built, Refusal):
        return refuse_candidate(candidate, built.code, built.because)

    def work() -> Measuring:
        bench.answers.folder()
        try:
            return Measuring(numbers=measure_candidate(built, beside, bench))
        except InferenceError as error:
            return Measuring(refusal=_own_fault(error))

    stage = facts.measure_stage(candidate, beside.candidate if beside else None)
    try:
        measuring = stages.run(stage, Measuring, work, _still_counts)
        if measuring.numbers is None:
            refusal = measuring.refusal or _SILENT
            return refuse_candidate(candidate, refusal.code, refusal.because)
        elsewhere: list[tuple[Emulator, Asked]] = []
        for emulator in emulators_for(built, bench):
            emulating = _emulated(built, emulator, measuring.numbers.here, tools)
            if emulating.asked is None:
                refusal = emulating.refusal or _SILENT
                return refuse_candidate(candidate, refusal.code, refusal.because)
            elsewhere.append((emulator, emulating.asked))
    except InferenceError as error:
        # The emulator did not come up in time, or there was no memory: the next build tries again.
        code = UNMEASURED if error.code == UNMEASURED else reasons.LOAD_FAILED
        return refuse_candidate(candidate, code, error.because)
    return judge_candidate(built, measuring.numbers, bench, elsewhere)


def _emulated(built: Built, emulator: Emulator, here: Asked, tools: tuple[Bench, Stages, Facts]) -> Emulating:
    bench, stages, facts = tools
    stage = facts.emulate_stage(built.candidate, emulator)

    def told(done: int, of: int) -> None:
        stages.progressed(stage, done, of)

    def work() -> Emulating:
        bench.answers.folder()
        try:
            return Emulating(asked=emulate_candidate(built, emulator, here, bench, told))
        except InferenceError as error:
            return Emulating(refusal=_own_fault(error))

    return stages.run(stage, Emulating, work)


def _own_fault(error: InferenceError) -> Refusal:
    """Why a candidate is refused for good. Raises: InferenceError: the next build has to try again."""
    if error.code == UNMEASURED or lies_outside(error):
        raise error
    return Refusal(error.code if error.code == reasons.LOAD_FAILED else reasons.GOLDEN_FAILED, error.because)


def _still_counts(measuring: Measuring) -> bool:
    numbers = measuring.numbers
    return numbers is None or numbers.latency is None or is_recent(numbers.at, datetime.now(timezone.utc))


def _available_bytes() -> int:
    """Memory that can be taken without swapping; 0 where Linux does not say."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
