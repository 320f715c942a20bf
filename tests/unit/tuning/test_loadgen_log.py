"""What LoadGen wrote down is read as it stands there, whatever else the file holds."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.tuning.loadgen_log import outcome_of, results_in


def log(**entries: object) -> list[str]:
    return [":::MLLOG " + json.dumps({"key": key, "value": value, "metadata": {}}) for key, value in entries.items()]


def percentiles(kind: str, *ns: int) -> dict[str, object]:
    return {f"result_{q}.00_percentile_{kind}_ns": one for q, one in zip((50, 90, 99), ns, strict=True)}


def test_a_valid_run_has_its_latencies_and_rate() -> None:
    lines = log(
        result_validity="VALID", result_query_count=231, result_qps_with_loadgen_overhead=458.9,
        result_min_latency_ns=2_000_000, **percentiles("latency", 2_100_000, 2_200_000, 3_700_000),
    )  # fmt: skip

    outcome = outcome_of(results_in(lines), samples=1, seconds=9.0)

    assert (outcome.is_valid, outcome.why_not, outcome.per_s) == (True, "", 458.9)
    latency = outcome.latency
    assert (latency.count, latency.min, latency.p50, latency.p90, latency.p99) == (231, 2.0, 2.1, 2.2, 3.7)


def test_of_several_streams_whole_queries_are_timed_and_samples_counted() -> None:
    lines = log(
        result_validity="VALID", result_query_count=100, result_min_latency_ns=1,
        result_min_query_latency_ns=16_000_000,
        **percentiles("latency", 1, 2, 3), **percentiles("per_query_latency", 17_000_000, 18_000_000, 19_000_000),
    )  # fmt: skip

    outcome = outcome_of(results_in(lines), samples=800, seconds=2.0)

    assert (outcome.latency.min, outcome.latency.p50, outcome.per_s) == (16.0, 17.0, 400.0)


def test_a_run_that_is_not_valid_says_why() -> None:
    told = log(result_validity="INVALID", result_invalid_reason="Reduce target QPS to \n improve latency. ")
    silent = log(result_validity="INVALID", result_invalid_reason="", result_min_duration_met=True,
                 result_min_queries_met=False, early_stopping_met=False)  # fmt: skip

    assert outcome_of(results_in(told), 1, 1.0).why_not == "Reduce target QPS to improve latency."
    why = outcome_of(results_in(silent), 1, 1.0).why_not
    assert why == "there were too few queries; there were too few queries to be sure of the percentile"


@given(st.lists(st.one_of(st.text(), st.text().map(":::MLLOG {}".format), st.builds(
    lambda key, value: ":::MLLOG " + json.dumps({"key": key, "value": value}),
    st.sampled_from(["result_validity", "result_query_count", "result_min_latency_ns", "result_invalid_reason"]),
    st.one_of(st.none(), st.integers(), st.text(), st.lists(st.integers()), st.booleans()),
))))  # fmt: skip
def test_no_line_breaks_the_reading(lines: list[str]) -> None:
    outcome = outcome_of(results_in(lines), samples=3, seconds=1.0)

    assert outcome.per_s == 3.0
    assert isinstance(outcome.is_valid, bool)
