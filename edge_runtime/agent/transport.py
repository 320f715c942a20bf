"""The port between the agent and whatever carries its messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Message:
    """Something that arrived for this device."""

    topic: str
    payload: bytes


class Transport(Protocol):
    """Carries messages between device and server; every call returns at once."""

    def start(self, on_message: Callable[[Message], None], on_connected: Callable[[], None]) -> None:
        """Begin to connect, and keep connecting. The callbacks run in the transport's own thread and must not block."""

    @property
    def is_connected(self) -> bool:
        """Whether messages can leave now."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Hand a message over; silently lost while not connected: what matters is sent again by its owner."""

    def stop(self, farewell: tuple[str, bytes] | None = None) -> None:
        """Say farewell (a retained status), disconnect, and leave no thread behind; at most a few seconds."""
