"""Where the update machine meets inference: opens what an activation names, and tries candidates."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import msgspec

from edge_runtime.agent.fingerprint import shown_end
from edge_runtime.agent.trial_task import TrialTask
from edge_runtime.contract import reasons
from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.installed import open_build
from edge_runtime.update.ports import Interrupted, TrialFailure, TrialMeasurement, TrialRequest
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore

if TYPE_CHECKING:
    from edge_runtime.inference.model import Model

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
