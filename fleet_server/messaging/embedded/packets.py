"""The MQTT 3.1.1 packets we speak (QoS 0 and 1), as values, and the limits a packet must keep to be one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from edge_runtime.contract.errors import ContractError

MAX_TOPIC_BYTES: Final = 1024
MAX_TOPIC_LEVELS: Final = 32
MAX_CLIENT_ID_BYTES: Final = 256
MAX_CREDENTIAL_BYTES: Final = 4096
MAX_FILTERS_PER_PACKET: Final = 64
# MQTT 3.1.1, 2.2.3: the length field holds at most four groups of seven bits.
MAX_REMAINING_LENGTH: Final = 268_435_455

UNSUPPORTED_LEVEL: Final = "protocol_level"
OVERSIZE: Final = "oversize"

# C0 and C1 control characters beside NUL: they have no place in a name, and would forge lines in a log.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class MalformedPacket(ContractError):
    """Bytes or a packet break MQTT 3.1.1 or our limits; `code` is `protocol`, `oversize` or `protocol_level`."""

    default_code = "protocol"


def malformed(because: str, code: str | None = None) -> MalformedPacket:
    """The one error of this codec, with the fact that caused it."""
    return MalformedPacket("accept MQTT packet", because, code=code)


class ConnectCode(IntEnum):
    """The answer to CONNECT (MQTT 3.1.1, table 3.1)."""

    ACCEPTED = 0
    UNACCEPTABLE_PROTOCOL = 1
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3
    BAD_CREDENTIALS = 4
    NOT_AUTHORISED = 5


SUBSCRIBE_REFUSED: Final = 0x80


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes when its client dies without saying goodbye."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Connect:
    """A client introduces itself; `keepalive_s` 0 asks for no time limit."""

    client_id: str
    clean_session: bool = True
    keepalive_s: int = 60
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None


@dataclass(frozen=True, slots=True)
class Connack:
    """The broker's answer to CONNECT."""

    code: ConnectCode
    session_present: bool = False


@dataclass(frozen=True, slots=True)
class Publish:
    """One message; `packet_id` is 0 at QoS 0 and 1..65535 at QoS 1."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0


@dataclass(frozen=True, slots=True)
class Puback:
    """QoS 1 receipt of one PUBLISH."""

    packet_id: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Topic filters with the QoS asked for (0..2; 2 is granted as 1)."""

    packet_id: int
    filters: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Suback:
    """Granted QoS, or `SUBSCRIBE_REFUSED`, for each filter in order."""

    packet_id: int
    codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Topic filters to forget."""

    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsuback:
    """Receipt of one UNSUBSCRIBE."""

    packet_id: int


@dataclass(frozen=True, slots=True)
class Pingreq:
    """The client is alive."""


@dataclass(frozen=True, slots=True)
class Pingresp:
    """So is the broker."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The client leaves on purpose: its will is dropped."""


Packet: TypeAlias = (
    Connect | Connack | Publish | Puback | Subscribe | Suback | Unsubscribe | Unsuback | Pingreq | Pingresp | Disconnect
)


def check_text(text: str) -> str:
    """Refuse NUL and other control characters in any name. Raises: MalformedPacket."""
    if _CONTROL.search(text):
        raise malformed("a string holds a control character")
    return text


def check_topic(topic: str) -> str:
    """Refuse what is no topic name: empty, with wildcards, too long or too deep. Raises: MalformedPacket."""
    if "+" in topic or "#" in topic:
        raise malformed("a topic name holds a wildcard")
    return _check_depth(topic)


def check_filter(topic_filter: str) -> str:
    """Refuse what is no topic filter: misplaced wildcards, empty, too long or too deep. Raises: MalformedPacket."""
    _check_depth(topic_filter)
    levels = topic_filter.split("/")
    if any("+" in level and level != "+" for level in levels):
        raise malformed("'+' shares its level with other characters")
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        raise malformed("'#' is not the whole last level")
    return topic_filter


def _check_depth(topic: str) -> str:
    if not topic:
        raise malformed("a topic is empty")
    too_long = len(topic) > MAX_TOPIC_BYTES or (
        not topic.isascii() and len(topic.encode(errors="surrogatepass")) > MAX_TOPIC_BYTES
    )
    if too_long or topic.count("/") >= MAX_TOPIC_LEVELS:
        raise malformed(f"a topic is longer than {MAX_TOPIC_BYTES} bytes or {MAX_TOPIC_LEVELS} levels")
    return check_text(topic)
