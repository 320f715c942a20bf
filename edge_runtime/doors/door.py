"""What every door is to whoever opens it, and the addresses at which doors listen."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Protocol

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import shown

_LOOPBACK: Final = "127.0.0.1"
_PORT_MAX: Final = 65535
_PORT_DIGITS: Final = 20


@dataclass(frozen=True, slots=True)
class DoorStatistics:
    """What a door did since it was opened."""

    answered: int
    """Requests that got what they asked for."""
    refused: int
    """Requests that got an error."""
    turned_away: int
    """Clients that were not let in: for who they are, or because there is no room."""
    connections: int
    """Open now."""


class Door(Protocol):
    """Lets requests in, in threads of its own."""

    @property
    def kind(self) -> str:
        """What it speaks, for a person: `v2 HTTP`."""

    @property
    def address(self) -> str:
        """Where clients reach it, with the port that it really has; known once it is started."""

    def start(self) -> None:
        """Listen and answer from now on. Raises: TransportError when the address cannot be had."""

    def statistics(self) -> DoorStatistics:
        """Counters since it was opened."""

    def stop(self, drain_s: float) -> None:
        """Let nobody in, give requests in flight so many seconds, then close; safe to repeat."""


@dataclass(frozen=True, slots=True)
class Listen:
    """A network address to listen at."""

    host: str
    port: int
    """0: one that is free."""

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            # A name: where it points today says nothing about tomorrow.
            return False

    def __str__(self) -> str:
        """As people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(text: str) -> Listen:
    """Read `HOST:PORT`, `[IPV6]:PORT`, `:PORT` or `PORT`; without a host it is the loopback. Raises: ContractError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host or (not colon and not port):
        host, port = "", ""
    if not re.fullmatch(r"[A-Za-z0-9._:%-]*", host) or not re.fullmatch(r"[0-9]+", port):
        raise ContractError(f"listen at {shown(text)}", "it is no address", "write HOST:PORT, [IPV6]:PORT or PORT")
    if len(port) > _PORT_DIGITS or int(port) > _PORT_MAX:
        raise ContractError(f"listen at {shown(text)}", f"there is no port {shown(port)}", "take one up to 65535")
    return Listen(host or _LOOPBACK, int(port))
