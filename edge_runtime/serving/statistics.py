"""What a served version has done so far, in the terms in which inference servers report it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Spent:
    """How often something happened and how long it took in all."""

    count: int = 0
    ns: int = 0

    def plus(self, ns: int) -> Spent:
        """One more, of that length."""
        return Spent(self.count + 1, self.ns + ns)


@dataclass(frozen=True, slots=True)
class ServedStatistics:
    """Counters of one version since it was first loaded; they outlive unloading, reloading and falling back."""

    success: Spent = Spent()
    """From the call's arrival to its reply."""
    fail: Spent = Spent()
    queue: Spent = Spent()
    """Waiting for the model."""
    compute_input: Spent = Spent()
    """Decoding and preprocessing."""
    compute_infer: Spent = Spent()
    """Inside the engine."""
    compute_output: Spent = Spent()
    """Postprocessing."""
    inference_count: int = 0
    """Samples answered."""
    execution_count: int = 0
    """Runs of the engine; fewer than samples where it took several at once."""
    last_inference_ms: int = 0
    """Wall clock, milliseconds since 1970; 0: never."""


@dataclass(slots=True)
class Tally:
    """Collects the counters of one version."""

    _now: ServedStatistics = ServedStatistics()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> ServedStatistics:
        """The counters now."""
        return self._now

    def succeeded(self, waited_ns: int, worked_ns: int, samples: int) -> None:
        """One call was answered."""
        with self._lock:
            was = self._now
            self._now = replace(
                was,
                success=was.success.plus(waited_ns + worked_ns),
                queue=was.queue.plus(waited_ns),
                compute_infer=was.compute_infer.plus(worked_ns),
                inference_count=was.inference_count + samples,
                execution_count=was.execution_count + 1,
                last_inference_ms=time.time_ns() // 1_000_000,
            )

    def failed(self, ns: int) -> None:
        """One call was refused or failed."""
        with self._lock:
            self._now = replace(self._now, fail=self._now.fail.plus(ns))
