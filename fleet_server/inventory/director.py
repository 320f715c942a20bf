"""The director: signs, on the fly and for one device, what that device must run and what time it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from edge_runtime.contract.device_api import NONCE_MAX_CHARS
from edge_runtime.contract.device_state import Assignment, DirectorAnswer
from edge_runtime.contract.ids import DeviceId
from edge_runtime.trust.assignment import sign_assignment, sign_time
from edge_runtime.trust.keys import SigningKey
from fleet_server.errors import InvalidRequest


class Director:
    """Holds the way to the director's key; the key is read for each answer, so that a rotated one is used at once."""

    def __init__(self, key: Callable[[], SigningKey]) -> None:
        self._key = key

    def answer(self, device: DeviceId, nonce: str, assignments: Iterable[Assignment], now: float) -> DirectorAnswer:
        """Signed assignments and signed time for one device and one question.

        Raises:
            InvalidRequest: the nonce is too short to be fresh, or too long.
        """
        if not 8 <= len(nonce) <= NONCE_MAX_CHARS or not nonce.isascii() or not nonce.isprintable():
            raise InvalidRequest(
                f"answer device {device}", "its nonce is no printable text of 8 to 64 characters", "send a random one"
            )
        key = self._key()
        signed = [sign_assignment(assignment, key) for assignment in assignments]
        return DirectorAnswer(time=sign_time(device, nonce, now, key), assignments=signed)
