"""Durations as figures, and ratios that a busy machine does not bend."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.tuning.figures import figures_of, paired_ratio, steady_ratio

DURATIONS = st.lists(st.integers(1, 10**12), min_size=1, max_size=200)


def test_figures_are_milliseconds_between_neighbours() -> None:
    figures = figures_of([4_000_000, 1_000_000, 2_000_000, 3_000_000])

    assert (figures.count, figures.min, figures.p50) == (4, 1.0, 2.5)
    assert figures.p90 == pytest.approx(3.7)


@given(DURATIONS)
def test_figures_are_in_order_and_within_what_was_seen(durations: list[int]) -> None:
    one = figures_of(durations)

    assert min(durations) / 1e6 == one.min <= one.p10 <= one.p50 <= one.p90 <= one.p99 <= max(durations) / 1e6 * 1.0001


def test_what_slows_both_of_a_pair_leaves_their_ratio() -> None:
    bare = [10, 10, 1000, 10, 1000]
    ours = [one * 2 for one in bare]

    assert paired_ratio(ours, bare) == 2
    assert paired_ratio([20, 20, 20, 20, 2000], bare) != 1


def test_on_a_busy_machine_only_calls_that_were_left_alone_are_compared() -> None:
    interrupted = [100, 9000] * 20
    alone_half_as_long = [9000, 50] * 20

    assert steady_ratio(interrupted, alone_half_as_long, is_busy=True) == 2
    assert steady_ratio([200] * 9, [100] * 9, is_busy=False) == 2
