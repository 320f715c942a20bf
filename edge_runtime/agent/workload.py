"""Where the update machine meets inference: opens what an activation names, answers with it, tries candidates."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from edge_runtime.agent.fingerprint import shown_end
from edge_runtime.agent.trial_task import TrialTask
from edge_runtime.contract import reasons
from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.installed import open_build
from edge_runtime.update.ports import Health, Interrupted, TrialFailure, TrialMeasurement, TrialRequest
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore

if TYPE_CHECKING:
    from edge_runtime.inference.model import Model
    from edge_runtime.inference.postprocessing.results import Answer

BAD_INPUT: Final = "bad_input"
"""Why there is no answer when the request itself is to blame."""
_WARM_UP_SAMPLES: Final = 2
_ANSWER_MAX_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What the owner allows inference on this device."""

    backends: tuple[str, ...] | None
    threads: int
    memory_bytes: int | None


def open_activation(store: ContentStore, activation: Activation, limits: EngineLimits, facts: DeviceFacts) -> Model:
    """Open exactly the build that an activation names. Raises: InferenceError, ContractError, DigestMismatch."""
    return open_build(store, activation, threads=limits.threads, backends=limits.backends, facts=facts)


@dataclass(slots=True)
class _Loaded:
    activation: Activation
    model: Model
    requests: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, and who gave it."""

    activation: Activation
    answer: Answer | None
    """None when there is none, for the reason `error`."""
    error: str | None
    elapsed_ms: float


class LiveModel:
    """The slot's model in this process (`update.ports.LiveSlot`); any thread may ask it.

    Args:
        store: where releases are.
        limits: engines, threads, memory.
        facts: this device.
        check_golden: whether a model must answer the golden set before it takes over.
    """

    def __init__(
        self, store: ContentStore, limits: EngineLimits, facts: DeviceFacts, *, check_golden: bool = True
    ) -> None:
        self._store = store
        self._limits = limits
        self._facts = facts
        self._check_golden = check_golden
        self._loaded: _Loaded | None = None
        # One caller at a time: a swap waits for the request in flight and the next one meets the new model.
        self._asking = threading.Lock()

    def activate(self, activation: Activation) -> None:
        """Load beside, warm up, ask the golden set, swap between requests; see `LiveSlot.activate`."""
        loaded = self._loaded
        if loaded is not None and loaded.activation.same_build(activation):
            with self._asking:
                loaded.activation = activation
            return
        model = open_activation(self._store, activation, self._limits, self._facts)
        try:
            self._prepare(model)
        except BaseException as error:
            model.close()
            if isinstance(error, EdgeError | MemoryError) or not isinstance(error, Exception):
                raise
            # The update machine goes back to what ran before for an EdgeError, and for nothing else.
            raise InferenceError(
                f"activate variant {model.variant_id}",
                f"it breaks at its golden set ({type(error).__name__}: {shown(str(error))})",
                "the former release keeps answering",
                code=reasons.LOAD_FAILED,
            ) from error
        with self._asking:
            former, self._loaded = self._loaded, _Loaded(activation, model)
        if former is not None:
            former.model.close()

    def deactivate(self) -> None:
        """Stop answering; safe to repeat."""
        with self._asking:
            former, self._loaded = self._loaded, None
        if former is not None:
            former.model.close()

    def health(self) -> Health:
        """Counters since the loaded build was activated; see `LiveSlot.health`."""
        loaded = self._loaded
        if loaded is None:
            return Health(loaded=None)
        return Health(loaded.activation.variant_digest, loaded.requests, loaded.errors)

    @property
    def activation(self) -> Activation | None:
        """What answers now."""
        loaded = self._loaded
        return None if loaded is None else loaded.activation

    def ask_encoded(self, content: bytes) -> Answered | None:
        """The answer to one encoded input (PNG, JPEG) of a model with a single input; None when nothing runs."""
        with self._asking:
            loaded = self._loaded
            if loaded is None:
                return None
            started = time.perf_counter()
            answer: Answer | None = None
            code: str | None = None
            predictor = loaded.model.predictor
            try:
                decoded = predictor.preprocess.decode({predictor.preprocess.inputs[0].name: content})
                feeds = predictor.preprocess.after_decode(decoded)
            except Exception:  # noqa: BLE001 - parsers of foreign bytes fail in ways that nobody can list
                # A picture that cannot be read is not the model's fault and must not roll it back.
                code = BAD_INPUT
            else:
                loaded.requests += 1
                try:
                    answer = predictor.interpret(predictor.run_canonical(feeds), decoded)[0]
                except Exception as error:  # noqa: BLE001 - counted, so that it can be rolled back
                    code = error.code if isinstance(error, EdgeError) else InferenceError.default_code
                    loaded.errors += 1
            return Answered(loaded.activation, answer, code, (time.perf_counter() - started) * 1000)

    def _prepare(self, model: Model) -> None:
        golden = model.golden_set()
        if golden is None:
            return
        for sample in golden.samples[:_WARM_UP_SAMPLES]:
            model.predictor.run_decoded(sample.inputs)
        if not self._check_golden:
            return
        for check in model.golden_check():
            if not check.passed:
                raise InferenceError(
                    f"activate variant {model.variant_id}",
                    f"golden check {check.against} {check.metric} is {check.value}",
                    "the former release keeps answering",
                    code=reasons.GOLDEN_FAILED,
                )


@dataclass(slots=True)
class ProcessBench:
    """Tries candidates in a child process (`update.ports.TrialBench`): an engine's crash ends the child only.

    Args:
        store_root: folder of the content store.
        limits: engines, threads, memory.
        facts: this device.
        timeout_s: a trial that takes longer is ended.
        check_golden: False only for controls: the golden set is not asked.
    """

    store_root: str
    limits: EngineLimits
    facts: DeviceFacts
    timeout_s: float
    check_golden: bool = True
    _child: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _stopped: bool = field(default=False, init=False)

    def trial(self, request: TrialRequest) -> TrialMeasurement:
        """Measure one candidate; see `TrialBench.trial`."""
        task = TrialTask(
            store_root=self.store_root,
            candidate=request.candidate,
            running=request.running,
            backends=None if self.limits.backends is None else list(self.limits.backends),
            threads=self.limits.threads,
            memory_bytes=self.limits.memory_bytes,
            facts=self.facts,
            ask_golden=self.check_golden,
        )
        command = [sys.executable, "-m", "edge_runtime.agent.trial_process", str(os.getpid())]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._child = child
        if self._stopped:
            child.kill()
        try:
            answer, errors = child.communicate(msgspec.json.encode(task), timeout=self.timeout_s)
        except subprocess.TimeoutExpired:
            return _failed(reasons.TOO_SLOW, f"the trial did not end within {self.timeout_s:g} s")
        finally:
            if child.poll() is None:
                child.kill()
                child.communicate()
            self._child = None
        if self._stopped:
            raise Interrupted(f"try variant {request.candidate.variant}", "the agent ends", "it is tried again")
        return _measurement(child.returncode, answer, errors)

    def stop(self) -> None:
        """End a trial in progress, because the agent ends."""
        self._stopped = True
        child = self._child
        if child is not None:
            child.kill()


def _measurement(status: int, answer: bytes, errors: bytes) -> TrialMeasurement:
    if status == 0 and len(answer) <= _ANSWER_MAX_BYTES:
        try:
            return msgspec.json.decode(answer, type=TrialMeasurement)
        except msgspec.DecodeError as error:
            return _failed(reasons.LOAD_FAILED, f"the trial process answered nonsense ({error})")
    last = shown_end(errors)
    if "MemoryError" in last or "bad_alloc" in last:
        return _failed(reasons.MEMORY, "the candidate does not fit into the memory granted to it")
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return _failed(reasons.CRASH_LOOP, f"the trial process ended with {how}" + (f": {last}" if last else ""))


def _failed(code: str, detail: str) -> TrialMeasurement:
    return TrialMeasurement(failure=TrialFailure(code, detail))
