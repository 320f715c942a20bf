import msgspec
import pytest

from converters.judge import Judgement, Measured, failed_targets, judge
from converters.planner import Candidate, plan_build
from devices.catalogue import resolve_targets
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.release import Limits
from tests.unit.converters.test_recipe import parsed

PLAN = plan_build(parsed(), resolve_targets(("cpu",)), {"onnxruntime": True, "openvino": True, "nncf": True})
ANCHOR, INT8 = PLAN.candidates[:2]
LIMITS = Limits(max_drop={"*": 0.01})
OWN = CheckResult(against="own", metric="snr_db", value=50.0, passed=True, min=30.0)
FLOAT = CheckResult(against="float", metric="snr_db", value=30.0, passed=True, min=15.0)
HERE = "x86-64-cpu"


def measured(**changes: object) -> Measured:
    good: dict[str, object] = {
        "checks": (OWN, FLOAT), "drop": 0.0, "agreement": 1.0, "p95_ms": 1.0, "ratio": 0.6, **changes,
    }  # fmt: skip
    return Measured(**good)  # type: ignore[arg-type]


def verdict(what: Measured, candidate: Candidate = INT8, *, gate: bool = True, here: str | None = HERE) -> Judgement:
    return judge(candidate, what, PLAN, LIMITS, here=here, gate=gate)


def failed(check: CheckResult) -> CheckResult:
    return msgspec.structs.replace(check, passed=False, value=5.0)


def test_a_good_candidate_ships_everywhere() -> None:
    assert verdict(measured()) == Judgement(INT8.arch)


@pytest.mark.parametrize("gate", [True, False])
def test_wrong_silicon_is_refused_whatever_was_switched_off(gate: bool) -> None:
    assert verdict(measured(checks=(failed(OWN), FLOAT)), gate=gate).verdict == "refused:kernel_mismatch"


def test_a_lost_percent_is_refused_and_the_gate_off_ships_it() -> None:
    assert verdict(measured(drop=0.02)).verdict == "refused:accuracy"
    assert verdict(measured(drop=0.02), gate=False).ships


def test_a_drop_of_exactly_the_bound_ships() -> None:
    assert verdict(measured(drop=0.01)).ships


def test_an_answer_far_from_float_is_refused_and_the_gate_off_ships_it() -> None:
    bad = measured(checks=(OWN, failed(FLOAT)))

    assert verdict(bad).verdict == "refused:golden_failed"
    assert verdict(bad, gate=False).ships


def test_slower_than_float_is_left_out_only_where_it_was_measured() -> None:
    judgement = verdict(measured(ratio=1.2))

    assert judgement.arch == ("aarch64",)
    assert judgement.code == "too_slow"


def test_within_the_margin_is_not_slower() -> None:
    assert verdict(measured(ratio=1.03)) == Judgement(INT8.arch)


def test_a_machine_that_is_no_target_decides_nothing_about_speed() -> None:
    assert verdict(measured(ratio=9.0), here=None) == Judgement(INT8.arch)


def test_the_plain_float_variant_ships_even_when_slow_but_not_on_wrong_silicon() -> None:
    assert verdict(measured(ratio=None, p95_ms=1e6), ANCHOR).ships
    assert not verdict(measured(checks=(failed(OWN), FLOAT)), ANCHOR).ships


def test_a_target_whose_every_variant_misses_the_latency_limit_fails() -> None:
    limits = Limits(latency_p95_ms={HERE: 2.0})
    shipped = {ANCHOR.id: Judgement(ANCHOR.arch)}

    assert failed_targets(PLAN, shipped, {ANCHOR.id: 3.0}, limits, here=HERE).keys() == {HERE}
    assert failed_targets(PLAN, shipped, {ANCHOR.id: 1.0}, limits, here=HERE) == {}


def test_a_target_without_a_variant_fails() -> None:
    assert set(failed_targets(PLAN, {}, {}, LIMITS, here=HERE)) == {"arm64-cpu", "raspberry-pi-5", "x86-64-cpu"}
