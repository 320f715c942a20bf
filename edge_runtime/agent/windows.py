"""Counts what a slot does, and cuts it into telemetry windows."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import SlotId, VariantId
from edge_runtime.contract.sketch import Sketch
from edge_runtime.contract.telemetry import Sample


@dataclass(slots=True)
class _Window:
    start: float
    requests: int = 0
    correct: int = 0
    total: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latency_ms: Sketch = field(default_factory=Sketch)
    confidence: Sketch = field(default_factory=Sketch)


@dataclass(frozen=True, slots=True)
class Observation:
    """One request, as it is counted."""

    release: Digest
    variant: VariantId
    elapsed_ms: float
    error: str | None = None
    """Reason code of a failure."""
    confidence: float | None = None
    correct: bool | None = None
    """None when nobody knows the right answer."""


class WindowRecorder:
    """Open windows of one slot, one for each build that answered meanwhile. Thread-safe."""

    def __init__(self, slot: SlotId) -> None:
        self._slot = slot
        self._open: dict[tuple[Digest, VariantId], _Window] = {}
        self._lock = threading.Lock()

    def record(self, seen: Observation, now: float) -> None:
        """Count one request into the window of the build that answered it."""
        with self._lock:
            window = self._open.setdefault((seen.release, seen.variant), _Window(now))
            window.requests += 1
            window.latency_ms.add(seen.elapsed_ms)
            if seen.error is not None:
                window.errors[seen.error] += 1
            if seen.confidence is not None:
                window.confidence.add(seen.confidence)
            if seen.correct is not None:
                window.total += 1
                window.correct += seen.correct

    def fail(self, release: Digest, variant: VariantId, code: str, now: float) -> None:
        """Count a request that a build could not answer, for which another build was asked then."""
        with self._lock:
            window = self._open.setdefault((release, variant), _Window(now))
            window.requests += 1
            window.errors[code] += 1

    def cut(self, now: float, read_gauges: Callable[[], dict[str, float]]) -> list[Sample]:
        """Close every open window; empty when nothing happened, and then no gauge is read either."""
        with self._lock:
            closed, self._open = self._open, {}
        if not closed:
            return []
        gauges = read_gauges()
        return [
            Sample(
                start=window.start,
                end=now,
                slot=self._slot,
                release=release,
                variant=variant,
                requests=window.requests,
                correct=window.correct if window.total else None,
                total=window.total or None,
                errors=dict(window.errors),
                latency_ms=window.latency_ms.to_data(),
                confidence=window.confidence.to_data() if window.confidence.count else None,
                gauges=gauges,
            )
            for (release, variant), window in closed.items()
        ]
