"""What each stage of a pipeline did: counts, and how long it took."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from edge_runtime.contract.sketch import Sketch

Kind = Literal["source", "model", "sink"]


@dataclass(frozen=True, slots=True)
class StageReport:
    """One stage at one moment."""

    kind: Kind
    name: str
    done: int
    failed: int
    """Frames that could not be read, answered or delivered."""
    dropped: int
    """Live frames or records that newer ones replaced."""
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    last_error: str | None


class Stage:
    """Counts of one stage; any thread may write."""

    def __init__(self, kind: Kind, name: str) -> None:
        self.kind: Kind = kind
        self.name = name
        self._lock = threading.Lock()
        self._times = Sketch()
        self._done = 0
        self._failed = 0
        self._dropped = 0
        self._last_error: str | None = None

    def did(self, seconds: float) -> None:
        """One more, in that time."""
        with self._lock:
            self._done += 1
            self._times.add(seconds * 1000)

    def failed(self, because: str) -> bool:
        """One that went wrong; says whether it is the first with this reason in a row, for whoever tells people."""
        with self._lock:
            self._failed += 1
            is_new = because != self._last_error
            self._last_error = because
            return is_new

    def drop(self) -> None:
        """A live one that a newer one replaced."""
        with self._lock:
            self._dropped += 1

    def report(self, dropped: int = 0) -> StageReport:
        """The counts now."""
        with self._lock:
            p50, p90, p99 = (self._times.quantile(q) for q in (0.5, 0.9, 0.99))
            dropped += self._dropped
            return StageReport(self.kind, self.name, self._done, self._failed, dropped, p50, p90, p99, self._last_error)


@dataclass(frozen=True, slots=True)
class PipelineReport:
    """How a run went, or goes."""

    pipeline: str
    seconds: float
    stages: tuple[StageReport, ...]
    ended_early: bool
    """Whether a source of files did not come to its end."""

    def of(self, kind: Kind) -> tuple[StageReport, ...]:
        """The stages of one kind."""
        return tuple(stage for stage in self.stages if stage.kind == kind)

    @property
    def lost(self) -> int:
        """Frames and records that something went wrong with."""
        return sum(stage.failed for stage in self.stages)

    @property
    def is_complete(self) -> bool:
        """Whether all there was has been answered and delivered."""
        return not self.ended_early and not self.lost

    def summary(self) -> str:
        """One line for a person."""
        frames = sum(stage.done for stage in self.of("source"))
        dropped = sum(stage.dropped for stage in self.of("source"))
        per_second = f" ({frames / self.seconds:.1f}/s)" if self.seconds >= 0.1 else ""
        parts = [f"{frames} {_counted(frames, 'frame')} in {self.seconds:.1f} s{per_second}", f"{dropped} dropped"]
        parts += _failures(self.of("source"), "unreadable")
        parts += _failures(self.of("model"), "not answered")
        delivered = ", ".join(f"{stage.done} to {stage.name}" for stage in self.of("sink"))
        parts += [f"delivered {delivered}", *_failures(self.of("sink"), "not delivered")]
        parts += [f"{stage.dropped} dropped before {stage.name}" for stage in self.of("sink") if stage.dropped]
        return f"{self.pipeline}: {'; '.join(parts)}"


def _failures(stages: Iterable[StageReport], how: str) -> list[str]:
    failed = [(stage.name, stage.failed) for stage in stages if stage.failed]
    return [f"{count} {how} ({name})" for name, count in failed]


def _counted(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
