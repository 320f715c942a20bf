"""Who may do what with which topic: the one rule for publish, subscribe, deliver, retained message and last will.

A device writes below `ef/v1/<itself>/up/` and reads below `ef/v1/<itself>/down/`; the server may do everything below
`ef/v1/`; everybody else, nothing. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, TypeAlias

from edge_runtime.contract import topics
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import parse_device_id

SERVER_CLIENT_ID: Final = "fleet-server"


class Action(Enum):
    """What a client wants with a topic (for `SUBSCRIBE`: with a topic filter)."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    DELIVER = "deliver"
    RETAINED = "retained"
    WILL = "will"


Access: TypeAlias = Callable[[str, Action, str], bool]


def fleet_access(server_client_id: str = SERVER_CLIENT_ID) -> Access:
    """The rule `may(client, action, topic_or_filter)` for a fleet whose server has this client id."""
    root = f"{topics.ROOT}/"

    def may(client: str, action: Action, topic: str) -> bool:
        if client == server_client_id:
            return topic.startswith(root)
        return is_device_id(client) and topic.startswith(f"{root}{client}/{_SIDE[action]}/")

    return may


def unsafe_open_access(client: str, action: Action, topic: str) -> bool:
    """Everybody may do everything: only for controls, which must see an attack succeed."""
    del client, action, topic
    return True


def is_device_id(client: str) -> bool:
    """Whether this can be a device at all; keeps wildcards and slashes out of the rule above."""
    try:
        parse_device_id(client)
    except ContractError:
        return False
    return True


# A filter that starts with literal levels matches only topics that start with them, so one prefix rule serves both.
_SIDE: Final = {
    Action.PUBLISH: topics.UP,
    Action.RETAINED: topics.UP,
    Action.WILL: topics.UP,
    Action.SUBSCRIBE: topics.DOWN,
    Action.DELIVER: topics.DOWN,
}
