"""The table of slot states: complete, legal, and with a way home from everywhere."""

import itertools
import pickle

import pytest

from edge_runtime.contract.device_state import SlotState
from edge_runtime.update.states import (
    ENDED,
    RESTING,
    STATUS_TYPES,
    TRANSITIONS,
    IllegalTransition,
    UpdateEvent,
    diagram,
    next_state,
)

BEFORE_ACTIVATION = frozenset(SlotState) - RESTING - ENDED - {SlotState.ACTIVATED, SlotState.SOAKING}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(SlotState, UpdateEvent)))
def test_every_pair_leads_where_the_table_says_or_is_illegal(state: SlotState, event: UpdateEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition):
            next_state(state, event)


@pytest.mark.parametrize("state", SlotState)
def test_every_state_can_get_home(state: SlotState) -> None:
    reached = {state}
    while more := {new for (old, _), new in TRANSITIONS.items() if old in reached} - reached:
        reached |= more

    assert reached & RESTING


def test_every_state_can_be_reached_from_idle() -> None:
    reached = {SlotState.IDLE}
    while more := {new for (old, _), new in TRANSITIONS.items() if old in reached} - reached:
        reached |= more

    assert reached == set(SlotState)


def test_an_attempt_fails_before_activation_and_rolls_back_after_it() -> None:
    assert {old for (old, event) in TRANSITIONS if event is UpdateEvent.FAIL} == BEFORE_ACTIVATION
    into_rolled_back = {old for (old, event) in TRANSITIONS if event is UpdateEvent.ROLL_BACK}
    assert into_rolled_back == {SlotState.ACTIVATED, SlotState.SOAKING, SlotState.CONFIRMED}


def test_every_event_is_used_and_every_state_has_a_status() -> None:
    assert {event for _, event in TRANSITIONS} == set(UpdateEvent)
    assert set(STATUS_TYPES) == set(SlotState)


def test_the_diagram_has_an_arrow_for_every_row() -> None:
    assert diagram().count("-->") == len(TRANSITIONS) + 1


def test_an_illegal_transition_survives_a_process_border() -> None:
    error = pickle.loads(pickle.dumps(IllegalTransition(SlotState.IDLE, UpdateEvent.SOAK)))

    assert str(error) == "cannot apply 'soak' to a slot: it is idle; report this as a bug"
