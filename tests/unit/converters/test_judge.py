import msgspec
import pytest

from converters.planning.judge import (
    Answered,
    Judgement,
    Measured,
    failed_targets,
    judge,
    refuse_unmeasurable,
    same_instructions,
    unjudged_latency,
)
from converters.planning.planner import Candidate, plan_build
from devices.catalogue import resolve_targets
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.release import Limits
from tests.unit.converters.test_recipe import parsed

MIXED = plan_build(parsed(prefer="size"), resolve_targets(("cpu",)), {"onnxruntime": True, "openvino": True})
HALF, WHOLE = (one for one in MIXED.candidates if one.engine == "openvino")
EVERY = {"onnxruntime": True, "openvino": True, "nncf": True}
PLAN = plan_build(parsed(methods=["int8", "int8-full"]), resolve_targets(("cpu",)), EVERY)
ANCHOR, INT8, FULL = PLAN.candidates[:3]
LIMITS = Limits(max_drop={"*": 0.01})
OWN = CheckResult(against="own", metric="snr_db", value=50.0, passed=True, min=30.0)
FLOAT = CheckResult(against="float", metric="snr_db", value=30.0, passed=True, min=15.0)
TRUTH = CheckResult(against="truth", metric="top1", value=0.9, passed=True, min=0.75)
HERE = "x86-64-cpu"


AVX2 = "x86_64 without VNNI"


def answered(**changes: object) -> Answered:
    good: dict[str, object] = {
        "kernels": "x86_64 with VNNI", "is_narrow": False, "checks": (OWN, FLOAT), "drop": 0.0, "agreement": 1.0,
        **changes,
    }  # fmt: skip
    return Answered(**good)  # type: ignore[arg-type]


def measured(
    *,
    p95_ms: float = 1.0,
    ratio: float | None = 0.6,
    elsewhere: tuple[Answered, ...] = (),
    emulated: tuple[CheckResult, ...] = (),
    **changes: object,
) -> Measured:
    return Measured(answered(**changes), p95_ms, ratio, elsewhere, emulated)


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


@pytest.mark.parametrize("candidate", [ANCHOR, INT8])
def test_what_every_device_would_refuse_for_its_labels_does_not_ship(candidate: Candidate) -> None:
    untrue = answered(kernels="aarch64 (emulated:qemu-user)", checks=(OWN, FLOAT, failed(TRUTH)))

    for found in (measured(checks=(OWN, FLOAT, failed(TRUTH))), measured(elsewhere=(untrue,))):
        assert verdict(found, candidate).verdict == "refused:truth_failed"
        assert "top1 against truth is 5.000" in verdict(found, candidate).because
        assert verdict(found, candidate, gate=False).ships

    assert verdict(measured(checks=(OWN, FLOAT, TRUTH)), candidate).ships


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


def test_a_file_that_narrow_kernels_clip_is_refused_for_saturation_with_its_decibels() -> None:
    clipped = answered(kernels=AVX2, is_narrow=True, checks=(failed(OWN), FLOAT), drop=0.53)

    for found in (Measured(clipped, 1.0, 0.6), measured(elsewhere=(clipped,))):
        judgement = verdict(found, FULL)

        assert judgement.verdict == "refused:saturation"
        assert "x86_64 without VNNI" in judgement.because
        assert "5.0 dB" in judgement.because
        assert "0.5300" in judgement.because


def test_a_file_that_cannot_saturate_and_differs_all_the_same_is_a_kernel_mismatch() -> None:
    odd = answered(kernels=AVX2, is_narrow=True, checks=(failed(OWN), FLOAT))

    assert verdict(Measured(odd, 1.0, 0.6), INT8).verdict == "refused:kernel_mismatch"


def test_accuracy_lost_on_another_instruction_set_refuses_and_names_it() -> None:
    judgement = verdict(measured(elsewhere=(answered(kernels="aarch64 (emulated:qemu-user)", drop=0.02),)))

    assert judgement.verdict == "refused:accuracy"
    assert "aarch64 (emulated:qemu-user)" in judgement.because


def test_what_may_saturate_where_nobody_can_look_is_not_built() -> None:
    refusal = refuse_unmeasurable(FULL, PLAN, can_measure=False)

    assert refusal
    assert refusal.verdict == "refused:unmeasured"
    assert "x86-64-cpu" in refusal.because
    assert "--no-emulate" in refusal.because
    assert refuse_unmeasurable(FULL, PLAN, can_measure=True) is None
    assert refuse_unmeasurable(INT8, PLAN, can_measure=False) is None


def test_only_the_very_instruction_set_of_a_target_may_speak_about_its_speed() -> None:
    assert same_instructions(PLAN, "x86_64", ("sse4_2", "avx", "avx2", "f16c", "fma")) == HERE
    assert same_instructions(PLAN, "x86_64", ("avx", "avx2", "fma", "avx512f", "avx512_vnni")) is None
    assert same_instructions(PLAN, "aarch64", ("asimd", "asimddp", "asimdhp")) == "raspberry-pi-5"


def test_a_bound_without_labels_is_said_in_its_own_words_and_never_as_a_drop() -> None:
    unlabelled = Limits(min_snr_db={"*": 20.0})

    verdict_ = judge(INT8, measured(drop=None, snr_db=12.3), PLAN, unlabelled, here=HERE, gate=True)

    assert (verdict_.ships, verdict_.code) == (False, "accuracy")
    assert "12.3 dB from the source model's" in verdict_.because
    assert "drop" not in verdict_.because


@pytest.mark.parametrize("broken", [{"drop": float("nan")}, {"agreement": float("nan")}, {"snr_db": float("nan")}])
def test_what_is_not_a_number_is_within_no_bound(broken) -> None:
    bounds = Limits(max_drop={"*": 0.5}, min_agreement={"*": 0.1}, min_snr_db={"*": 1.0})

    assert not judge(INT8, measured(**broken), PLAN, bounds, here=HERE, gate=True).ships


def test_kernels_are_not_blamed_for_a_file_that_is_wrong_in_exact_arithmetic() -> None:
    lost = measured(checks=(failed(OWN), failed(FLOAT)), emulated=(failed(FLOAT),))

    assert verdict(lost).verdict == "refused:golden_failed"
    assert verdict(lost, gate=False).verdict == "refused:kernel_mismatch"


def test_saturation_anywhere_is_the_cause_even_where_these_kernels_differ_too() -> None:
    clipped = answered(kernels=AVX2, is_narrow=True, checks=(failed(OWN), FLOAT))

    assert verdict(measured(checks=(failed(OWN), FLOAT), elsewhere=(clipped,)), FULL).verdict == "refused:saturation"


def test_why_latency_is_not_judged_names_both_sides() -> None:
    (note,) = unjudged_latency(PLAN, "x86_64", ("avx", "avx2", "fma", "avx512f"))
    (foreign,) = unjudged_latency(PLAN, "riscv64", ())

    assert "x86-64-cpu promises avx avx2 fma, this machine has avx512f besides" in note
    assert "no target is riscv64" in foreign
    assert unjudged_latency(PLAN, "x86_64", ("avx", "avx2", "fma")) == []


@pytest.mark.parametrize("candidate", [HALF, WHOLE])
def test_a_float_variant_repeats_the_source_model_or_is_refused(candidate: Candidate) -> None:
    alike, unlike = measured(range_error=1e-4), measured(range_error=1.1e-4)

    assert verdict(alike, candidate).ships
    assert verdict(unlike, candidate).verdict == "refused:differs"
    assert "of its range" in verdict(unlike, candidate).because
    assert verdict(unlike, candidate, gate=False).ships
    assert verdict(unlike, INT8).ships


def test_who_prefers_size_takes_half_weights_for_what_they_lose() -> None:
    unlike, lossy = measured(range_error=3e-3), measured(range_error=3e-3, drop=0.02)

    def judged(what: Measured, candidate: Candidate) -> str:
        return judge(candidate, what, MIXED, LIMITS, here=HERE, gate=True).verdict

    assert [judged(unlike, HALF), judged(unlike, WHOLE)] == ["shipped", "refused:differs"]
    assert judged(lossy, HALF) == "refused:accuracy"


def test_the_source_model_itself_is_never_refused_for_repeating_badly() -> None:
    assert verdict(measured(range_error=0.5), ANCHOR).ships
