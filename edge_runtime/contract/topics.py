"""Every MQTT topic, built and parsed here only: `ef/v1/{device}/up/…` and `ef/v1/{device}/down/…`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import DeviceId, SlotId, parse_device_id, parse_slot_id, shown

ROOT: Final = "ef/v1"
UP: Final = "up"
DOWN: Final = "down"

ALL_UP: Final = f"{ROOT}/+/{UP}/#"
"""What the server subscribes to."""

STATUS: Final = "status"
BIRTH: Final = "birth"
REPORTED: Final = "reported"
TELEMETRY: Final = "telemetry"
EVENT: Final = "event"
LOG: Final = "log"
ACK: Final = "ack"
DESIRED: Final = "desired"
COMMAND: Final = "cmd"

_UP_KINDS: Final = frozenset({STATUS, BIRTH, REPORTED, TELEMETRY, EVENT, LOG, COMMAND})
_TOPIC_MAX_CHARS: Final = 256


@dataclass(frozen=True, slots=True)
class UpTopic:
    """A topic a device publishes on."""

    device: DeviceId
    kind: str
    name: str | None
    """Slot of `reported`, id of `cmd`; None otherwise."""


def parse_up(topic: str) -> UpTopic:
    """Read the topic of a message that reached the server. Raises: ContractError for any other topic."""
    parts = topic.split("/") if len(topic) <= _TOPIC_MAX_CHARS else []
    if len(parts) < 5 or "/".join(parts[:2]) != ROOT or parts[3] != UP or parts[4] not in _UP_KINDS:
        raise ContractError(f"read topic {shown(topic)}", "no device publishes there")
    device, kind, rest = parse_device_id(parts[2]), parts[4], parts[5:]
    if kind == REPORTED and len(rest) == 1:
        return UpTopic(device, kind, parse_slot_id(rest[0]))
    if kind == COMMAND and len(rest) == 2 and rest[1] == "result":
        return UpTopic(device, kind, parse_slot_id(rest[0]))
    if kind in {REPORTED, COMMAND} or rest:
        raise ContractError(f"read topic {shown(topic)}", "no device publishes there")
    return UpTopic(device, kind, None)


def up(device: DeviceId, kind: str) -> str:
    """Topic of a device's `status`, `birth`, `telemetry`, `event` or `log`."""
    return f"{ROOT}/{device}/{UP}/{kind}"


def reported(device: DeviceId, slot: SlotId) -> str:
    """Topic on which a device reports one slot."""
    return f"{ROOT}/{device}/{UP}/{REPORTED}/{slot}"


def command_result(device: DeviceId, command: str) -> str:
    """Topic on which a device answers a command."""
    return f"{ROOT}/{device}/{UP}/{COMMAND}/{parse_slot_id(command)}/result"


def all_down(device: DeviceId) -> str:
    """What a device subscribes to."""
    return f"{ROOT}/{device}/{DOWN}/#"


def ack(device: DeviceId) -> str:
    """Topic on which the server acknowledges telemetry it has committed."""
    return f"{ROOT}/{device}/{DOWN}/{ACK}"


def desired(device: DeviceId, slot: SlotId) -> str:
    """Topic of the doorbell for one slot."""
    return f"{ROOT}/{device}/{DOWN}/{DESIRED}/{slot}"


def command(device: DeviceId, command_id: str) -> str:
    """Topic of an order to a device."""
    return f"{ROOT}/{device}/{DOWN}/{COMMAND}/{parse_slot_id(command_id)}"


def owner(topic: str) -> DeviceId | None:
    """The device a topic belongs to; None when it is not a device's topic."""
    parts = topic.split("/")
    if len(parts) < 4 or "/".join(parts[:2]) != ROOT:
        return None
    try:
        return parse_device_id(parts[2])
    except ContractError:
        return None
