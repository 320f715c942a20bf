"""Where the marks of a report's charts stand; pure geometry, drawn by the template as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 800
HEIGHT: Final = 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 226, 26, 44
_LABEL_STEP: Final = 17
_RADIUS_MIN, _RADIUS_MAX = 5.0, 17.0
_LOG_FROM: Final = 12.0
"""From this ratio between slowest and fastest on, a linear axis would press the fast ones together."""


@dataclass(frozen=True, slots=True)
class Point:
    """One candidate as it was measured."""

    name: str
    latency_ms: float
    accuracy: float
    size_bytes: int
    ships: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """A candidate in the plane of the chart; its label stands at the right edge."""

    point: Point
    x: float
    y: float
    radius: float
    label_x: float
    label_y: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of the grid and what it says."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line that means something."""

    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Accuracy over latency; the area of a mark is the size of the files."""

    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    levels: tuple[Level, ...]
    left: float
    right: float
    top: float
    bottom: float
    width: int = WIDTH
    height: int = HEIGHT


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (map(math.log10, (self.low, self.high, value)) if self.is_log
                            else (self.low, self.high, value))  # fmt: skip
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)


def chart_of(points: Sequence[Point], levels: Sequence[tuple[float, str]]) -> Chart | None:
    """Lay out a chart; None when nothing was measured.

    Args:
        points: measured candidates.
        levels: accuracies that mean something, with their names.
    """
    shown = [point for point in points if point.latency_ms > 0 and math.isfinite(point.accuracy)]
    if not shown:
        return None
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    x = _latency_scale([point.latency_ms for point in shown], right)
    y = _accuracy_scale([*(point.accuracy for point in shown), *(value for value, _ in levels)], bottom)
    return Chart(
        marks=_marks(shown, x, y),
        x_ticks=tuple(Tick(x(value), f"{value:g}") for value in _latency_ticks(x)),
        y_ticks=tuple(Tick(y(value), text) for value, text in _named(_ticks(y.low, y.high))),
        levels=tuple(Level(y(value), text) for value, text in levels),
        left=_LEFT,
        right=right,
        top=_TOP,
        bottom=bottom,
    )


def _latency_scale(values: list[float], right: float) -> _Scale:
    low, high = min(values), max(values)
    if high / low > _LOG_FROM:
        return _Scale(low / 1.5, high * 1.5, _LEFT, right, is_log=True)
    return _Scale(0.0, high * 1.12, _LEFT, right)


def _accuracy_scale(values: list[float], bottom: float) -> _Scale:
    low, high = min(values), max(values)
    margin = max((high - low) * 0.15, abs(high) * 0.002, 1e-6)
    return _Scale(low - margin, high + margin, bottom, _TOP)


def _marks(points: list[Point], x: _Scale, y: _Scale) -> tuple[Mark, ...]:
    largest = max(point.size_bytes for point in points) or 1
    # Of marks at one height the right one comes first, so that no leader crosses another.
    ordered = sorted(points, key=lambda point: (y(point.accuracy), -x(point.latency_ms)))
    label_y = _TOP + 4.0
    marks: list[Mark] = []
    for position, point in enumerate(ordered):
        # Labels in the order of the marks, each beside its own if there is room, never over another.
        room_below = (len(ordered) - 1 - position) * _LABEL_STEP
        label_y = min(max(label_y, y(point.accuracy)), HEIGHT - _BOTTOM - room_below)
        radius = max(_RADIUS_MIN, _RADIUS_MAX * math.sqrt(point.size_bytes / largest))
        at = x(point.latency_ms), y(point.accuracy)
        marks.append(Mark(point, *at, round(radius, 1), WIDTH - _RIGHT + 26.0, round(label_y, 1)))
        label_y += _LABEL_STEP
    # Large ones first, so that small ones stay visible on top of them.
    return tuple(sorted(marks, key=lambda mark: -mark.radius))


def _latency_ticks(scale: _Scale) -> list[float]:
    if not scale.is_log:
        return [value for value in _ticks(scale.low, scale.high) if value >= 0]
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    steps = (1, 10) if last - first > 3 else (1, 2, 5)
    values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [value for value in dict.fromkeys(values) if scale.low <= value <= scale.high]


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers between two values: 1, 2 or 5 times a power of ten apart."""
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step)
    return [round(number * step, 12) for number in range(first, math.floor(high / step) + 1)]


def _named(values: list[float]) -> list[tuple[float, str]]:
    """With as many digits as tell neighbours apart."""
    for digits in range(1, 7):
        texts = [f"{value:.{digits}f}" for value in values]
        if len(set(texts)) == len(texts):
            return list(zip(values, texts, strict=True))
    return [(value, f"{value:g}") for value in values]
