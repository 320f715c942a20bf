"""Scores over time to segments, one score after the other: what comes later changes no segment that was given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from edge_runtime.contract.answer_steps import Hysteresis
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import shown
from edge_runtime.inference.postprocessing.stream_results import Segment

_ROUNDING: float = 1e-9
"""A time in ms divided by a step in s is rarely exact; 100 ms are ten steps of 10 ms, not eleven."""


def check_hysteresis(step: Hysteresis) -> None:
    """Refuse thresholds and times that give no segments, or segments that overlap. Raises: ContractError."""
    what = f"find segments in tensor {shown(step.from_)}"
    if not (math.isfinite(step.on) and step.off <= step.on):
        raise ContractError(what, f"it begins at {step.on} and ends below {step.off}", "end at or below the beginning")
    if not 0 <= 2 * step.pad_ms <= step.min_off_ms or step.min_on_ms < 0:
        because = f"segments padded by {step.pad_ms} ms, with pauses of {step.min_off_ms} ms, could overlap"
        raise ContractError(what, because, "make min_off_ms at least twice pad_ms")


def segment_overlap(first: Sequence[Segment], second: Sequence[Segment]) -> tuple[float, float]:
    """Seconds that lie in segments of both, and in segments of either; each list is in the order of time, apart."""
    both = 0.0
    left, right = list(first), list(second)
    while left and right:
        both += max(0.0, min(left[0].end_s, right[0].end_s) - max(left[0].start_s, right[0].start_s))
        (left if left[0].end_s <= right[0].end_s else right).pop(0)
    length = sum(one.end_s - one.start_s for one in (*first, *second))
    return both, length - both


@dataclass(slots=True)
class SegmentFinder:
    """Finds the segments of one stream.

    A score of `on` or more begins a segment, a score below `off` (or no number) ends it. Pauses shorter than
    `min_off_ms` are none, then segments shorter than `min_on_ms` are none, then each grows by `pad_ms` at both ends,
    within the sound. A segment begins with its first frame and ends where the first frame of the pause begins.
    """

    step: Hysteresis
    step_s: float
    """Seconds from one score to the next."""
    offset_s: float = 0.0
    """When the first score's frame begins."""
    _count: int = 0
    _is_on: bool = False
    _begin: int | None = None
    _pause: int | None = None
    """Where the scores fell last, while the pause is still too short to be one."""
    _found: list[Segment] = field(default_factory=list)

    @property
    def open_since_s(self) -> float | None:
        """When the segment that has not ended yet began; None when there is none, or it may still be too short."""
        if self._begin is None:
            return None
        until = self._count if self._pause is None else self._pause
        return self._padded(self._begin, until).start_s if self._is_long(self._begin, until) else None

    def push(self, score: float) -> None:
        """Take the next score in."""
        self._is_on = score >= self.step.off if self._is_on else score >= self.step.on
        if self._is_on:
            self._begin = self._count if self._begin is None else self._begin
            self._pause = None
        elif self._begin is not None:
            self._pause = self._count if self._pause is None else self._pause
            if self._count + 1 - self._pause >= self._steps(self.step.min_off_ms):
                self._close(self._pause)
        self._count += 1

    def take(self) -> tuple[Segment, ...]:
        """Segments that ended since this was last asked."""
        found, self._found = tuple(self._found), []
        return found

    def finish(self, end_s: float) -> None:
        """No score comes any more: end the open segment, at the end of the sound if it was still on."""
        if self._begin is not None:
            self._close(self._count if self._pause is None else self._pause, end_s)

    def restart(self, end_s: float, offset_s: float) -> None:
        """The stream ended at `end_s`; the next score's frame begins at `offset_s` of a new one."""
        self.finish(end_s)
        self.offset_s, self._count, self._is_on = offset_s, 0, False

    def _close(self, end: int, sound_end_s: float = math.inf) -> None:
        begin, self._begin, self._pause, self._is_on = self._begin, None, None, False
        if begin is not None and self._is_long(begin, end):
            found = self._padded(begin, end)
            self._found.append(Segment(found.start_s, min(found.end_s, sound_end_s)))

    def _padded(self, begin: int, end: int) -> Segment:
        pad_s = self.step.pad_ms / 1000
        start_s, end_s = self.offset_s + begin * self.step_s, self.offset_s + end * self.step_s
        return Segment(max(self.offset_s, start_s - pad_s), end_s + pad_s)

    def _is_long(self, begin: int, end: int) -> bool:
        return end - begin >= self._steps(self.step.min_on_ms)

    def _steps(self, duration_ms: float) -> int:
        return max(1, math.ceil(duration_ms / 1000 / self.step_s - _ROUNDING))
