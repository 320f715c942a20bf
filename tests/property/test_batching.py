"""Which calls run together: whatever waits, order, deadlines and sizes are kept, and nobody waits for ever."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.errors import ContractError
from edge_runtime.serving.batching import ALONE, BatchPolicy, Waiting, next_batch, parse_policies, parse_policy

MOMENTS = st.integers(0, 50).map(lambda ticks: ticks / 10)
CALLS = st.lists(
    st.builds(
        Waiting,
        kind=st.sampled_from("abc"),
        rows=st.integers(1, 8),
        arrived=MOMENTS,
        priority=st.integers(-1, 1),
        deadline=st.none() | MOMENTS,
    ),
    max_size=12,
).map(lambda calls: sorted(calls, key=lambda call: call.arrived))
POLICIES = st.builds(BatchPolicy, st.integers(8, 16), st.sampled_from([0.0, 0.5, 2.0]))
RUN_S = st.sampled_from([0.0, 0.3])


@given(CALLS, MOMENTS, POLICIES, RUN_S)
def test_a_batch_is_of_one_kind_and_fits(calls: list[Waiting], now: float, policy: BatchPolicy, run_s: float) -> None:
    batch = [calls[place] for place in next_batch(calls, now, policy, run_s).batch]

    assert len({call.kind for call in batch}) <= 1
    assert sum(call.rows for call in batch) <= policy.max_rows


@given(CALLS, MOMENTS, POLICIES, RUN_S)
def test_what_is_late_never_runs_and_nothing_else_is_called_late(
    calls: list[Waiting], now: float, policy: BatchPolicy, run_s: float
) -> None:
    decision = next_batch(calls, now, policy, run_s)

    assert set(decision.late) == {
        place for place, call in enumerate(calls) if call.deadline is not None and call.deadline <= now
    }
    assert not set(decision.late) & set(decision.batch)


@given(CALLS, MOMENTS, POLICIES, RUN_S)
def test_nothing_overtakes_a_call_of_its_own_kind_that_is_as_urgent(
    calls: list[Waiting], now: float, policy: BatchPolicy, run_s: float
) -> None:
    decision = next_batch(calls, now, policy, run_s)

    for place in decision.batch:
        for before in range(place):
            is_passed = before not in decision.batch and before not in decision.late
            as_urgent = calls[before].priority >= calls[place].priority
            assert not (is_passed and as_urgent and calls[before].kind == calls[place].kind)


@given(CALLS, MOMENTS, POLICIES, RUN_S)
def test_a_batch_begins_with_the_most_urgent_call(
    calls: list[Waiting], now: float, policy: BatchPolicy, run_s: float
) -> None:
    decision = next_batch(calls, now, policy, run_s)

    if decision.batch:
        in_time = [call for place, call in enumerate(calls) if place not in decision.late]
        assert calls[decision.batch[0]].priority == max(call.priority for call in in_time)


@given(CALLS, MOMENTS, POLICIES, RUN_S)
def test_nobody_waits_longer_than_the_delay_once_the_engine_is_free(
    calls: list[Waiting], now: float, policy: BatchPolicy, run_s: float
) -> None:
    decision = next_batch(calls, now, policy, run_s)

    if decision.look_again_at is not None:
        waiting = [call for place, call in enumerate(calls) if place not in decision.late]
        assert now < decision.look_again_at <= min(call.arrived for call in waiting) + policy.delay_s
        assert all(decision.look_again_at + run_s <= call.deadline for call in waiting if call.deadline is not None)


@given(CALLS, POLICIES, RUN_S)
def test_everybody_is_answered_or_late_after_as_many_decisions_as_there_are_calls(
    calls: list[Waiting], policy: BatchPolicy, run_s: float
) -> None:
    now, left, rounds = 5.0, list(calls), 0

    while left and rounds < 2 * len(calls):
        decision = next_batch(left, now, policy, run_s)
        now = decision.look_again_at if decision.look_again_at is not None else now
        left = [call for place, call in enumerate(left) if place not in {*decision.batch, *decision.late}]
        rounds += 1

    assert not left


def test_calls_that_wait_are_gathered_until_the_batch_is_full() -> None:
    calls = [Waiting("a", 1, arrived) for arrived in (0.0, 0.1, 0.2)]
    policy = BatchPolicy(4, delay_s=1.0)

    assert next_batch(calls, 0.2, policy).look_again_at == 1.0
    assert next_batch([*calls, Waiting("a", 1, 0.3)], 0.3, policy).batch == (0, 1, 2, 3)
    assert next_batch(calls, 1.0, policy).batch == (0, 1, 2)


def test_without_delay_a_call_waits_for_nobody() -> None:
    assert next_batch([Waiting("a", 1, 0.0)], 0.0, BatchPolicy(8)).batch == (0,)


def test_a_deadline_ends_the_gathering_while_there_is_time_for_a_run() -> None:
    calls = [Waiting("a", 1, 0.0), Waiting("a", 1, 0.0, deadline=0.5)]
    policy = BatchPolicy(8, delay_s=1.0)

    assert next_batch(calls, 0.1, policy, run_s=0.3).look_again_at == pytest.approx(0.2)
    assert next_batch(calls, 0.2, policy, run_s=0.3).batch == (0, 1)
    assert next_batch(calls, 0.5, policy, run_s=0.3).late == (1,)


def test_an_urgent_call_of_another_kind_goes_first() -> None:
    calls = [Waiting("a", 1, 0.0), Waiting("b", 1, 0.1, priority=5)]

    assert next_batch(calls, 0.1, BatchPolicy(8, delay_s=1.0)).batch == (1,)


@pytest.mark.parametrize(
    ("text", "policy"),
    [("8:500us", BatchPolicy(8, 0.0005)), ("16:2ms", BatchPolicy(16, 0.002)), ("4", BatchPolicy(4)),
     ("8:1.5ms", BatchPolicy(8, 0.0015)), ("off", ALONE)],
)  # fmt: skip
def test_a_policy_is_read_as_people_write_it(text: str, policy: BatchPolicy) -> None:
    read = parse_policy(text)

    assert read.max_rows == policy.max_rows
    assert read.delay_s == pytest.approx(policy.delay_s)


def test_each_model_may_have_a_policy_of_its_own() -> None:
    assert parse_policies(["detector=8", "4"]) == {"detector": BatchPolicy(8), "*": BatchPolicy(4)}
    assert parse_policies(["detector=off", "4"]) == {"detector": ALONE, "*": BatchPolicy(4)}


@pytest.mark.parametrize("text", ["", "1", "0:5ms", "8:", "8:500", "8:2s", "8:5000ms", "x:5ms", "8:-5ms", "99999"])
def test_what_is_no_policy_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ContractError, match="write it like 8:500us"):
        parse_policy(text)
