"""One next thing to do, and the plans that are refused before there is any."""

from dataclasses import replace

import pytest

from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.ids import ModelName, SlotId, Version
from fleet_server.errors import InvalidRequest
from fleet_server.rollouts.model import (
    TRANSITIONS,
    IllegalTransition,
    RevertCensus,
    Rollout,
    RolloutEvent,
    RolloutId,
    RolloutPlan,
    RolloutState,
    WaveCensus,
    WaveSize,
    check_plan,
    next_state,
    parse_waves,
)
from fleet_server.rollouts.planner import (
    BeginRevert,
    Complete,
    Decision,
    FinishRevert,
    FleetView,
    OpenWave,
    PassWave,
    Pause,
    RevertDevices,
    Wait,
    awaits_wave,
    decide,
)

NOW = 1_795_000_000.0
NOBODY = RevertCensus(waiting=0, moving=0, back=0, stuck=0)
PLAN = RolloutPlan(
    model=ModelName("digits"), version=Version("1.0.0"), release=digest_of(b"r"), slot=SlotId("main"), selector="",
    waves=parse_waves("1,50%,100%"), hold_s=10.0,
)  # fmt: skip


def rollout(state: RolloutState = RolloutState.RUNNING, plan: RolloutPlan = PLAN) -> Rollout:
    return Rollout(RolloutId("r-1"), "r", plan, state, 1, 4, NOW - 100, "anna", "as it stands")


def step(view: FleetView, state: RolloutState = RolloutState.RUNNING, plan: RolloutPlan = PLAN) -> Decision:
    return decide(rollout(state, plan), view, NOW)


def test_it_starts_with_its_first_wave() -> None:
    decision = step(FleetView((), 4, NOBODY))

    assert decision == OpenWave(0, 1, "the rollout starts; wave 1 (1) opens for 1 more")


def test_a_passed_wave_holds_before_the_next_opens() -> None:
    held = WaveCensus(0, reached=1, confirmed=1, passed_at=NOW - 4)

    assert step(FleetView((held,), 3, NOBODY)) == Wait(
        "wave 1 passed: 1 of 1 device confirmed; the next wave opens in 6 s"
    )
    after = step(FleetView((replace(held, passed_at=NOW - 10),), 3, NOBODY))
    assert isinstance(after, OpenWave)
    assert (after.index, after.devices) == (1, 1)


def test_the_last_wave_takes_late_joiners_along() -> None:
    waves = (WaveCensus(0, 1, 1, passed_at=NOW - 20), WaveCensus(1, 1, 1, passed_at=NOW - 20))

    decision = step(FleetView(waves, 7, NOBODY))

    assert isinstance(decision, OpenWave)
    assert decision.devices == 7


@pytest.mark.parametrize(("policy", "kind"), [("pause", Pause), ("revert_all", BeginRevert)])
def test_a_failed_wave_does_what_the_policy_says(policy: str, kind: type[Decision]) -> None:
    failed = WaveCensus(0, reached=1, failed=1)

    decision = step(FleetView((failed,), 3, NOBODY), plan=replace(PLAN, on_failure=policy))  # type: ignore[arg-type]

    assert isinstance(decision, kind)


def test_with_the_gate_off_a_failed_wave_passes() -> None:
    failed = WaveCensus(0, reached=1, failed=1)

    assert isinstance(step(FleetView((failed,), 3, NOBODY), plan=replace(PLAN, unsafe_gate_off=True)), PassWave)


def test_an_open_wave_waits_and_a_decided_one_passes() -> None:
    assert isinstance(step(FleetView((WaveCensus(0, reached=1),), 0, NOBODY)), Wait)
    assert isinstance(step(FleetView((WaveCensus(0, reached=1, confirmed=1),), 0, NOBODY)), PassWave)


def test_after_the_last_wave_it_is_complete() -> None:
    waves = tuple(WaveCensus(index, 1, 1, passed_at=NOW - 20) for index in range(3))

    assert isinstance(step(FleetView(waves, 0, NOBODY)), Complete)


@pytest.mark.parametrize(
    ("census", "kind"),
    [
        (RevertCensus(waiting=1, moving=0, back=0, stuck=0), RevertDevices),
        (RevertCensus(waiting=0, moving=1, back=1, stuck=0), Wait),
        (RevertCensus(waiting=0, moving=0, back=1, stuck=1), FinishRevert),
    ],
)
def test_a_revert_tells_waits_and_ends(census: RevertCensus, kind: type[Decision]) -> None:
    assert isinstance(step(FleetView((), 0, census), RolloutState.REVERTING), kind)


@pytest.mark.parametrize("state", [state for state in RolloutState if state.value not in {"running", "reverting"}])
def test_a_rollout_that_rests_does_nothing(state: RolloutState) -> None:
    assert step(FleetView((), 9, NOBODY), state) == Wait("as it stands")


def test_devices_are_counted_only_when_a_wave_may_open() -> None:
    open_wave = (WaveCensus(0, reached=1),)
    passed = (WaveCensus(0, reached=1, confirmed=1, passed_at=NOW),)

    assert awaits_wave(rollout(), ())
    assert awaits_wave(rollout(), passed)
    assert not awaits_wave(rollout(), open_wave)
    assert not awaits_wave(rollout(RolloutState.PAUSED), ())


def test_every_pair_of_state_and_event_is_in_the_table_or_refused() -> None:
    for state in RolloutState:
        for event in RolloutEvent:
            if (state, event) in TRANSITIONS:
                assert next_state(state, event) is TRANSITIONS[state, event]
            else:
                with pytest.raises(IllegalTransition, match=f"it is {state.value}"):
                    next_state(state, event)


def test_every_state_can_get_to_an_end() -> None:
    ends = {RolloutState.COMPLETED, RolloutState.REVERTED, RolloutState.CANCELLED}
    home = set(ends)
    for _ in RolloutState:
        home |= {state for (state, _), after in TRANSITIONS.items() if after in home}

    assert home == set(RolloutState)


@pytest.mark.parametrize("size", [WaveSize(), WaveSize(count=1, percent=1.0)])
def test_a_wave_is_a_count_or_a_share(size: WaveSize) -> None:
    with pytest.raises(InvalidRequest, match="neither count nor percent"):
        check_plan(replace(PLAN, waves=(size,)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_times_that_nobody_can_wait_for_are_refused(value: float) -> None:
    for name, plan in {
        "soak_s": replace(PLAN, soak_s=value),
        "hold_s": replace(PLAN, hold_s=value),
        "deadline_s": replace(PLAN, deadline_s=value),
    }.items():
        with pytest.raises(InvalidRequest, match=name):
            check_plan(plan)
    with pytest.raises(InvalidRequest):
        check_plan(replace(PLAN, gate=replace(PLAN.gate, max_failed_ratio=float("nan"))))
