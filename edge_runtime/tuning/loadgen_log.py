"""What MLPerf LoadGen wrote down about a run (pure)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

import msgspec

_PREFIX: Final = ":::MLLOG "
_NUMBERS: Final = (int, float)


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of queries, as LoadGen counted them; of an offline run's samples, which are one query."""

    count: int
    min: float
    p50: float
    p90: float
    p99: float


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A run as LoadGen judges it."""

    is_valid: bool
    why_not: str
    """LoadGen's own words; empty for a valid run."""
    latency: Latency
    per_s: float
    """Samples a second: completed for a server, answered otherwise."""


def results_in(lines: Iterable[str]) -> dict[str, Any]:
    """The last value of each key of LoadGen's detailed log; lines that are none of its entries are left out."""
    found: dict[str, Any] = {}
    for line in lines:
        if not line.startswith(_PREFIX):
            continue
        try:
            entry = json.loads(line.removeprefix(_PREFIX))
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("key"), str):
            found[entry["key"]] = entry.get("value")
    return found


def outcome_of(results: dict[str, Any], samples: int, seconds: float) -> Outcome:
    """The judgement in a log of a performance run.

    Args:
        results: of `results_in`.
        samples: that were answered; an offline run is one query of so many.
        seconds: that they took altogether, for runs whose log has no rate.
    """
    # Of several streams a query is answered with its last sample.
    kind = "per_query_latency" if "result_50.00_percentile_per_query_latency_ns" in results else "latency"
    least = "result_min_query_latency_ns" if kind == "per_query_latency" else "result_min_latency_ns"
    p50, p90, p99 = (_ms(results, f"result_{q}.00_percentile_{kind}_ns") for q in (50, 90, 99))
    rates = ("result_samples_per_second", "result_completed_samples_per_sec", "result_qps_with_loadgen_overhead")
    per_s = next((float(results[key]) for key in rates if isinstance(results.get(key), _NUMBERS)), 0.0)
    is_one_query = "result_samples_per_second" in results
    count = samples if is_one_query else results.get("result_query_count")
    is_valid = results.get("result_validity") == "VALID"
    why_not = "" if is_valid else _one_line(results.get("result_invalid_reason")) or _unmet(results)
    return Outcome(
        is_valid=is_valid, why_not=why_not, per_s=per_s or samples / max(seconds, 1e-9),
        latency=Latency(count=count if isinstance(count, int) else samples, min=_ms(results, least), p50=p50, p90=p90,
                        p99=p99),
    )  # fmt: skip


def _unmet(results: dict[str, Any]) -> str:
    names = {
        "result_min_duration_met": "it was too short",
        "result_min_queries_met": "there were too few queries",
        "result_perf_constraints_met": "too many answers were late",
        "early_stopping_met": "there were too few queries to be sure of the percentile",
    }
    return "; ".join(said for key, said in names.items() if results.get(key) is False)


def _ms(results: dict[str, Any], key: str) -> float:
    value = results.get(key)
    return float(value) / 1e6 if isinstance(value, _NUMBERS) else 0.0


def _one_line(text: object) -> str:
    return " ".join(str(text).split()) if text else ""
