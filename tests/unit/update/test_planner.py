"""What comes next, rule by rule; the whole course is in test_executor."""

import pytest

from edge_runtime.contract.device_state import Assignment, Candidate, Policy, Reason
from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.ids import VariantId, target_path
from edge_runtime.update.planner import (
    BACK_OFF_CAP_S,
    CRASHES_MAX,
    Activate,
    Admit,
    Answer,
    Confirm,
    Empty,
    Facts,
    Fail,
    Forget,
    Offer,
    Reaffirm,
    Refuse,
    Rest,
    RollBack,
    Soak,
    Wait,
    Waiting,
    answer_offer,
    back_off_s,
    plan,
    reason,
)
from edge_runtime.update.ports import Health
from edge_runtime.update.states import (
    Activated,
    Activation,
    Attempt,
    Built,
    Confirmed,
    Failed,
    Idle,
    Offered,
    RolledBack,
    Search,
    Shadowing,
    SlotStatus,
    Soaking,
    Trialled,
)
from tests.fakes.documents import DEVICE, MODEL, RELEASE, SLOT, VARIANT, VERSION

NOW = 1000.0
FIRST = Candidate(id=VariantId("a"), digest=VARIANT)
HEALTHY = Health(loaded=VARIANT, requests=100)
CHOSEN = Activation(5, target_path(MODEL, VERSION), RELEASE, 10, FIRST.id, FIRST.digest, {})


def assignment(seq: int = 5, **changes: object) -> Assignment:
    fields: dict[str, object] = {
        "device": DEVICE, "slot": SLOT, "kind": "model", "seq": seq, "issued": NOW, "expires": NOW + 500,
        "target": target_path(MODEL, VERSION), "release": RELEASE, "length": 10, "candidates": [FIRST],
        "policy": Policy(soak_s=60.0, deadline_s=300.0),
    }  # fmt: skip
    return Assignment(**{**fields, **changes})  # type: ignore[arg-type]


ATTEMPT = Attempt(assignment(), NOW)
SOAKING = Soaking(ATTEMPT, CHOSEN, None, NOW)
IN_PROGRESS = [
    Offered(ATTEMPT),
    Built(ATTEMPT, Search(FIRST, ())),
    Trialled(ATTEMPT, (), (), 1),
    Shadowing(ATTEMPT, CHOSEN),
]


def code_of(step: object) -> str:
    assert isinstance(step, (Fail, RollBack))
    return step.reason.code


@pytest.mark.parametrize("status", [Idle(), Confirmed(ATTEMPT)])
def test_a_resting_slot_takes_up_what_is_pending(status: SlotStatus) -> None:
    assert plan(status, None, NOW, Facts()) == Rest()
    assert plan(status, assignment(6), NOW, Facts()) == Offer(assignment(6))


@pytest.mark.parametrize("status", IN_PROGRESS)
def test_before_activation_a_newer_assignment_or_the_deadline_fails_the_attempt(status: SlotStatus) -> None:
    assert code_of(plan(status, assignment(6), NOW, Facts())) == "superseded"
    assert code_of(plan(status, None, NOW + 300, Facts())) == "deadline"


@pytest.mark.parametrize("status", [Activated(ATTEMPT, CHOSEN, None), SOAKING])
def test_from_activation_on_the_same_rolls_back(status: SlotStatus) -> None:
    facts = Facts(health=HEALTHY)

    assert isinstance(plan(status, assignment(6), NOW, facts), RollBack)
    assert code_of(plan(status, assignment(6), NOW, facts)) == "superseded"
    assert code_of(plan(status, None, NOW + 300, facts)) == "deadline"


def test_an_order_for_nothing_is_carried_out_even_when_it_is_late() -> None:
    late = Offered(Attempt(assignment(kind="none"), NOW))

    assert plan(late, None, NOW + 9999, Facts()) == Empty()


def test_a_runtime_cannot_be_installed_yet() -> None:
    assert code_of(plan(Offered(Attempt(assignment(kind="runtime"), NOW)), None, NOW, Facts())) == "unsupported_feature"


def test_what_runs_is_reaffirmed_only_when_it_really_answers_and_is_still_wanted() -> None:
    offered = Offered(ATTEMPT)

    assert plan(offered, None, NOW + 501, Facts(CHOSEN, HEALTHY)) == Reaffirm(CHOSEN)
    assert plan(offered, None, NOW, Facts(CHOSEN, Health(loaded=None))) == Admit()
    other = Offered(Attempt(assignment(candidates=[Candidate(id=VariantId("b"), digest=digest_of(b"b"))]), NOW))
    assert plan(other, None, NOW, Facts(CHOSEN, HEALTHY)) == Admit()


def test_a_new_install_is_refused_once_its_assignment_has_expired() -> None:
    assert code_of(plan(Offered(ATTEMPT), None, NOW + 500, Facts())) == "expired"


def test_a_back_off_is_waited_out_but_never_longer_than_its_cap() -> None:
    waiting = Waiting("network", NOW + 10, 1)

    assert plan(Offered(ATTEMPT), None, NOW, Facts(waiting=waiting)) == Wait("network", NOW + 10)
    assert plan(Offered(ATTEMPT), None, NOW + 10, Facts(waiting=waiting)) == Admit()
    set_back = Waiting("network", NOW + 10 * BACK_OFF_CAP_S, 1)
    assert plan(Offered(ATTEMPT), None, NOW, Facts(waiting=set_back)) == Admit()


def test_back_offs_grow_to_a_cap_and_are_jittered() -> None:
    assert [back_off_s(attempts, 1.0) for attempts in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert back_off_s(5000, 1.0) == BACK_OFF_CAP_S
    assert back_off_s(3, 0.0) == 2.0


def test_a_candidate_that_ended_the_agent_too_often_is_refused() -> None:
    step = plan(Built(ATTEMPT, Search(FIRST, ()), CRASHES_MAX), None, NOW, Facts())

    assert isinstance(step, Refuse)
    assert step.code == "crash_loop"


def test_when_nothing_was_even_tried_no_variant_is_the_reason() -> None:
    assert code_of(plan(Trialled(ATTEMPT, (), (), 0), None, NOW, Facts())) == "no_variant"


def test_a_shadowing_candidate_is_activated() -> None:
    assert plan(Shadowing(ATTEMPT, CHOSEN), None, NOW, Facts()) == Activate(FIRST)


def test_an_activation_is_repeated_until_the_candidate_is_loaded() -> None:
    activated = Activated(ATTEMPT, CHOSEN, None)

    assert plan(activated, None, NOW, Facts()) == Activate(FIRST)
    assert plan(activated, None, NOW, Facts(health=HEALTHY)) == Soak()


def test_a_way_back_that_began_goes_on_whatever_else_is_true() -> None:
    undo = Reason(code="soak_failed", detail="", retryable=False)

    step = plan(Soaking(ATTEMPT, CHOSEN, None, NOW, 0, undo), assignment(6), NOW, Facts(health=HEALTHY))

    assert step == RollBack(undo)


@pytest.mark.parametrize(
    ("health", "code"),
    [
        (Health(loaded=None), "soak_failed"),
        (Health(loaded=RELEASE), "soak_failed"),
        (Health(loaded=VARIANT, requests=100, errors=6), "soak_failed"),
        (Health(loaded=VARIANT, restarts=2), "crash_loop"),
    ],
)
def test_a_sick_model_is_rolled_back(health: Health, code: str) -> None:
    assert code_of(plan(SOAKING, None, NOW, Facts(health=health))) == code


def test_a_healthy_model_is_confirmed_when_its_soak_is_over() -> None:
    facts = Facts(health=Health(loaded=VARIANT, requests=100, errors=5))

    assert plan(SOAKING, None, NOW + 59.9, facts) == Rest(NOW + 60)
    assert plan(SOAKING, None, NOW + 10, facts) == Rest(NOW + 11)
    assert plan(SOAKING, None, NOW + 60, facts) == Confirm()


def test_crashes_while_live_roll_back() -> None:
    crashed = Soaking(ATTEMPT, CHOSEN, None, NOW, CRASHES_MAX)

    assert code_of(plan(crashed, None, NOW, Facts(health=HEALTHY))) == "crash_loop"


@pytest.mark.parametrize("kind", [Failed, RolledBack])
def test_an_outcome_is_forgotten_only_for_something_to_do(kind: type[Failed] | type[RolledBack]) -> None:
    ended = kind(ATTEMPT, reason("disk_full"))

    assert plan(ended, None, NOW, Facts()) == Rest()
    assert plan(ended, assignment(6), NOW, Facts()) == Forget()
    assert plan(ended, assignment(5), NOW, Facts()) == Forget()
    assert plan(ended, assignment(5), NOW + 300, Facts()) == Rest()
    waiting = Facts(waiting=Waiting("disk_full", NOW + 5, 6))
    assert plan(ended, assignment(5), NOW, waiting) == Wait("disk_full", NOW + 5)


@pytest.mark.parametrize(
    ("seq", "highest", "status", "quarantined", "answer"),
    [
        (6, 5, Confirmed(ATTEMPT), None, Answer.ACCEPTED),
        (4, 5, Confirmed(ATTEMPT), None, Answer.STALE),
        (5, 5, Confirmed(ATTEMPT), None, Answer.KNOWN),
        (5, 5, SOAKING, None, Answer.KNOWN),
        (5, 5, Failed(ATTEMPT, reason("golden_failed")), reason("golden_failed"), Answer.QUARANTINED),
        (5, 5, Failed(ATTEMPT, reason("disk_full")), reason("disk_full"), Answer.RETRY),
        (5, 5, Failed(ATTEMPT, reason("superseded")), None, Answer.KNOWN),
    ],
)
def test_an_offer_is_answered(
    seq: int, highest: int, status: SlotStatus, quarantined: Reason | None, answer: Answer
) -> None:
    assert answer_offer(assignment(seq), highest, status, quarantined) is answer
