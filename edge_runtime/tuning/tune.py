"""Finds the best variant, threads and batch of a release on this machine, within a time, and keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.errors import ContractError, InferenceError, TrustError
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.layout import open_variant
from edge_runtime.contract.variant_choice import OfferedVariant, choose
from edge_runtime.inference.backend import BACKENDS, Tensors
from edge_runtime.inference.facts import engines, machine_facts
from edge_runtime.inference.model import Model
from edge_runtime.inference.tuned import fingerprint_of, leaves_threads_open, read_choices
from edge_runtime.inference.tuned_choice import TunedChoice
from edge_runtime.tuning.candidates import Candidate, Fitting, Measured, Verdict, decide, name_of, plan_candidates
from edge_runtime.tuning.figures import figures_of, steady_ratio
from edge_runtime.tuning.kept import keep
from edge_runtime.tuning.machine import Machine, machine_of
from edge_runtime.tuning.target import Questions, Target, questions_for

MIN_PAIRS: Final = 6
_BLOCK: Final = 4
"""Answers in a row before the other has its turn: threads of the other's engine have stopped spinning by then."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """What a person chooses."""

    state: Path
    inputs: tuple[Path, ...] = ()
    variant: str | None = None
    """Only this one."""
    backends: tuple[str, ...] | None = None
    seconds: float = 60.0
    """After it nothing new is tried."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate of the table."""

    variant: str
    provider: str | None
    threads: int | None
    p50_ms: float | None
    ratio: float | None
    cpu_ms: float | None
    verdict: str
    is_winner: bool


class TuneReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was tried, and why the winner won."""

    release: str
    version: str
    machine: Machine
    questions: str
    rows: tuple[Row, ...]
    sentence: str
    batch: dict[int, float]
    """Milliseconds of one sample, by samples per call, of the winner."""
    best_batch: int
    kept: str
    """File in which it is kept."""


def tune(target: Target, settings: TuneSettings, progress: Progress) -> TuneReport:
    """Try what may be best, and keep what is.

    Args:
        target: the release.
        settings: where it is kept, with which questions, how long.
        progress: hears how far it is.

    Raises:
        InferenceError: no variant fits, or none may run.
        UpdateError: the disk refuses to keep it.
    """
    facts = machine_facts(engines(settings.backends))
    machine = machine_of(facts)
    tuner = _Tuner(target, settings, facts, progress)
    fitting = tuner.fitting()
    candidates = plan_candidates(fitting, facts.cores)
    measured = tuner.measure_all(candidates) + tuner.broken
    verdict = decide(measured)
    if verdict.winner is None:
        raise InferenceError("tune it", "; ".join(dict.fromkeys(verdict.reasons)), "see edge-runtime run")
    progress("batches", 0.95)
    batch = tuner.batches(verdict.winner.candidate)
    best_batch = _best_batch(batch)
    choices = tuner.choices(measured, verdict, best_batch)
    path = keep(settings.state, target.release.digest, fingerprint_of(facts), choices)
    manifest = target.release.manifest
    rows = tuple(
        Row(variant=one.candidate.variant, provider=one.candidate.provider, threads=one.candidate.threads,
            p50_ms=one.p50_ms, ratio=one.ratio, cpu_ms=one.cpu_ms, verdict=reason, is_winner=one is verdict.winner)
        for one, reason in zip(measured, verdict.reasons, strict=True)
    )  # fmt: skip
    return TuneReport(
        release=manifest.name, version=manifest.version, machine=machine, questions=tuner.title, rows=rows,
        sentence=verdict.sentence, batch=batch, best_batch=best_batch, kept=str(path),
    )  # fmt: skip


class _Tuner:
    """Opens candidates one after the other beside what would run without tuning, and times both in turns."""

    def __init__(self, target: Target, settings: TuneSettings, facts: DeviceFacts, progress: Progress) -> None:
        self._target = target
        self._settings = settings
        self._facts = facts
        self._progress = progress
        self._is_busy = machine_of(facts).is_busy
        self._until = time.monotonic() + settings.seconds
        self.title = ""
        self.broken: list[Measured] = []
        """Variants of which not even the manifest could be read."""

    def fitting(self) -> list[Fitting]:
        """Variants that fit this machine, best guess first. Raises: InferenceError when none does."""
        wanted = self._settings.variant or self._target.variant
        variants = []
        for entry in self._target.release.index.variants:
            if wanted is None or entry.id == wanted:
                try:
                    variants.append(open_variant(self._target.source, entry))
                except (ContractError, TrustError) as error:
                    self.broken.append(Measured(Candidate(entry.id, None), refusal=_not_loaded(error)))
        choice = choose(tuple(OfferedVariant(one.digest, one.manifest) for one in variants), self._facts)
        self._digests = {one.manifest.id: one.digest for one in choice.candidates}
        self._engines = {one.manifest.id: one.manifest.target.engine for one in choice.candidates}
        if not choice.candidates:
            rejected = [f"{one.variant}: {one.because}" for one in choice.rejected]
            rejected += [f"{one.candidate.variant}: {one.refusal}" for one in self.broken]
            reasons = "; ".join(rejected) or "it has no such variant"
            raise InferenceError("tune it", f"no variant fits this machine ({reasons})", "install an engine it names")
        return [
            Fitting(one.manifest.id, leaves_threads_open(one.manifest), tuple(one.manifest.target.provider))
            for one in choice.candidates
        ]

    def measure_all(self, candidates: Sequence[Candidate]) -> list[Measured]:
        """Each candidate in turns with the first that loads; those for which no time is left are said."""
        measured: list[Measured] = []
        for number, first in enumerate(candidates):
            self._progress(f"opening {name_of(first)}", 0.0)
            usual = self._opened(first)
            if isinstance(usual, Measured):
                measured.append(usual)
                continue
            with usual:
                return measured + self._measure_beside(usual, candidates[number:])
        return measured

    def _measure_beside(self, usual: Model, candidates: Sequence[Candidate]) -> list[Measured]:
        questions = questions_for(usual, self._settings.inputs)
        self.title = questions.title
        first = self._against(usual, usual, questions, candidates[0], 1 / (len(candidates) + 1))
        measured = [replace(first, ratio=1.0) if first.ratio is not None else first]
        for number, one in enumerate(candidates[1:], 1):
            self._progress(name_of(one), 0.9 * number / len(candidates))
            measured.append(self._measured(usual, one, questions, 1 / (len(candidates) - number + 1)))
        return measured

    def _measured(self, usual: Model, candidate: Candidate, questions: Questions, share: float) -> Measured:
        if time.monotonic() >= self._until:
            return Measured(candidate, refusal="not tried: the time was up")
        opened = self._opened(candidate)
        if isinstance(opened, Measured):
            return opened
        with opened as model:
            return self._against(usual, model, questions, candidate, share)

    def _opened(self, candidate: Candidate) -> Model | Measured:
        try:
            return self._open(candidate)
        except (InferenceError, ContractError) as error:
            # Of one variant only: its own sentence without the one around it.
            _, _, because = error.because.partition(f"({candidate.variant}: ")
            return Measured(candidate, refusal=f"did not load: {because.removesuffix(')') or error.because}")
        except TrustError as error:
            return Measured(candidate, refusal=_not_loaded(error))

    def _against(
        self, usual: Model, model: Model, questions: Questions, candidate: Candidate, share: float
    ) -> Measured:
        try:
            failed = next((check for check in model.golden_check() if not check.passed), None)
            if failed is not None:
                value = "no number" if failed.value is None else f"{failed.value:.4g}"
                refusal = f"failed the golden check: {failed.metric} against {failed.against} is {value}"
                return Measured(candidate, refusal=refusal)
            return self._timed(usual, model, questions, candidate, share)
        except InferenceError as error:
            return Measured(candidate, refusal=f"cannot answer: {error.because}")

    def _timed(self, usual: Model, model: Model, questions: Questions, candidate: Candidate, share: float) -> Measured:
        """Blocks of answers in turns; the first of a block is not counted, because the other filled the caches."""
        until = time.monotonic() + max((self._until - time.monotonic()) * share, 0.0)
        theirs, ours, cpu = [], [], []
        pairs = 0
        while pairs < MIN_PAIRS or time.monotonic() < until:
            question = pairs * _BLOCK
            theirs.append(_block(usual, questions, question)[0])
            took_ns, cpu_ns = _block(model, questions, question)
            ours.append(took_ns)
            cpu.append(cpu_ns)
            pairs += 1
        return Measured(
            candidate,
            p50_ms=figures_of(ours).p50 / _BLOCK,
            ratio=steady_ratio(ours, theirs, is_busy=self._is_busy),
            cpu_ms=figures_of(cpu).p50 / _BLOCK,
        )

    def batches(self, candidate: Candidate) -> dict[int, float]:
        """Milliseconds of one sample by samples per call, as far as the variant takes several."""
        with self._open(candidate) as model:
            spec = model.variant.manifest.batch
            if model.predictor.sequencer is not None or spec.max <= 1 or not spec.dynamic:
                return {}
            questions = questions_for(model, self._settings.inputs)
            preprocess = model.predictor.preprocess
            feeds = preprocess.after_decode(preprocess.decode(questions.inputs[0]))
            found: dict[int, float] = {}
            for size in (1, 2, 4, 8, 16, 32):
                if size > spec.max:
                    break
                found[size] = _batch_ms(model, feeds, size) / size
            return found

    def choices(self, measured: Sequence[Measured], verdict: Verdict, batch: int) -> list[TunedChoice]:
        """For each variant its best settings, the winner marked."""
        best: dict[VariantId, Measured] = {}
        for one in measured:
            if one.refusal is None and one.ratio is not None:
                known = best.get(one.candidate.variant)
                if known is None or one.ratio < (known.ratio or 0.0):
                    best[one.candidate.variant] = one
        if (winner := verdict.winner) is not None:
            best[winner.candidate.variant] = winner
        reasons = {one.candidate: reason for one, reason in zip(measured, verdict.reasons, strict=True)}
        engines_here = {fact.name: str(fact) for fact in self._facts.engines}
        return [
            TunedChoice(
                release=self._target.release.digest, variant=self._digests[name],
                fingerprint=fingerprint_of(self._facts),
                engine=engines_here.get(self._engines[name], self._engines[name]),
                threads=one.candidate.threads, provider=one.candidate.provider,
                batch=batch if one is winner else 1, p50_ms=one.p50_ms or 0.0,
                at=datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
                is_winner=one is winner, because=verdict.sentence if one is winner else reasons[one.candidate],
            )
            for name, one in best.items()
        ]  # fmt: skip

    def _open(self, candidate: Candidate) -> Model:
        return Model.open(
            (self._target.release, self._target.source), variant=candidate.variant, threads=candidate.threads,
            provider=candidate.provider,
            # What is tuned must not depend on what was tuned before.
            backends=self._settings.backends or tuple(BACKENDS), facts=self._facts, tuned="off",
        )  # fmt: skip


def _not_loaded(error: ContractError | TrustError) -> str:
    return f"did not load: {error}"


def _block(model: Model, questions: Questions, start: int) -> tuple[int, int]:
    """Nanoseconds, and nanoseconds of CPU time, of a few answers in a row."""
    inputs = questions.inputs
    model.infer_batch(inputs[start % len(inputs)])
    cpu_ns, began_ns = time.process_time_ns(), time.perf_counter_ns()
    for number in range(_BLOCK):
        model.infer_batch(inputs[(start + number) % len(inputs)])
    return time.perf_counter_ns() - began_ns, time.process_time_ns() - cpu_ns


def _batch_ms(model: Model, feeds: Tensors, size: int) -> float:
    """Fastest of a few calls with that many samples."""
    many = {name: np.concatenate([array[:1]] * size) if array.ndim else array for name, array in feeds.items()}
    took: list[int] = []
    for _ in range(2 * MIN_PAIRS):
        began = time.perf_counter_ns()
        model.run_canonical(many)
        took.append(time.perf_counter_ns() - began)
    return min(took) / 1e6


def _best_batch(batch: dict[int, float]) -> int:
    """The smallest number of samples that is within the margin of the best."""
    if not batch:
        return 1
    best = min(batch.values())
    return min(size for size, ms in batch.items() if ms <= best / 0.97)


def forget_tuned(target: Target, folder: Path) -> str:
    """Forget what was tuned for a release on this kind of machine; says what was there. Raises: UpdateError."""
    fingerprint = fingerprint_of(machine_facts([]))
    mine = [
        one for one in read_choices(folder) if (one.release, one.fingerprint) == (target.release.digest, fingerprint)
    ]
    name = f"{target.release.manifest.name} {target.release.manifest.version}"
    if not mine:
        return f"nothing was tuned for {name}"
    keep(folder, target.release.digest, fingerprint, [])
    return f"forgot what was tuned for {name}"
