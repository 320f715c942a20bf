"""Latency beside the float variant, on a clock that only the two models move."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any

import pytest

from converters.evaluation import measure
from converters.evaluation.measure import ROUNDS, WARM_UP, measure_latency

CALLS = WARM_UP + ROUNDS


class Clock:
    """Seconds since it was made, and how many calls there were."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = 0

    def perf_counter(self) -> float:
        return self.now


class Timed:
    """A predictor whose calls take what it is told."""

    def __init__(self, clock: Clock, costs_s: Iterator[float], second_costs: float = 1.0) -> None:
        self.preprocess = SimpleNamespace(after_decode=lambda decoded: decoded)
        self._clock, self._costs, self._second_costs = clock, costs_s, second_costs

    def first_step(self, decoded: Any) -> Any:
        return decoded

    def run_canonical(self, _: Any) -> None:
        is_second = self._clock.calls % 2 == 1
        self._clock.calls += 1
        self._clock.now += next(self._costs) * (self._second_costs if is_second else 1.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    return clock


def measured(own: Timed, other: Timed | None) -> Any:
    return measure_latency(own, other, {})  # type: ignore[arg-type]


def test_a_twin_is_as_fast_whoever_goes_second(clock: Clock) -> None:
    twins = [Timed(clock, repeat(0.001), second_costs=1.3) for _ in range(2)]

    assert measured(*twins).ratio_to_float == pytest.approx(1.0, abs=0.001)


def test_a_machine_that_gets_busy_meanwhile_changes_no_ratio(clock: Clock) -> None:
    pace = [0.001] * (CALLS // 3) + [0.004] * CALLS
    own, other = Timed(clock, iter([1.5 * cost for cost in pace * 2])), Timed(clock, iter(pace * 2))

    assert measured(own, other).ratio_to_float == pytest.approx(1.5, abs=0.001)


def test_who_seems_slower_is_measured_again_and_believed_when_it_is_not(clock: Clock) -> None:
    disturbed = chain(repeat(0.0016, CALLS), repeat(0.001))

    found = measured(Timed(clock, disturbed), Timed(clock, repeat(0.001)))

    assert found.ratio_to_float == pytest.approx(1.0, abs=0.001)
    assert (found.p50, found.float_p50) == pytest.approx((1.0, 1.0))


def test_who_is_slower_twice_is_slower(clock: Clock) -> None:
    found = measured(Timed(clock, repeat(0.0016)), Timed(clock, repeat(0.001)))

    assert found.ratio_to_float == pytest.approx(1.6, abs=0.001)
    assert (found.p50, found.float_p50) == pytest.approx((1.6, 1.0))


def test_who_stands_alone_has_no_ratio(clock: Clock) -> None:
    found = measured(Timed(clock, repeat(0.002)), None)

    assert (found.p50, found.ratio_to_float, found.float_p50) == (2.0, None, None)
