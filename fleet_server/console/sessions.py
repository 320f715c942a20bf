"""Who is logged in: random tokens, kept here as hashes, each standing for one API key until it is too old or idle."""

from __future__ import annotations

import hashlib
import secrets
import threading
from dataclasses import dataclass
from typing import Final

COOKIE: Final = "edgefleet_session"
LIFE_S: Final = 12 * 3600.0
"""From logging in to logging in again."""
IDLE_S: Final = 3600.0
"""How long a session lives without a request and without an open page."""
_SESSIONS_MAX: Final = 1000


@dataclass(slots=True)
class _Session:
    prefix: str
    opened_at: float
    used_at: float


class Sessions:
    """The sessions of this server process; a restart ends them all."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self._guard = threading.Lock()

    def open(self, prefix: str, now: float) -> str:
        """Begin a session for the key with this prefix; the token is shown once and only its hash is kept."""
        token = secrets.token_urlsafe(32)
        with self._guard:
            self._sessions = {key: one for key, one in self._sessions.items() if _is_alive(one, now)}
            if len(self._sessions) >= _SESSIONS_MAX:
                del self._sessions[min(self._sessions, key=lambda key: self._sessions[key].used_at)]
            self._sessions[_hash(token)] = _Session(prefix, now, now)
        return token

    def use(self, token: str | None, now: float) -> str | None:
        """The prefix of the key behind a token, which thereby counts as used; None when there is no such session."""
        if not token:
            return None
        with self._guard:
            found = self._sessions.get(_hash(token))
            if found is None:
                return None
            if not _is_alive(found, now):
                del self._sessions[_hash(token)]
                return None
            found.used_at = max(found.used_at, now)
            return found.prefix

    def close(self, token: str | None) -> None:
        """End a session; nothing happens when there is none."""
        if token:
            with self._guard:
                self._sessions.pop(_hash(token), None)


def _is_alive(session: _Session, now: float) -> bool:
    return now < session.opened_at + LIFE_S and now < session.used_at + IDLE_S


def _hash(token: str) -> str:
    # 256 random bits need no slow hash; a dump of this process's memory shall still hold no usable token.
    return hashlib.sha256(token.encode()).hexdigest()
