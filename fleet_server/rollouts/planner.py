"""What a rollout does next: counters in, one decision out (pure).

A decision leaves no choice to whoever applies it, except which devices fill a wave: by device id, so
that anyone can predict it.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet_server.rollouts.gates import Verdict, device_count, judge
from fleet_server.rollouts.model import RevertCensus, Rollout, RolloutState, WaveCensus


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do yet."""

    sentence: str


@dataclass(frozen=True, slots=True)
class OpenWave:
    """Assign the release to this many devices that no wave has reached."""

    index: int
    devices: int
    sentence: str


@dataclass(frozen=True, slots=True)
class PassWave:
    """Write down that a wave has passed, so that its hold time starts."""

    index: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Complete:
    """The last wave has passed."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Pause:
    """A gate failed: assign nobody else and ask a person."""

    sentence: str


@dataclass(frozen=True, slots=True)
class BeginRevert:
    """A gate failed: from now on every reached device goes back."""

    sentence: str


@dataclass(frozen=True, slots=True)
class RevertDevices:
    """Give every reached device that was not told yet a higher seq that names what it ran before."""

    sentence: str


@dataclass(frozen=True, slots=True)
class FinishRevert:
    """Every reached device is back, or known to be stuck."""

    sentence: str


Decision = Wait | OpenWave | PassWave | Complete | Pause | BeginRevert | RevertDevices | FinishRevert


@dataclass(frozen=True, slots=True)
class FleetView:
    """What the decision depends on; counted, never listed."""

    waves: tuple[WaveCensus, ...]
    """The opened waves, in order."""
    unreached: int
    """Matching devices that no wave has reached; only `awaits_wave` makes anyone count them."""
    revert: RevertCensus


def decide(rollout: Rollout, fleet: FleetView, now: float) -> Decision:
    """The one next thing to do."""
    match rollout.state:
        case RolloutState.RUNNING:
            return _advance(rollout, fleet, now)
        case RolloutState.REVERTING:
            return _revert(fleet.revert)
        case _:
            return Wait(rollout.sentence)


def awaits_wave(rollout: Rollout, waves: tuple[WaveCensus, ...]) -> bool:
    """Whether a wave may open next, so that the devices not yet reached must be counted."""
    return rollout.state is RolloutState.RUNNING and (not waves or waves[-1].passed_at is not None)


def verdict_of(rollout: Rollout, census: WaveCensus) -> Verdict:
    """The gate's verdict over a wave of this rollout, as it is shown."""
    return judge(rollout.plan.gate, census)


def _advance(rollout: Rollout, fleet: FleetView, now: float) -> Decision:
    if not fleet.waves:
        return _open(rollout, fleet, 0, "the rollout starts")
    census = fleet.waves[-1]
    verdict = verdict_of(rollout, census)
    if census.passed_at is None:
        if verdict.result == "inconclusive":
            return Wait(verdict.sentence)
        if verdict.result == "fail" and not rollout.plan.unsafe_gate_off:
            return _give_up(rollout, verdict)
        return PassWave(census.index, verdict.sentence)
    held_s = now - census.passed_at
    if held_s < rollout.plan.hold_s:
        return Wait(f"{verdict.sentence}; the next wave opens in {rollout.plan.hold_s - held_s:.0f} s")
    if census.index + 1 == len(rollout.plan.waves):
        return Complete(f"{verdict.sentence}; it was the last wave")
    return _open(rollout, fleet, census.index + 1, verdict.sentence)


def _open(rollout: Rollout, fleet: FleetView, index: int, because: str) -> OpenWave:
    wave = rollout.plan.waves[index]
    reached = sum(census.reached for census in fleet.waves)
    wanted = max(wave.cumulative(rollout.matched_at_start) - reached, 0)
    # "Everything" means everything that matches now: devices that joined late come with the last wave.
    devices = fleet.unreached if wave.percent == 100 else min(wanted, fleet.unreached)
    return OpenWave(index, devices, f"{because}; wave {index + 1} ({wave}) opens for {devices} more")


def _give_up(rollout: Rollout, verdict: Verdict) -> Decision:
    if rollout.plan.on_failure == "pause":
        return Pause(f"{verdict.sentence}; paused until someone resumes, reverts or cancels")
    return BeginRevert(f"{verdict.sentence}; every reached device goes back to what it ran before")


def _revert(census: RevertCensus) -> Decision:
    if census.waiting:
        return RevertDevices(f"{device_count(census.waiting)} reached so far: told to go back")
    if census.moving:
        return Wait(f"reverting: {census.back} back, {census.moving} on their way")
    stuck = f", {census.stuck} did not answer in time or could not go back" if census.stuck else ""
    return FinishRevert(f"reverted: {device_count(census.back)} back on what ran before{stuck}")
