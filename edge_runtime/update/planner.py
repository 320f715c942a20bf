"""Decides the next step of one slot: what to do about an assignment, given where the slot stands. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from edge_runtime.contract import reasons
from edge_runtime.contract.device_state import Assignment, Candidate, Reason
from edge_runtime.update.ports import Health
from edge_runtime.update.states import (
    Activated,
    Activation,
    Admitted,
    Attempt,
    Built,
    Confirmed,
    Failed,
    Fetching,
    Idle,
    Offered,
    Passed,
    RolledBack,
    Shadowing,
    SlotStatus,
    Soaking,
    Trialled,
    Verified,
)
from edge_runtime.update.trial import choose_fastest

BACK_OFF_BASE_S: Final = 1.0
BACK_OFF_CAP_S: Final = 300.0
CRASHES_MAX: Final = 2
"""So many unclean ends of the agent during one activation or one trial are the model's fault."""
SOAK_ERROR_SHARE_MAX: Final = 0.05
SOAK_LOOK_S: Final = 1.0
"""How often a soaking model is looked at."""

InProgress = Offered | Admitted | Fetching | Verified | Built | Trialled | Shadowing


@dataclass(frozen=True, slots=True)
class Waiting:
    """A back-off in effect."""

    code: str
    until: float
    attempts: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What the planner must know besides the slot's own status."""

    running: Activation | None = None
    """What the slot's pointer names."""
    health: Health = field(default_factory=lambda: Health(loaded=None))
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do until then, or until something new is offered (None)."""

    until: float | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Back-off: try again at `until`."""

    code: str
    until: float


@dataclass(frozen=True, slots=True)
class Forget:
    """Put the last outcome away."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Take up an assignment."""

    assignment: Assignment


@dataclass(frozen=True, slots=True)
class Admit:
    """Authorise the release and see what of it fits here."""


@dataclass(frozen=True, slots=True)
class Reaffirm:
    """What runs is what is wanted: confirm it under the new sequence number."""

    running: Activation


@dataclass(frozen=True, slots=True)
class Empty:
    """Nothing shall run in this slot."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring the next missing blob of a candidate."""

    candidate: Candidate
    queue: tuple[Candidate, ...]
    passed: tuple[Passed, ...]
    tried: int


@dataclass(frozen=True, slots=True)
class Build:
    """Prepare what the engine needs on this device."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Measure and judge the candidate."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Give up this candidate without asking it again."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Activate:
    """Let the candidate take over."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Soak:
    """The candidate is loaded: begin to watch it."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """The candidate has proved itself."""


@dataclass(frozen=True, slots=True)
class Fail:
    """End the attempt; what ran before never stopped."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class RollBack:
    """End the attempt; what ran before answers again."""

    reason: Reason


Step = (
    Rest | Wait | Forget | Offer | Admit | Reaffirm | Empty | Fetch | Build | Trial | Refuse | Activate | Soak
    | Confirm | Fail | RollBack
)  # fmt: skip


class Answer(Enum):
    """What becomes of an offered assignment."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    KNOWN = "known"
    QUARANTINED = "quarantined"
    STALE = "stale"


def answer_offer(assignment: Assignment, highest_seq: int, status: SlotStatus, quarantined: Reason | None) -> Answer:
    """Whether to take up an assignment that the device has verified.

    Args:
        assignment: the offer.
        highest_seq: highest sequence number this slot ever accepted.
        status: where the slot stands.
        quarantined: why this release under this sequence number ended badly before, if it did.
    """
    if assignment.seq != highest_seq:
        return Answer.ACCEPTED if assignment.seq > highest_seq else Answer.STALE
    if quarantined is not None and not quarantined.retryable:
        return Answer.QUARANTINED
    ended = isinstance(status, (Failed, RolledBack)) and status.attempt.assignment.seq == assignment.seq
    return Answer.RETRY if ended and quarantined is not None else Answer.KNOWN


def plan(status: SlotStatus, pending: Assignment | None, now: float, facts: Facts) -> Step:
    """The next step of a slot.

    Args:
        status: where the slot stands.
        pending: an accepted assignment that was not taken up yet.
        now: trusted time, seconds since 1970.
        facts: what else is known.
    """
    if isinstance(status, Idle):
        return Rest() if pending is None else Offer(pending)
    if isinstance(status, Confirmed):
        return Rest() if pending is None else Offer(pending)
    if isinstance(status, (Failed, RolledBack)):
        return _plan_ended(status, pending, now, facts)
    if isinstance(status, (Activated, Soaking)):
        return _plan_activated(status, pending, now, facts)
    return _plan_in_progress(status, pending, now, facts)


def back_off_s(attempts: int, jitter: float) -> float:
    """Seconds to wait after the given number of failures in a row (from 1), with `jitter` in [0, 1)."""
    ceiling = min(BACK_OFF_CAP_S, BACK_OFF_BASE_S * 2.0 ** min(attempts - 1, 30))
    return ceiling * (0.5 + jitter / 2)


def reason(code: str, detail: str = "") -> Reason:
    """A reason with the retryability its code has."""
    return Reason(code=code, detail=detail or reasons.explain(code), retryable=reasons.is_retryable(code))


def is_superseded(attempt: Attempt, pending: Assignment | None) -> bool:
    """Whether a newer assignment replaces this attempt."""
    return pending is not None and pending.seq > attempt.assignment.seq


def _plan_ended(status: Failed | RolledBack, pending: Assignment | None, now: float, facts: Facts) -> Step:
    if pending is None:
        return Rest()
    if not is_superseded(status.attempt, pending):
        if now >= _deadline(pending):
            # Trying again could only miss the deadline again.
            return Rest()
        if (pause := _pause(now, facts)) is not None:
            return pause
    return Forget()


def _plan_in_progress(status: InProgress, pending: Assignment | None, now: float, facts: Facts) -> Step:
    assignment = status.attempt.assignment
    if is_superseded(status.attempt, pending):
        return Fail(reason(reasons.SUPERSEDED))
    if isinstance(status, Offered) and (step := _plan_without_install(assignment, now, facts)) is not None:
        return step
    if now >= _deadline(assignment):
        return Fail(reason(reasons.DEADLINE, _waited_for(facts)))
    if isinstance(status, (Offered, Admitted, Fetching)) and (pause := _pause(now, facts)) is not None:
        return pause
    if isinstance(status, Offered):
        return Admit()
    if isinstance(status, Admitted):
        return Fetch(status.queue[0], status.queue[1:], (), 0)
    if isinstance(status, Fetching):
        search = status.search
        return Fetch(search.candidate, search.queue, search.passed, search.tried)
    if isinstance(status, Verified):
        return Build()
    if isinstance(status, Built):
        if status.starts >= CRASHES_MAX:
            return Refuse(reasons.CRASH_LOOP, f"the agent ended {status.starts} times while trying it")
        return Trial()
    if isinstance(status, Shadowing):
        return Activate(_candidate(status.chosen))
    return _plan_trialled(status)


def _plan_without_install(assignment: Assignment, now: float, facts: Facts) -> Step | None:
    """What an offer comes to when nothing has to be installed; None when something must be."""
    if assignment.kind == "none":
        return Empty()
    if assignment.kind != "model":
        return Fail(reason(reasons.UNSUPPORTED_FEATURE, f"this agent cannot install kind {assignment.kind!r}"))
    running = facts.running
    if (
        running is not None
        and running.release == assignment.release
        and facts.health.loaded == running.variant_digest
        and any(candidate.digest == running.variant_digest for candidate in assignment.candidates)
    ):
        return Reaffirm(running)
    # Running and going back never depend on an expiry date; only starting something new does.
    if now >= assignment.expires:
        return Fail(reason(reasons.EXPIRED))
    return None


def _plan_trialled(status: Trialled) -> Step:
    if status.queue and status.tried < status.attempt.assignment.max_trials:
        return Fetch(status.queue[0], status.queue[1:], status.passed, status.tried)
    best = choose_fastest(status.passed)
    if best is not None:
        return Activate(best.candidate)
    refused = [trial for trial in status.attempt.trials if trial.verdict.startswith("refused:")]
    if not refused:
        return Fail(reason(reasons.NO_VARIANT))
    # The last one tried is the most conservative build: its reason says most about the release.
    detail = "; ".join(f"{trial.variant}: {trial.detail or trial.verdict}" for trial in refused)
    return Fail(reason(refused[-1].verdict.removeprefix("refused:"), detail))


def _plan_activated(status: Activated | Soaking, pending: Assignment | None, now: float, facts: Facts) -> Step:
    if status.undo is not None:
        return RollBack(status.undo)
    if is_superseded(status.attempt, pending):
        return RollBack(reason(reasons.SUPERSEDED))
    if status.crashes >= CRASHES_MAX:
        return RollBack(reason(reasons.CRASH_LOOP))
    deadline = _deadline(status.attempt.assignment)
    if now >= deadline:
        return RollBack(reason(reasons.DEADLINE))
    if isinstance(status, Activated):
        loaded = facts.health.loaded == status.chosen.variant_digest
        return Soak() if loaded else Activate(_candidate(status.chosen))
    return _judge_soak(status, now, deadline, facts.health)


def _judge_soak(status: Soaking, now: float, deadline: float, health: Health) -> Step:
    if health.restarts >= CRASHES_MAX:
        return RollBack(reason(reasons.CRASH_LOOP, health.detail))
    if health.loaded != status.chosen.variant_digest:
        return RollBack(reason(reasons.SOAK_FAILED, health.detail or "the model stopped answering"))
    if health.errors > SOAK_ERROR_SHARE_MAX * health.requests:
        return RollBack(reason(reasons.SOAK_FAILED, f"{health.errors} of {health.requests} requests failed"))
    done = status.since + status.attempt.assignment.policy.soak_s
    return Confirm() if now >= done else Rest(min(done, deadline, now + SOAK_LOOK_S))


def _pause(now: float, facts: Facts) -> Wait | None:
    waiting = facts.waiting
    # A pause longer than the cap can only come from a clock that was set back meanwhile.
    if waiting is None or not now < waiting.until <= now + BACK_OFF_CAP_S:
        return None
    return Wait(waiting.code, waiting.until)


def _waited_for(facts: Facts) -> str:
    return f"it was still waiting for {facts.waiting.code}" if facts.waiting is not None else ""


def _deadline(assignment: Assignment) -> float:
    return assignment.issued + assignment.policy.deadline_s


def _candidate(activation: Activation) -> Candidate:
    return Candidate(id=activation.variant, digest=activation.variant_digest)
