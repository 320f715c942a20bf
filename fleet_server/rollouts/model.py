"""What a rollout is, the states it goes through, and what is counted while it runs (pure)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NewType

from edge_runtime.contract.device_state import Running, SlotState
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.ids import DeviceId, ModelName, SlotId, Version
from fleet_server.errors import Conflict, InvalidRequest

RolloutId = NewType("RolloutId", str)
OnFailure = Literal["pause", "revert_all"]


class RolloutState(str, Enum):
    """Where a rollout stands."""

    RUNNING = "running"
    PAUSED = "paused"
    REVERTING = "reverting"
    COMPLETED = "completed"
    REVERTED = "reverted"
    CANCELLED = "cancelled"

    @property
    def is_moving(self) -> bool:
        """Whether devices may still change because of it: the executor looks after it."""
        return self in {RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.REVERTING}


class RolloutEvent(str, Enum):
    """What moves a rollout from one state to another."""

    LAST_WAVE_PASSED = "last_wave_passed"
    PAUSE = "pause"
    RESUME = "resume"
    REVERT = "revert"
    ALL_REVERTED = "all_reverted"
    CANCEL = "cancel"


TRANSITIONS: Final[Mapping[tuple[RolloutState, RolloutEvent], RolloutState]] = {
    (RolloutState.RUNNING, RolloutEvent.LAST_WAVE_PASSED): RolloutState.COMPLETED,
    (RolloutState.RUNNING, RolloutEvent.PAUSE): RolloutState.PAUSED,
    (RolloutState.RUNNING, RolloutEvent.REVERT): RolloutState.REVERTING,
    (RolloutState.RUNNING, RolloutEvent.CANCEL): RolloutState.CANCELLED,
    (RolloutState.PAUSED, RolloutEvent.RESUME): RolloutState.RUNNING,
    (RolloutState.PAUSED, RolloutEvent.REVERT): RolloutState.REVERTING,
    (RolloutState.PAUSED, RolloutEvent.CANCEL): RolloutState.CANCELLED,
    (RolloutState.COMPLETED, RolloutEvent.REVERT): RolloutState.REVERTING,
    (RolloutState.REVERTING, RolloutEvent.ALL_REVERTED): RolloutState.REVERTED,
}


class IllegalTransition(Conflict):
    """The rollout is not in a state in which this can happen."""


def next_state(state: RolloutState, event: RolloutEvent) -> RolloutState:
    """The state after an event. Raises: IllegalTransition."""
    if (state, event) not in TRANSITIONS:
        allowed = sorted(known.value for known, what in TRANSITIONS if what is event)
        raise IllegalTransition(
            f"{event.value.replace('_', ' ')} the rollout",
            f"it is {state.value}",
            f"this works only while it is {' or '.join(allowed)}",
        )
    return TRANSITIONS[state, event]


@dataclass(frozen=True, slots=True)
class WaveSize:
    """How many devices are reached once this wave is open, the earlier waves included."""

    count: int | None = None
    percent: float | None = None
    """Of the devices matched at start, rounded up."""

    def cumulative(self, matched: int) -> int:
        """Devices reached in all when this wave is open."""
        if self.count is not None:
            return min(self.count, matched)
        # Without the small guard 7 % of 100 (7.000000000000001) would round up to 8.
        return min(math.ceil((self.percent or 0.0) * matched / 100 - 1e-9), matched)

    def __str__(self) -> str:
        return str(self.count) if self.percent is None else f"{self.percent:g}%"


@dataclass(frozen=True, slots=True)
class OutcomeGate:
    """A wave passes only while at most this share of its devices fails, rolls back or stays silent."""

    max_failed_ratio: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """What an operator asked for; never changes once the rollout exists."""

    model: ModelName
    version: Version
    release: Digest
    slot: SlotId
    selector: str
    waves: tuple[WaveSize, ...]
    gate: OutcomeGate = OutcomeGate()
    soak_s: float = 60.0
    """Each device's own time in `soaking`."""
    deadline_s: float = 3600.0
    """Per device, from the issue of its assignment."""
    hold_s: float = 0.0
    """Per wave, between its passing and the opening of the next."""
    on_failure: OnFailure = "pause"
    max_trials: int = 3
    """Variants a device may fetch and try; 1 as soon as the winner of its class is known."""
    unsafe_gate_off: bool = False
    """For controls only: the gate's verdict is computed, shown and ignored."""


class Outcome(str, Enum):
    """What became of one reached device."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"
    """Someone assigned it elsewhere meanwhile: it no longer says anything about this release."""


def outcome_of(state: str) -> Outcome:
    """The outcome that a reported slot state means; states unknown here are still pending."""
    return _OUTCOMES.get(state, Outcome.PENDING)


_OUTCOMES: Final[Mapping[str, Outcome]] = {
    SlotState.CONFIRMED.value: Outcome.CONFIRMED,
    SlotState.FAILED.value: Outcome.FAILED,
    SlotState.ROLLED_BACK.value: Outcome.ROLLED_BACK,
}


@dataclass(frozen=True, slots=True)
class WaveCensus:
    """One opened wave, counted."""

    index: int
    reached: int
    confirmed: int = 0
    failed: int = 0
    rolled_back: int = 0
    silent: int = 0
    """Neither decided nor heard of before its deadline."""
    superseded: int = 0
    passed_at: float | None = None
    reasons: tuple[tuple[str, str], ...] = ()
    """Some (device, reason code) of those that failed, for the sentence."""

    @property
    def counted(self) -> int:
        """Devices whose outcome says something about the release."""
        return self.reached - self.superseded

    @property
    def bad(self) -> int:
        """Failed, rolled back or silent past the deadline."""
        return self.failed + self.rolled_back + self.silent

    @property
    def undecided(self) -> int:
        """Devices that may still turn out either way."""
        return self.counted - self.confirmed - self.bad


@dataclass(frozen=True, slots=True)
class RevertCensus:
    """The devices a revert must bring back."""

    waiting: int
    """Reached by the rollout, not yet told to go back."""
    moving: int
    """Told, not yet done and before their deadline."""
    back: int
    stuck: int
    """Told, but failed or silent past the deadline."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout and where it stands."""

    id: RolloutId
    name: str
    plan: RolloutPlan
    state: RolloutState
    generation: int
    """Grows with everything that is written about it; an executor that read an older one changes nothing."""
    matched_at_start: int
    created_at: float
    created_by: str
    sentence: str
    """Why it stands where it stands, for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One device reached by a rollout."""

    device: DeviceId
    wave: int
    seq: int
    """The sequence number that this rollout gave it; a report of another number says nothing here."""
    deadline_at: float
    outcome: Outcome = Outcome.PENDING
    reason: str | None = None
    detail: str | None = None
    """The device's own words about the reason."""
    variant: str | None = None
    decided_at: float | None = None
    previous: Running | None = None
    """What it had confirmed before this rollout; None: nothing."""
    revert_seq: int | None = None
    revert_outcome: Outcome = Outcome.PENDING
    revert_deadline_at: float | None = None

    @property
    def has_no_way_back(self) -> bool:
        """It should have gone back, and could not even be told."""
        return self.revert_seq is not None and self.revert_deadline_at is None

    @property
    def awaited_seq(self) -> int:
        """The number whose report decides what becomes of this device next."""
        return self.seq if self.revert_seq is None else self.revert_seq


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One thing that happened in a rollout."""

    id: int
    at: float
    who: str
    """`rollout r-…`, a person, or `device …`."""
    name: str
    """`noun.verb_past`."""
    sentence: str


def check_plan(plan: RolloutPlan) -> RolloutPlan:
    """Refuse a plan that makes no sense. Raises: InvalidRequest naming the field."""
    _require(bool(plan.waves), "it has no waves", "give at least one, for example 1,50%,100%")
    for wave in plan.waves:
        _require((wave.count is None) != (wave.percent is None), "a wave is neither count nor percent", "use 5 or 10%")
        _require(wave.count is None or wave.count >= 1, f"wave {wave} reaches no device", "use a count of at least 1")
        share_fits = wave.percent is None or 0 < wave.percent <= 100
        _require(share_fits, f"wave {wave} is no share of a fleet", "use 0 < p ≤ 100")
    ratio = plan.gate.max_failed_ratio
    _require(0 <= ratio < 1, f"a failed share of {ratio} can never be exceeded or is no share", "use 0 ≤ share < 1")
    for name, value in (("soak_s", plan.soak_s), ("hold_s", plan.hold_s)):
        _require(math.isfinite(value) and value >= 0, f"{name} is {value}", "use seconds, 0 or more")
    _require(math.isfinite(plan.deadline_s) and plan.deadline_s > 0, f"deadline_s is {plan.deadline_s}", "use seconds")
    _require(
        plan.deadline_s > plan.soak_s,
        f"no device can soak {plan.soak_s:g} s within a deadline of {plan.deadline_s:g} s",
        "raise the deadline or shorten the soak",
    )
    _require(1 <= plan.max_trials <= 16, f"max_trials is {plan.max_trials}", "use 1 to 16")
    for kind in ("count", "percent"):
        sizes = [size for wave in plan.waves if (size := getattr(wave, kind)) is not None]
        _require(sizes == sorted(sizes), "a later wave is smaller than an earlier one", "waves are cumulative")
    return plan


def parse_waves(text: str) -> tuple[WaveSize, ...]:
    """Read `1,50%,100%`. Raises: InvalidRequest."""
    waves = []
    for part in (piece.strip() for piece in text.split(",")):
        number = part.removesuffix("%")
        try:
            waves.append(WaveSize(percent=float(number)) if part.endswith("%") else WaveSize(count=int(number)))
        except ValueError as error:
            raise InvalidRequest(
                "read the waves", f"{part!r} is neither a count nor a percentage", "write for example 1,50%,100%"
            ) from error
    return tuple(waves)


def diagram() -> str:
    """The state machine as a Mermaid diagram, made from the table."""
    lines = ["stateDiagram-v2", "    [*] --> running"]
    lines += [f"    {state.value} --> {target.value}: {event.value}" for (state, event), target in TRANSITIONS.items()]
    ends = [state for state in RolloutState if all(source is not state for source, _ in TRANSITIONS)]
    return "\n".join([*lines, *(f"    {state.value} --> [*]" for state in ends)])


def _require(holds: bool, because: str, remedy: str) -> None:  # noqa: FBT001 (a predicate reads best in place)
    if not holds:
        raise InvalidRequest("plan the rollout", because, remedy)
