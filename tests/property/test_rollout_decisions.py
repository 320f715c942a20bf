"""Safety of rollouts, whatever the fleet does."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.ids import ModelName, SlotId, Version
from fleet_server.rollouts.gates import judge
from fleet_server.rollouts.model import (
    OutcomeGate,
    RevertCensus,
    Rollout,
    RolloutId,
    RolloutPlan,
    RolloutState,
    WaveCensus,
    WaveSize,
    check_plan,
)
from fleet_server.rollouts.planner import (
    BeginRevert,
    Complete,
    FinishRevert,
    FleetView,
    OpenWave,
    PassWave,
    Pause,
    RevertDevices,
    Wait,
    decide,
)

NOW = 1_795_000_000.0
NO_REVERT = RevertCensus(waiting=0, moving=0, back=0, stuck=0)


@st.composite
def censuses(draw: st.DrawFn, index: int = 0) -> WaveCensus:
    parts = draw(st.lists(st.integers(0, 4), min_size=6, max_size=6))
    confirmed, failed, rolled_back, silent, superseded, _pending = parts
    passed_at = draw(st.none() | st.floats(NOW - 100, NOW))
    return WaveCensus(index, sum(parts), confirmed, failed, rolled_back, silent, superseded, passed_at)


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    counts = sorted(draw(st.lists(st.integers(1, 30), min_size=1, max_size=4)))
    plan = RolloutPlan(
        model=ModelName("digits"), version=Version("1.0.0"), release=digest_of(b"r"), slot=SlotId("main"), selector="",
        waves=(*(WaveSize(count=count) for count in counts), WaveSize(percent=100)),
        gate=OutcomeGate(draw(st.sampled_from([0.0, 0.1, 0.5]))), hold_s=draw(st.sampled_from([0.0, 50.0])),
        on_failure=draw(st.sampled_from(["pause", "revert_all"])),
    )  # fmt: skip
    return Rollout(
        RolloutId("r-1"), "r", check_plan(plan), draw(st.sampled_from(RolloutState)), 1,
        draw(st.integers(0, 60)), NOW - 1000, "test", "as it stands",
    )  # fmt: skip


@st.composite
def views(draw: st.DrawFn) -> FleetView:
    waves = tuple(draw(censuses(index)) for index in range(draw(st.integers(0, 2))))
    revert = RevertCensus(*(draw(st.integers(0, 3)) for _ in range(4)))
    return FleetView(waves, draw(st.integers(0, 60)), revert)


@given(rollout=rollouts(), view=views())
def test_a_wave_opens_only_after_the_one_before_it_has_passed_and_held(rollout: Rollout, view: FleetView) -> None:
    decision = decide(rollout, view, NOW)

    if isinstance(decision, OpenWave):
        assert rollout.state is RolloutState.RUNNING
        assert decision.index == len(view.waves)
        if view.waves:
            passed_at = view.waves[-1].passed_at
            assert passed_at is not None
            assert NOW - passed_at >= rollout.plan.hold_s


@given(rollout=rollouts(), view=views())
def test_a_failed_or_inconclusive_gate_never_passes_a_wave(rollout: Rollout, view: FleetView) -> None:
    if isinstance(decide(rollout, view, NOW), PassWave):
        assert judge(rollout.plan.gate, view.waves[-1]).result == "pass"


@given(rollout=rollouts(), view=views())
def test_a_failed_wave_does_what_the_policy_says(rollout: Rollout, view: FleetView) -> None:
    running = replace(rollout, state=RolloutState.RUNNING)
    decision = decide(running, view, NOW)

    open_wave = bool(view.waves) and view.waves[-1].passed_at is None
    if open_wave and judge(rollout.plan.gate, view.waves[-1]).result == "fail":
        assert isinstance(decision, Pause if rollout.plan.on_failure == "pause" else BeginRevert)
    else:
        assert not isinstance(decision, Pause | BeginRevert)


@given(rollout=rollouts(), view=views())
def test_no_wave_reaches_more_devices_than_its_size_allows(rollout: Rollout, view: FleetView) -> None:
    decision = decide(rollout, view, NOW)

    if isinstance(decision, OpenWave):
        assert 0 <= decision.devices <= view.unreached
        wave = rollout.plan.waves[decision.index]
        if wave.percent != 100:
            reached = sum(census.reached for census in view.waves)
            assert reached + decision.devices <= max(wave.cumulative(rollout.matched_at_start), reached)


@given(rollout=rollouts(), view=views())
def test_a_rollout_that_is_not_running_or_reverting_touches_nobody(rollout: Rollout, view: FleetView) -> None:
    if rollout.state not in {RolloutState.RUNNING, RolloutState.REVERTING}:
        assert isinstance(decide(rollout, view, NOW), Wait)


@given(rollout=rollouts(), view=views())
def test_a_revert_ends_only_when_nobody_is_waiting_or_moving(rollout: Rollout, view: FleetView) -> None:
    decision = decide(replace(rollout, state=RolloutState.REVERTING), view, NOW)

    assert isinstance(decision, FinishRevert) == (view.revert.waiting == 0 and view.revert.moving == 0)
    assert isinstance(decision, RevertDevices) == (view.revert.waiting > 0)


@given(rollout=rollouts(), view=views())
def test_a_rollout_completes_only_after_its_last_wave_has_passed(rollout: Rollout, view: FleetView) -> None:
    if isinstance(decide(rollout, view, NOW), Complete):
        assert len(view.waves) == len(rollout.plan.waves)
        assert view.waves[-1].passed_at is not None


@given(matched=st.integers(0, 100_000), percent=st.floats(0.01, 100))
def test_a_percentage_is_rounded_up_but_never_beyond_the_fleet(matched: int, percent: float) -> None:
    size = WaveSize(percent=percent).cumulative(matched)

    assert size <= matched
    assert size >= matched * percent / 100 - 1e-6
    assert size < matched * percent / 100 + 1
