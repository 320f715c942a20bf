"""Measures one variant on this machine: stage by stage, whole, under load, and beside the bare engine in turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from edge_runtime.contract.errors import InferenceError
from edge_runtime.inference.backend import BACKENDS, Tensors, allowed
from edge_runtime.inference.facts import engines, machine_facts
from edge_runtime.inference.model import Model
from edge_runtime.inference.preprocessing.preprocess import Inputs
from edge_runtime.tuning.bare import BareCall, open_bare
from edge_runtime.tuning.figures import Figures, figures_of, steady_ratio
from edge_runtime.tuning.footprint import Footprint, measure_footprint
from edge_runtime.tuning.machine import Machine, machine_of
from edge_runtime.tuning.scenarios import ScenarioReport, ScenarioWish, load_loadgen, run_scenario
from edge_runtime.tuning.sensors import EnergySensor, find_sensor
from edge_runtime.tuning.target import Questions, Target, file_feeds, questions_for, variant_files

STAGES: Final = ("decode", "preprocess", "infer", "postprocess")
MIN_ROUNDS: Final = 20
_MAX_ROUNDS: Final = 20_000
_WARM_UP_ROUNDS: Final = 3
_TURN_S: Final = 0.25
"""How long one side works under load before the other has its turn."""

Progress = Callable[[str, float], None]
"""Hears what is done now, and which share of everything is behind."""


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What a person chooses."""

    inputs: tuple[Path, ...] = ()
    variant: str | None = None
    threads: int | None = None
    backends: tuple[str, ...] | None = None
    tuned: Path | None = None
    """Folder of what was tuned; None: the user's own."""
    seconds: float = 5.0
    """For the rounds of one caller; the load takes half as long again."""
    callers: int | None = None
    """Under load; None: twice as many as the model runs at once, so that a queue forms."""
    scenario: ScenarioWish | None = None
    """Of MLPerf, besides."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Several callers at once, each asking again as soon as it is answered."""

    callers: int
    per_s: float
    bare_per_s: float | None
    queue: Figures | None
    """Waiting for a turn; None when nobody waited."""


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Of the whole package or board while the model works, others' work included."""

    sensor: str
    joules_per_answer: float
    watts: float
    idle_watts: float
    """In the second before."""


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured in one run."""

    release: str
    version: str
    digest: str
    variant: str
    engine: str
    threads: int | None
    """Inside one call; None: the engine's own default."""
    machine: Machine
    questions: str
    stages: dict[str, Figures]
    whole: Figures
    """`Model.infer`, from the question to the answer."""
    bare: Figures | None
    """The engine alone, on tensors that are ready."""
    bare_note: str | None
    infer_ratio: float | None
    """Our engine call to the bare one, pair by pair; of the fastest calls where the machine is busy."""
    cpu_ms: float
    """CPU time of one answer, all threads."""
    bare_cpu_ms: float | None
    load: Load
    memory: Footprint | None
    energy: Energy | None
    energy_note: str | None
    scenario: ScenarioReport | None = None
    """What LoadGen measured, where that was asked for."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """Who is asked, and what."""

    model: Model
    questions: Questions
    bare: BareCall | None
    feeds: Sequence[Sequence[Tensors]]
    """For each question, what the bare engine is fed; empty without one."""


@dataclass(slots=True)
class _Rounds:
    """Nanoseconds of each call, round by round."""

    stages: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in STAGES})
    whole: list[int] = field(default_factory=list)
    bare: list[int] = field(default_factory=list)
    cpu: list[int] = field(default_factory=list)
    bare_cpu: list[int] = field(default_factory=list)


def bench(target: Target, settings: BenchSettings, progress: Progress) -> BenchReport:
    """Measure a release.

    Args:
        target: what is measured.
        settings: with which questions, how long.
        progress: hears how far it is.

    Raises:
        InferenceError: it cannot be opened, or cannot answer the questions.
        ContractError: the release breaks the contract, or LoadGen is asked for and not installed.
        DigestMismatch: a file is not the promised one.
    """
    if settings.scenario is not None:
        load_loadgen()  # first: whoever lacks it hears so before a minute is spent
    machine = machine_of(machine_facts([]))
    progress("opening", 0.0)
    with Model.open(
        (target.release, target.source),
        variant=settings.variant or target.variant,
        threads=settings.threads,
        backends=settings.backends,
        tuned=settings.tuned,
    ) as model:
        questions = questions_for(model, settings.inputs)
        bare, note = _bare(target, model, settings)
        subject = _Subject(model, questions, bare, _prepared(model, questions) if bare else [])
        rounds = _rounds(subject, _Watch(settings.seconds, progress))
        load, energy, energy_note = _under_load(subject, settings, progress)
        progress("memory, in processes of their own", 0.9)
        memory = measure_footprint(target, model, settings.backends, settings.tuned)
        scenario = None
        if settings.scenario is not None:
            progress(f"LoadGen, {settings.scenario.scenario}", 0.95)
            scenario = run_scenario(model, questions, settings.scenario, settings.seconds)
        progress("done", 1.0)
        return _report(model, machine, questions, rounds, bare_note=note, load=load, memory=memory,
                       energy=energy, energy_note=energy_note, threads=model.threads,
                       scenario=scenario, engine=_engine(model, settings))  # fmt: skip


@dataclass(slots=True)
class _Watch:
    """Says whether another round fits into the time, and how far it is."""

    seconds: float
    progress: Progress
    began: float = field(default_factory=time.monotonic)

    def goes_on(self, rounds: int) -> bool:
        spent = time.monotonic() - self.began
        self.progress("one caller, in turns with the bare engine", 0.05 + 0.5 * min(spent / self.seconds, 1))
        return rounds < MIN_ROUNDS or (spent < self.seconds and rounds < _MAX_ROUNDS)


def _engine(model: Model, settings: BenchSettings) -> str:
    name = model.variant.manifest.target.engine
    return next((str(one) for one in engines({name}, allowed(BACKENDS, settings.backends))), name)


def _bare(target: Target, model: Model, settings: BenchSettings) -> tuple[BareCall | None, str | None]:
    if model.predictor.sequencer is not None:
        return None, "the model keeps states between calls; a bare call has no like"
    if "tflite_runtime" in (settings.backends or ()) and model.variant.manifest.target.engine == "litert":
        return None, "tflite-runtime lives in another environment"
    try:
        files = variant_files(target, model.variant)
        return open_bare(files, model.variant.manifest, model.threads), None
    except InferenceError as error:
        return None, error.because


def _prepared(model: Model, questions: Questions) -> list[list[Tensors]]:
    """For each question, what the bare engine is fed; made once, because it is the engine that is timed."""
    predictor = model.predictor
    return [
        file_feeds(predictor, predictor.preprocess.after_decode(predictor.preprocess.decode(one)))
        for one in questions.inputs
    ]


def _rounds(subject: _Subject, watch: _Watch) -> _Rounds:
    """One question after the other, each by stages, whole and to the bare engine; who begins changes each round."""
    found = _Rounds()
    model, questions, bare, feeds = subject.model, subject.questions, subject.bare, subject.feeds
    for number in range(_WARM_UP_ROUNDS * min(len(questions.inputs), 4)):
        place = number % len(questions.inputs)
        _stages(model, questions.inputs[place])
        if bare:
            _timed_bare(bare, feeds[place])
    number = 0
    while watch.goes_on(number):
        place = number % len(questions.inputs)
        question = questions.inputs[place]
        if bare and number % 2:
            _count_bare(found, bare, feeds[place])
        for name, took_ns in zip(STAGES, _stages(model, question), strict=True):
            found.stages[name].append(took_ns)
        if bare and not number % 2:
            _count_bare(found, bare, feeds[place])
        cpu_ns, began_ns = time.process_time_ns(), time.perf_counter_ns()
        model.infer_batch(question)
        found.whole.append(time.perf_counter_ns() - began_ns)
        found.cpu.append(time.process_time_ns() - cpu_ns)
        number += 1
    return found


def _count_bare(found: _Rounds, bare: BareCall, feeds: Sequence[Tensors]) -> None:
    cpu_ns = time.process_time_ns()
    found.bare.append(_timed_bare(bare, feeds))
    found.bare_cpu.append(time.process_time_ns() - cpu_ns)


def _stages(model: Model, question: Inputs) -> tuple[int, int, int, int]:
    """Nanoseconds of decode, preprocess, infer and postprocess."""
    predictor = model.predictor
    began = time.perf_counter_ns()
    decoded = predictor.preprocess.decode(question)
    after_decode = time.perf_counter_ns()
    if predictor.sequencer is not None:
        # A sequence is prepared row by row while it runs.
        prepared, tensors = after_decode, predictor.run_decoded(decoded)
    else:
        feeds = predictor.preprocess.after_decode(decoded)
        prepared = time.perf_counter_ns()
        tensors = predictor.run_canonical(feeds)
    ran = time.perf_counter_ns()
    predictor.interpret(tensors, decoded)
    return after_decode - began, prepared - after_decode, ran - prepared, time.perf_counter_ns() - ran


def _timed_bare(bare: BareCall, feeds: Sequence[Tensors]) -> int:
    began = time.perf_counter_ns()
    for feed in feeds:
        bare(feed)
    return time.perf_counter_ns() - began


def _under_load(
    subject: _Subject, settings: BenchSettings, progress: Progress
) -> tuple[Load, Energy | None, str | None]:
    model, questions, bare, feeds = subject.model, subject.questions, subject.bare, subject.feeds
    callers = settings.callers or 2 * model.admission.slots
    sensor, why = find_sensor()
    idle_watts = _idle_watts(sensor)
    before = model.statistics().stages["queue"]

    def ask(place: int) -> None:
        model.infer_batch(questions.inputs[place % len(questions.inputs)])

    def ask_bare(place: int) -> None:
        assert bare is not None
        for feed in feeds[place % len(feeds)]:
            bare(feed)

    turns = max(round(settings.seconds / 2 / _TURN_S), 2)
    done, bare_done, joules, busy_s, bare_busy_s = 0, 0, 0.0, 0.0, 0.0
    for turn in range(turns):
        progress(f"{callers} callers at once", 0.55 + 0.35 * turn / turns)
        if sensor is not None:
            sensor.start()
        count, took_s = _closed_loop(ask, callers)
        done, busy_s = done + count, busy_s + took_s
        joules += sensor.stop() if sensor is not None else 0.0
        if bare is not None:
            count, took_s = _closed_loop(ask_bare, callers)
            bare_done, bare_busy_s = bare_done + count, bare_busy_s + took_s
    waited = model.statistics().stages["queue"].since(before)
    load = Load(callers=callers, per_s=done / busy_s, bare_per_s=bare_done / bare_busy_s if bare else None,
                queue=_queue_figures(waited))  # fmt: skip
    if sensor is None:
        return load, None, why
    energy = Energy(sensor=why, joules_per_answer=joules / done, watts=joules / busy_s, idle_watts=idle_watts)
    return load, energy, None


def _idle_watts(sensor: EnergySensor | None) -> float:
    if sensor is None:
        return 0.0
    began = time.monotonic()
    sensor.start()
    time.sleep(1.0)
    return sensor.stop() / (time.monotonic() - began)


def _closed_loop(ask: Callable[[int], None], callers: int) -> tuple[int, float]:
    """Answers in a turn, and how long it took until the last one was there."""
    until = time.monotonic() + _TURN_S
    counts = [0] * callers
    errors: list[BaseException] = []

    def work(who: int) -> None:
        try:
            while time.monotonic() < until:
                ask(who + counts[who])
                counts[who] += 1
        except BaseException as error:  # noqa: BLE001 (said by whoever waits for the thread)
            errors.append(error)

    began = time.monotonic()
    threads = [threading.Thread(target=work, args=(who,), daemon=True) for who in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return sum(counts), time.monotonic() - began


def _queue_figures(waited: object) -> Figures | None:
    from edge_runtime.inference.requests.statistics import Histogram

    if not isinstance(waited, Histogram) or not waited.count:
        return None
    low, p10, p50, p90, p99 = ((waited.quantile_s(q) or 0.0) * 1000 for q in (0.0, 0.1, 0.5, 0.9, 0.99))
    return Figures(count=waited.count, min=low, p10=p10, p50=p50, p90=p90, p99=p99)


def _report(
    model: Model,
    machine: Machine,
    questions: Questions,
    rounds: _Rounds,
    **rest: object,
) -> BenchReport:
    manifest = model.release.manifest
    stages = {name: figures_of(found) for name, found in rounds.stages.items()}
    return msgspec.convert(
        {
            "release": manifest.name,
            "version": manifest.version,
            "digest": model.release_digest,
            "variant": model.variant_id,
            "machine": machine,
            "questions": questions.title,
            "stages": stages,
            "whole": figures_of(rounds.whole),
            "bare": figures_of(rounds.bare) if rounds.bare else None,
            "infer_ratio": steady_ratio(rounds.stages["infer"], rounds.bare, is_busy=machine.is_busy)
            if rounds.bare
            else None,
            "cpu_ms": sum(rounds.cpu) / len(rounds.cpu) / 1e6,
            "bare_cpu_ms": sum(rounds.bare_cpu) / len(rounds.bare_cpu) / 1e6 if rounds.bare_cpu else None,
            **rest,
        },
        BenchReport,
    )
