"""What a measurement means."""

import pytest

from edge_runtime.contract.device_state import Candidate
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.ids import VariantId
from edge_runtime.update.ports import TrialFailure, TrialMeasurement
from edge_runtime.update.states import Passed
from edge_runtime.update.trial import Accepted, Bounds, Refused, choose_fastest, judge


def measured(*failing: str, **changes: object) -> TrialMeasurement:
    checks = tuple(
        CheckResult(against=against, metric="snr_db", value=None if against in failing else 40.0, min=30.0,
                    passed=against not in failing)
        for against in ("own", "float", "truth")
    )  # fmt: skip
    fields: dict[str, object] = {"checks": checks, "p50_ms": 4.0, "p95_ms": 6.0, "peak_bytes": 10}
    return TrialMeasurement(**{**fields, **changes})  # type: ignore[arg-type]


def bounds(**changes: object) -> Bounds:
    return Bounds(**{"checks": 3, "own_is_float": False, **changes})  # type: ignore[arg-type]


def code_of(measurement: TrialMeasurement, **changes: object) -> str:
    verdict = judge(measurement, bounds(**changes))
    assert isinstance(verdict, Refused)
    return verdict.code


def passed(name: str, p50_ms: float, ratio: float | None = None) -> Passed:
    return Passed(Candidate(id=VariantId(name), digest=digest_of(name.encode())), p50_ms, ratio)


def test_a_candidate_within_all_bounds_is_accepted() -> None:
    assert judge(measured(), bounds()) == Accepted(4.0, None)
    assert judge(measured(running_p50_ms=8.0), bounds(max_latency_ratio=0.5)) == Accepted(4.0, 0.5)


@pytest.mark.parametrize(
    ("failing", "own_is_float", "code"),
    [
        (("own",), False, "kernel_mismatch"),
        (("own", "float"), False, "kernel_mismatch"),
        (("own", "float", "truth"), False, "kernel_mismatch"),
        (("float",), False, "golden_failed"),
        (("float", "truth"), False, "golden_failed"),
        (("truth",), False, "truth_failed"),
        (("own", "float"), True, "golden_failed"),
        (("own", "float", "truth"), True, "truth_failed"),
    ],
)
def test_which_references_fail_tells_what_is_wrong(failing: tuple[str, ...], own_is_float: bool, code: str) -> None:
    assert code_of(measured(*failing), own_is_float=own_is_float) == code


def test_checks_that_were_not_made_count_against_the_candidate() -> None:
    assert code_of(measured(checks=())) == "golden_failed"


@pytest.mark.parametrize("broken", [{"p50_ms": None}, {"p95_ms": float("nan")}])
def test_a_latency_that_was_not_measured_counts_against_the_candidate(broken: dict[str, object]) -> None:
    assert code_of(measured(**broken)) == "internal"


def test_latency_and_memory_bounds_hold() -> None:
    assert code_of(measured(), latency_p95_ms=5.0) == "too_slow"
    assert code_of(measured(running_p50_ms=2.0), max_latency_ratio=1.5) == "too_slow"
    assert code_of(measured(), memory_bytes=9) == "memory"


def test_a_candidate_that_could_not_be_asked_is_refused_with_its_own_reason() -> None:
    assert code_of(measured(failure=TrialFailure("load_failed", "opset 99"))) == "load_failed"


def test_the_refusal_names_the_numbers() -> None:
    verdict = judge(measured("float"), bounds())

    assert verdict == Refused("golden_failed", "snr_db against float is not a number (min 30)")


def test_a_later_candidate_must_win_by_more_than_noise() -> None:
    first = passed("first", 10.0)

    assert choose_fastest([]) is None
    assert choose_fastest([first, passed("second", 9.8)]) == first
    assert choose_fastest([first, passed("second", 9.6)]) == passed("second", 9.6)


def test_ratios_to_the_running_model_decide_where_there_are_any() -> None:
    loaded_moment = passed("first", 20.0, 0.5)

    assert choose_fastest([loaded_moment, passed("second", 10.0, 0.9)]) == loaded_moment
