"""What a model did is counted without a lock, and added up when somebody looks."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.inference.requests.accounting import BUCKETS, FAILED, RUN, Accounting, bucket_of
from edge_runtime.inference.requests.statistics import middle_of, statistics_of


@given(st.integers(min_value=0, max_value=1 << 62))
def test_the_middle_of_a_bucket_is_within_one_percent_of_what_it_counts(ns: int) -> None:
    bucket = bucket_of(ns)

    assert 0 <= bucket < BUCKETS
    assert abs(middle_of(bucket) - min(ns, (1 << 40) - 1)) <= max(1, ns) / 100


@given(st.integers(min_value=0, max_value=1 << 45))
def test_longer_calls_are_never_counted_in_a_lower_bucket(ns: int) -> None:
    assert bucket_of(ns) <= bucket_of(ns + 1)


@given(st.integers(min_value=0, max_value=1 << 45))
def test_the_short_way_to_count_an_answer_uses_the_same_bucket(ns: int) -> None:
    record = Accounting().record()

    record.answered(ns, 1)

    assert record.histograms[RUN][bucket_of(ns)] == 1


def in_threads(count: int, body: Callable[[], object]) -> None:
    threads = [threading.Thread(target=body) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_nothing_that_several_threads_count_is_lost() -> None:
    accounting = Accounting()

    def work() -> None:
        for number in range(1000):
            accounting.record().answered(1000 + number, 2)
            accounting.record().count(FAILED)

    in_threads(8, work)
    found = statistics_of(accounting)

    assert (found.success, found.samples, found.failed) == (8000, 16000, 8000)
    assert found.stages["run"].count == 8000
    assert found.stages["run"].total_ns == 8 * sum(range(1000, 2000))


def test_threads_that_come_and_go_take_no_memory_of_their_own() -> None:
    accounting = Accounting()

    for _ in range(50):
        in_threads(2, lambda: accounting.record().count(FAILED))

    assert statistics_of(accounting).failed == 100
    assert len(accounting._records) <= 4


def test_quantiles_come_in_seconds_and_a_window_holds_only_what_is_new() -> None:
    accounting = Accounting()
    for microseconds in range(1, 101):
        accounting.record().time(RUN, microseconds * 1000)
    before = statistics_of(accounting).stages["run"]
    accounting.record().time(RUN, 5_000_000)

    window = statistics_of(accounting).stages["run"].since(before)

    assert before.quantile_s(0.5) == pytest.approx(50e-6, rel=0.02)
    assert before.quantile_s(0.99) == pytest.approx(99e-6, rel=0.02)
    assert (window.count, window.total_ns) == (1, 5_000_000)
    assert window.sketch(1e-3).quantile(0.5) == pytest.approx(5.0, rel=0.02)
    assert statistics_of(accounting).stages["queue"].quantile_s(0.5) is None
