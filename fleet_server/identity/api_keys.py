"""API keys: `ef_<prefix>_<secret>`; only a hash of the secret is stored."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from fleet_server.db import Session
from fleet_server.errors import InvalidRequest, NotFound, Unauthenticated
from fleet_server.identity import audit, store
from fleet_server.identity.model import ApiKey, Principal, Role

_REMEDY = "send Authorization: Bearer <key>; an admin makes keys with edge-fleet keys create"


def create(session: Session, name: str, role: Role, *, by: str, now: float) -> tuple[ApiKey, str]:
    """Make a key; the text is shown once and cannot be had again. Raises: InvalidRequest."""
    if not 0 < len(name) <= 100 or not name.isprintable():
        raise InvalidRequest(
            "create an API key", "its name is empty, too long or not printable", "give it a short name"
        )
    prefix, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
    key = ApiKey(prefix, name, role, now)
    # 256 random bits cannot be guessed from a plain hash; a slow one would only slow every request.
    store.add_api_key(session, key, _sha256(secret))
    audit.record(session, by, "key.created", name, now=now, detail={"prefix": prefix, "role": role.value})
    return key, f"ef_{prefix}_{secret}"


def authenticate(session: Session, text: str | None) -> Principal:
    """Who bears this key. Raises: Unauthenticated."""
    return identify(session, text)[1]


def identify(session: Session, text: str | None) -> tuple[str, Principal]:
    """The prefix of this key and who bears it. Raises: Unauthenticated."""
    if not text:
        raise Unauthenticated("answer", "no API key was sent", _REMEDY)
    parts = text.split("_", 2)
    found = store.find_api_key(session, parts[1]) if len(parts) == 3 and parts[0] == "ef" else None
    genuine = found is not None and hmac.compare_digest(found.secret_sha256, _sha256(parts[2]))
    if found is None or not genuine or found.key.revoked_at is not None:
        raise Unauthenticated("answer", "the API key is not known or no longer valid", _REMEDY)
    return found.key.prefix, Principal(found.key.name, found.key.role)


def holder(session: Session, prefix: str) -> Principal | None:
    """Who bears the key with this prefix; None when there is none or it is revoked."""
    found = store.find_api_key(session, prefix)
    return None if found is None or found.key.revoked_at is not None else Principal(found.key.name, found.key.role)


def revoke(session: Session, prefix: str, *, by: str, now: float) -> None:
    """Refuse a key from now on. Raises: NotFound."""
    found = store.find_api_key(session, prefix)
    if found is None:
        raise NotFound(f"revoke API key {prefix[:16]!r}", "no key has this prefix", "list keys: edge-fleet keys list")
    store.revoke_api_key(session, prefix, now)
    audit.record(session, by, "key.revoked", found.key.name, now=now, detail={"prefix": prefix})


def list_all(session: Session) -> list[ApiKey]:
    """Every key, without secrets."""
    return store.list_api_keys(session)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
