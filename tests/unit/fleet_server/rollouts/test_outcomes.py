"""What a report says about a member."""

from dataclasses import replace

import pytest

from edge_runtime.contract.device_state import Reported
from edge_runtime.contract.ids import DeviceId
from fleet_server.inventory.model import SlotProgress, SlotView
from fleet_server.rollouts.model import Member, Outcome
from fleet_server.rollouts.outcomes import confirmed_before, may_change, read_report
from tests.fakes import documents
from tests.fakes.fleet import SLOT

NOW = 1_795_000_000.0
MEMBER = Member(device=DeviceId("cam-1"), wave=0, seq=7, deadline_at=NOW + 60)
DESIRED = documents.assignment()


def view(state: str, seq: int = 7) -> SlotView:
    report = Reported(
        device=MEMBER.device, slot=SLOT, revision=1, seq=seq, state=state, at=NOW, running=documents.running()
    )
    return SlotView(MEMBER.device, SLOT, DESIRED, report)


@pytest.mark.parametrize(
    ("member", "progress", "expected"),
    [
        (MEMBER, None, True),
        (MEMBER, SlotProgress(MEMBER.device, 8, 7, "confirmed"), True),
        (MEMBER, SlotProgress(MEMBER.device, 7, None, None), False),
        (MEMBER, SlotProgress(MEMBER.device, 7, 6, "confirmed"), False),
        (MEMBER, SlotProgress(MEMBER.device, 7, 7, "soaking"), False),
        (MEMBER, SlotProgress(MEMBER.device, 7, 7, "a state of tomorrow"), False),
        (MEMBER, SlotProgress(MEMBER.device, 7, 7, "confirmed"), True),
        (replace(MEMBER, outcome=Outcome.CONFIRMED), SlotProgress(MEMBER.device, 7, 7, "confirmed"), False),
        (replace(MEMBER, outcome=Outcome.SUPERSEDED), None, False),
        (replace(MEMBER, revert_seq=7), None, False),
    ],
)
def test_only_news_is_read(member: Member, progress: SlotProgress | None, expected: bool) -> None:
    assert may_change(member, progress) is expected


@pytest.mark.parametrize(
    "silent", [view("soaking"), view("confirmed", seq=6), SlotView(MEMBER.device, SLOT, DESIRED, None)]
)
def test_what_says_nothing_new_changes_nothing(silent: SlotView) -> None:
    assert read_report(MEMBER, silent, NOW) is None


def test_a_slot_that_nobody_desires_anything_of_is_no_longer_this_rollouts() -> None:
    change = read_report(MEMBER, SlotView(MEMBER.device, SLOT, None, None), NOW)

    assert change is not None
    assert change.member.outcome is Outcome.SUPERSEDED


def test_a_confirmation_names_the_variant_that_won() -> None:
    change = read_report(MEMBER, view("confirmed"), NOW)

    assert change is not None
    assert (change.member.outcome, change.member.variant) == (Outcome.CONFIRMED, "ort-int8")
    assert change.winner == documents.running()


def test_what_is_on_trial_was_not_confirmed_before() -> None:
    assert confirmed_before(view("soaking"), None) is None
    assert confirmed_before(view("confirmed"), None) == documents.running()
    assert confirmed_before(view("soaking"), replace(MEMBER, previous=documents.running())) == documents.running()
    assert confirmed_before(SlotView(MEMBER.device, SLOT, None, None), None) is None
