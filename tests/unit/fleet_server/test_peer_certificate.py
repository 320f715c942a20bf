"""How a device's connection ends when the server does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from fleet_server.identity.peer_certificate import PeerCertificateProtocol


@dataclass
class Transport:
    """Notes how it was ended."""

    ended: str = "open"

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


@dataclass
class Cycle:
    """A request, answered or not."""

    response_complete: bool
    keep_alive: bool = True


@pytest.mark.parametrize(
    ("cycle", "ended"), [(None, "aborted"), (Cycle(response_complete=True), "aborted"), (Cycle(False), "open")]
)
def test_an_idle_connection_ends_at_once_and_a_busy_one_after_its_answer(cycle: Cycle | None, ended: str) -> None:
    # TLS says goodbye and waits for an echo, which a client that is not reading never sends.
    connection = object.__new__(PeerCertificateProtocol)
    transport = Transport()
    connection.transport = cast("Any", transport)
    connection.cycle = cast("Any", cycle)

    connection.shutdown()

    assert transport.ended == ended
    assert cycle is None or cycle.response_complete or not cycle.keep_alive
