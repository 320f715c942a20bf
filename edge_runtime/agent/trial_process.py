"""`python -m edge_runtime.agent.trial_process`: measures one candidate, alone in its process, and says what it saw.

A TrialTask comes in on standard input, a TrialMeasurement leaves on standard output.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edge_runtime.agent.trial_task import TrialTask
from edge_runtime.agent.workload import EngineLimits, open_activation
from edge_runtime.contract import reasons
from edge_runtime.contract.errors import ContractError, EdgeError, InferenceError, TrustError
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.ids import shown
from edge_runtime.inference.facts import peak_resident_bytes
from edge_runtime.parent import end_with_parent, limit_memory
from edge_runtime.update.ports import TrialFailure, TrialMeasurement
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore

if TYPE_CHECKING:
    from edge_runtime.inference.backend import Tensors
    from edge_runtime.inference.model import Model

_CODES: Final = (
    (ContractError, reasons.BAD_RELEASE),
    (TrustError, reasons.DIGEST_MISMATCH),
    (InferenceError, reasons.LOAD_FAILED),
)
_WARM_UP: Final = 3
_TASK_MAX_BYTES: Final = 4 * 1024 * 1024


def main() -> int:
    """Do the task on standard input; 0 whenever there is an answer, whatever it says."""
    end_with_parent(int(sys.argv[1]))
    task = msgspec.json.decode(sys.stdin.buffer.read(_TASK_MAX_BYTES), type=TrialTask)
    limit_memory(task.memory_bytes)
    sys.stdout.buffer.write(msgspec.json.encode(_whatever_comes(task)))
    return 0


def _whatever_comes(task: TrialTask) -> TrialMeasurement:
    """The measurement; what nobody foresaw is one line and a reason, because a traceback helps no operator."""
    try:
        return measure(task)
    except MemoryError:
        failure = TrialFailure(reasons.MEMORY, "the candidate does not fit into the memory granted to it")
    except Exception as error:  # noqa: BLE001 (a foreign release may break an engine or a parser in any way)
        what = shown(f"{type(error).__name__}: {error}", 300)
        failure = TrialFailure(reasons.CRASH_LOOP, f"the trial ended with an error that nobody foresaw ({what})")
    return TrialMeasurement(failure=failure)


def measure(task: TrialTask) -> TrialMeasurement:
    """Golden checks, latency and peak memory of one candidate; what prevents them is part of the measurement."""
    store = ContentStore(Path(task.store_root))
    try:
        candidate = _open(store, task, task.candidate)
    except EdgeError as error:
        return TrialMeasurement(failure=_failure(error))
    with candidate:
        try:
            checks = tuple(candidate.golden_check()) if task.ask_golden else _not_asked(candidate)
            # Before the running model is opened beside it, which only this comparison needs.
            peak_bytes = peak_resident_bytes()
            running = None if task.running is None else _try_open(store, task, task.running)
            mine_ms, running_ms = _interleaved(candidate, running, task.rounds)
        except EdgeError as error:
            return TrialMeasurement(failure=_failure(error))
        engine = candidate.variant.manifest.target.engine
        known = next((str(fact) for fact in task.facts.engines if fact.name == engine), engine)
    return TrialMeasurement(
        checks=checks,
        p50_ms=_quantile(mine_ms, 0.5),
        p95_ms=_quantile(mine_ms, 0.95),
        running_p50_ms=_quantile(running_ms, 0.5),
        peak_bytes=peak_bytes,
        engine=known,
    )


def _open(store: ContentStore, task: TrialTask, activation: Activation) -> Model:
    backends = None if task.backends is None else tuple(task.backends)
    return open_activation(store, activation, EngineLimits(backends, task.threads, task.memory_bytes), task.facts)


def _try_open(store: ContentStore, task: TrialTask, activation: Activation) -> Model | None:
    """What runs is only compared with: when it cannot be opened a second time, the candidate is judged without it."""
    try:
        return _open(store, task, activation)
    except (EdgeError, MemoryError):
        return None


def _interleaved(candidate: Model, running: Model | None, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds per call of both models, turn by turn, so that a busy board slows both alike."""
    models = [model for model in (candidate, running) if model is not None]
    questions = [_questions(model) for model in models]
    times: list[list[float]] = [[], []]
    for turn in range(_WARM_UP + rounds):
        for place, (model, inputs) in enumerate(zip(models, questions, strict=True)):
            if not inputs:
                continue
            started = time.perf_counter()
            model.predictor.run_decoded(inputs[turn % len(inputs)])
            if turn >= _WARM_UP:
                times[place].append((time.perf_counter() - started) * 1000)
    return times[0], times[1]


def _questions(model: Model) -> list[Tensors]:
    """Of a stream its first step: two releases may ask about sounds of other lengths."""
    golden = model.golden_set()
    return [] if golden is None else [model.predictor.first_step(sample.inputs) for sample in golden.samples]


def _not_asked(candidate: Model) -> tuple[CheckResult, ...]:
    """For controls only (`unsafe_disable = ["golden"]`): every check counts as passed without being asked."""
    spec = candidate.release.manifest.golden
    checks = [] if spec is None else spec.checks
    return tuple(
        CheckResult(against=one.against, metric=one.metric, on=one.on, value=None, passed=True)
        for one in checks
    )


def _quantile(values: Sequence[float], q: float) -> float | None:
    return sorted(values)[min(int(q * len(values)), len(values) - 1)] if values else None


def _failure(error: EdgeError) -> TrialFailure:
    if error.code in reasons.EXPLANATIONS:
        return TrialFailure(error.code, str(error))
    for family, code in _CODES:
        if isinstance(error, family):
            return TrialFailure(code, str(error))
    return TrialFailure(reasons.INTERNAL, str(error))


if __name__ == "__main__":
    sys.exit(main())
