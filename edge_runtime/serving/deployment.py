"""One version of one model, open: answers calls until it is retired, and counts what it does."""

from __future__ import annotations

import threading
import time
from enum import Enum

from edge_runtime.contract.errors import InferenceError
from edge_runtime.inference.model import Model
from edge_runtime.serving.answering import answer, describe_inputs, describe_outputs
from edge_runtime.serving.calls import Call, Reply
from edge_runtime.serving.gate import Gate
from edge_runtime.serving.statistics import Tally

LATE = "deadline"


class ServedState(Enum):
    """What clients may expect of a version."""

    LOADING = "loading"
    READY = "ready"
    DEGRADED = "degraded"
    """Answers, on a slower variant than meant."""
    FAILED = "failed"


class Retired(Exception):
    """The version was taken out of service before the call began: ask the one that replaced it."""


class Deployment:
    """An open version."""

    def __init__(self, name: str, model: Model) -> None:
        release = model.release.manifest
        self.name = name
        self.version = str(release.version)
        self.state = ServedState.READY
        self.inputs = describe_inputs(release)
        self.outputs = describe_outputs(release, model.variant.manifest)
        self.tally = Tally()
        self._model = model
        self._gate = Gate()
        self._asking = threading.Lock()

    def call(self, call: Call) -> Reply:
        """Answer in the caller's thread. Raises: Retired, BadCall, InferenceError."""
        if not self._gate.enter():
            raise Retired
        arrived = time.monotonic_ns()
        try:
            _wait(self._asking, call.deadline)
            try:
                began = time.monotonic_ns()
                tensors = answer(self._model, call)
            finally:
                self._asking.release()
        except BaseException:
            self.tally.failed(time.monotonic_ns() - arrived)
            raise
        finally:
            self._gate.leave()
        samples = max((len(values) for values in tensors.values()), default=0)
        self.tally.succeeded(began - arrived, time.monotonic_ns() - began, samples)
        return Reply(tensors, self.name, self.version)

    def retire(self) -> None:
        """Let nobody in, wait for calls in flight, free the model."""
        self._gate.drain()
        self._model.close()


def _wait(lock: threading.Lock, deadline: float | None) -> None:
    left = -1.0 if deadline is None else deadline - time.monotonic()
    if (deadline is not None and left <= 0) or not lock.acquire(timeout=left):
        raise InferenceError("answer in time", "the deadline has passed", "allow more time", code=LATE)
