"""Which settings are tried, and who wins: the margin, the golden check, and CPU time among equals."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.ids import VariantId
from edge_runtime.tuning.candidates import MARGIN, Candidate, Fitting, Measured, decide, name_of, plan_candidates

INT8, FLOAT = VariantId("ort-int8"), VariantId("ort-float32")


def measured(threads: int | None, ratio: float | None, *, cpu: float = 1.0, refusal: str | None = None) -> Measured:
    return Measured(Candidate(INT8, threads), refusal, 1.0, ratio, cpu)


def test_what_would_run_without_tuning_is_tried_first_and_nothing_twice() -> None:
    planned = plan_candidates([Fitting(INT8, leaves_threads_open=True), Fitting(FLOAT, leaves_threads_open=True)], 6)

    assert planned[0] == Candidate(INT8, None)
    assert [one.threads for one in planned if one.variant == INT8] == [None, 1, 2, 4, 6]
    assert [one.threads for one in planned if one.variant == FLOAT] == [1, 2, 4, 6]


def test_threads_that_a_variant_fixes_are_not_tried() -> None:
    planned = plan_candidates([Fitting(INT8, leaves_threads_open=False), Fitting(FLOAT, leaves_threads_open=False)], 8)

    assert planned == [Candidate(INT8, None), Candidate(FLOAT, None)]


def test_of_several_providers_each_is_tried_alone() -> None:
    planned = plan_candidates([Fitting(INT8, leaves_threads_open=False, providers=("cuda", "cpu"))], 8)

    assert planned == [Candidate(INT8, None), Candidate(INT8, None, "cuda"), Candidate(INT8, None, "cpu")]
    assert name_of(planned[1]) == "ort-int8 on cuda as it comes"


def test_what_is_faster_by_less_than_the_margin_changes_nothing() -> None:
    verdict = decide([measured(None, 1.0), measured(1, 0.975)])

    assert verdict.winner == measured(None, 1.0)
    assert verdict.reasons == ("taken", "as fast, and no reason to change")
    assert verdict.sentence == "nothing is faster by more than 3% than what runs without tuning"


def test_what_is_faster_by_more_wins_and_the_sentence_says_by_how_much() -> None:
    verdict = decide([measured(None, 1.0), measured(1, 0.5), measured(2, 0.8)])

    assert verdict.winner == measured(1, 0.5)
    assert verdict.reasons == ("100% slower", "taken", "60% slower")
    assert verdict.sentence == "ort-int8 with 1 thread: 2.00 times as fast as what runs without tuning"


def test_among_equally_fast_ones_the_least_cpu_time_wins() -> None:
    verdict = decide([measured(None, 1.0), measured(4, 0.50, cpu=4.0), measured(1, 0.51, cpu=1.0)])

    assert verdict.winner == measured(1, 0.51, cpu=1.0)
    assert verdict.reasons[1] == "as fast, with more CPU time"
    assert "; 1 other is within 3% and would take more CPU time" in verdict.sentence


def test_who_fails_the_golden_check_never_wins_however_fast() -> None:
    failed = measured(1, 0.1, refusal="failed the golden check: snr_db against own is 3")

    verdict = decide([measured(None, 1.0), failed])

    assert verdict.winner == measured(None, 1.0)
    assert verdict.reasons[1] == failed.refusal


def test_if_what_would_run_may_not_another_is_taken_and_that_is_said() -> None:
    usual = measured(None, None, refusal="failed the golden check: top1 against truth is 0.1")

    verdict = decide([usual, measured(1, 1.4)])

    assert verdict.winner == measured(1, 1.4)
    assert "would run without tuning may not: failed the golden check" in verdict.sentence
    assert decide([usual]).winner is None


CANDIDATES = st.lists(
    st.builds(
        measured, st.none() | st.integers(1, 8), st.none() | st.floats(0.01, 100), cpu=st.floats(0, 10),
        refusal=st.none() | st.just("failed the golden check"),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


@given(CANDIDATES)
def test_the_winner_may_run_and_nobody_who_may_is_faster_by_more_than_the_margin(candidates: list[Measured]) -> None:
    verdict = decide(candidates)

    sound = [one.ratio for one in candidates if one.refusal is None and one.ratio is not None]
    assert (verdict.winner is None) == (not sound)
    assert len(verdict.reasons) == len(candidates)
    if verdict.winner is not None:
        assert verdict.winner.refusal is None
        assert verdict.winner.ratio is not None
        assert verdict.winner.ratio * (1 - MARGIN) <= min(sound) * 1.000001
