"""Lets people in with an API key, and says who they are for as long as their session and their key are good."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from fleet_server.console.attempts import Attempts
from fleet_server.console.sessions import Sessions
from fleet_server.db import Database
from fleet_server.errors import FleetError, Unauthenticated
from fleet_server.identity import api_keys, audit
from fleet_server.identity.model import Principal

_KEY_MAX: Final = 200

log = structlog.get_logger("console")


class TooManyAttempts(FleetError):
    """This source, or all sources together, failed too often; `wait_s` says for how long."""

    default_code = "too_many_attempts"

    def __init__(self, wait_s: float) -> None:
        self.wait_s = max(1, math.ceil(wait_s))
        super().__init__("log in", "there were too many failed attempts", f"try again in {self.wait_s} s")


class Door:
    """The console's only way in."""

    def __init__(self, database: Database, *, attempts: Attempts | None = None, clock: Callable[[], float] = time.time):
        self._database = database
        self._attempts = attempts or Attempts()
        self._sessions = Sessions()
        self._clock = clock

    def enter(self, key: str, source: str) -> str:
        """Log in with an API key from a source address; returns the session's token.

        Raises:
            Unauthenticated: the key is not known or no longer valid. TooManyAttempts: whatever the key.
        """
        now = self._clock()
        if (wait_s := self._attempts.wait_s(source, now)) > 0:
            raise TooManyAttempts(wait_s)
        key = key.strip()[:_KEY_MAX]
        try:
            with self._database.reading() as session:
                prefix, principal = api_keys.identify(session, key)
        except Unauthenticated:
            self._attempts.failed(source, now)
            log.warning("login.refused", source=source)
            raise
        with self._database.session() as session:
            audit.record(session, principal.name, "console.entered", source, now=now)
        return self._sessions.open(prefix, now)

    def who(self, token: str | None) -> Principal | None:
        """Whoever a session stands for, read from the database; None when it, or its key, has ended."""
        prefix = self._sessions.use(token, self._clock())
        if prefix is None:
            return None
        with self._database.reading() as session:
            principal = api_keys.holder(session, prefix)
        if principal is None:
            self._sessions.close(token)
        return principal

    def still(self, token: str | None, principals: Mapping[str, Principal]) -> Principal | None:
        """Whoever a session stands for, among the bearers of valid keys that a snapshot has just read.

        A key may be younger than the snapshot: only the database can say that one is no longer good.
        """
        prefix = self._sessions.use(token, self._clock())
        return None if prefix is None else principals.get(prefix) or self.who(token)

    def leave(self, token: str | None) -> None:
        """End a session."""
        self._sessions.close(token)
