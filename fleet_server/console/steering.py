"""What an operator may do to a rollout from the console: the same calls, roles and audit as the API's routes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, assert_never

from fleet_server.console.door import Door
from fleet_server.console.snapshot import ConsolePorts
from fleet_server.errors import Unauthenticated
from fleet_server.identity.access import require
from fleet_server.identity.model import Role
from fleet_server.rollouts.model import TRANSITIONS, RolloutEvent, RolloutId, RolloutState

STEERS: Final = Role.OPERATOR
"""The role that may steer."""


class Action(str, Enum):
    """Something to do to a rollout."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    REVERT = "revert"


@dataclass(frozen=True, slots=True)
class Explained:
    """How an action is offered, and what it will do."""

    label: str
    icon: str
    consequence: str


EXPLAINED: Final = {
    Action.PAUSE: Explained(
        "Pause",
        "pause",
        "No further device is assigned until someone resumes. Devices that are reached already go on to their end.",
    ),
    Action.RESUME: Explained(
        "Resume",
        "play_arrow",
        "The rollout goes on where it stands. If its open wave has failed, you accept that wave as it is, by name, "
        "and the next one opens.",
    ),
    Action.CANCEL: Explained(
        "Cancel",
        "stop",
        "The rollout ends where it is: nobody else is assigned, and devices that are reached keep what they have. "
        "This cannot be taken back.",
    ),
    Action.REVERT: Explained(
        "Revert",
        "undo",
        "Every reached device gets a newer order to go back to what it ran before. This cannot be stopped halfway.",
    ),
}

_EVENTS: Final = {
    Action.PAUSE: RolloutEvent.PAUSE,
    Action.RESUME: RolloutEvent.RESUME,
    Action.CANCEL: RolloutEvent.CANCEL,
    Action.REVERT: RolloutEvent.REVERT,
}


def possible(state: str) -> tuple[Action, ...]:
    """The actions that make sense in a rollout's state."""
    return tuple(action for action, event in _EVENTS.items() if (RolloutState(state), event) in TRANSITIONS)


def steer(ports: ConsolePorts, door: Door, token: str | None, action: Action, rollout: str) -> None:
    """Do it in the name of whoever the session stands for now.

    Raises:
        Unauthenticated: the session has ended. Forbidden: the role does not suffice.
        NotFound, IllegalTransition: as on the API.
    """
    found = door.who(token)
    if found is None:
        raise Unauthenticated(f"{action.value} the rollout", "your session has ended", "log in again")
    by, now = require(found, STEERS).name, ports.clock()
    wanted = RolloutId(rollout)
    match action:
        case Action.PAUSE:
            ports.rollouts.pause(wanted, by=by, now=now)
        case Action.RESUME:
            ports.rollouts.resume(wanted, by=by, now=now)
        case Action.CANCEL:
            ports.rollouts.cancel(wanted, by=by, now=now)
        case Action.REVERT:
            ports.rollouts.revert(wanted, by=by, now=now)
        case _:
            assert_never(action)
