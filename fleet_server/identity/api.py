"""Routes for API keys and the audit log."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from fleet_server.db import Database
from fleet_server.identity import api_keys, audit
from fleet_server.identity.access import Admin, Viewer
from fleet_server.identity.model import ApiKey, Role
from fleet_server.problems import responses

router = APIRouter(prefix="/api/v1", responses=responses(401, 403))


@dataclass(frozen=True, slots=True)
class AuditView:
    """One entry of the audit log."""

    id: int
    at: float
    who: str
    action: str
    subject: str
    detail: dict[str, object]
    hash: str


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Entries, newest first; pass `next_cursor` as `before` for older ones."""

    items: list[AuditView]
    next_cursor: int | None


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """Whether every entry fits its chain."""

    intact: bool
    broken_at: int | None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A new key; `secret` is shown only here."""

    key: ApiKey
    secret: str


class ApiKeyRequest(BaseModel):
    """What to make."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"name": "ci", "role": "releaser"}})

    name: str = Field(min_length=1, max_length=100)
    role: Role


def _database(request: Request) -> Database:
    return cast("Database", request.app.state.database)


Store = Annotated[Database, Depends(_database)]


@router.get("/audit", tags=["audit"])
def list_audit(
    _who: Viewer,
    database: Store,
    before: int | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    action: str | None = None,
    subject: str | None = None,
) -> AuditPage:
    """Who did what to what, newest first."""
    with database.reading() as session:
        found = audit.entries(session, before=before, limit=limit, action=action, subject=subject)
    items = [
        AuditView(entry.id, entry.at, entry.who, entry.action, entry.subject, json.loads(entry.detail), entry.hash)
        for entry in found
    ]
    return AuditPage(items, items[-1].id if len(items) == limit else None)


@router.get("/audit/verdict", tags=["audit"])
def check_audit(_who: Viewer, database: Store) -> AuditVerdict:
    """Recompute the whole chain."""
    with database.reading() as session:
        broken = audit.find_break(session)
    return AuditVerdict(broken is None, None if broken is None else broken.id)


@router.get("/keys", tags=["keys"])
def list_keys(_who: Admin, database: Store) -> list[ApiKey]:
    """API keys, without their secrets."""
    with database.reading() as session:
        return api_keys.list_all(session)


@router.post("/keys", tags=["keys"], status_code=201, responses=responses(422))
def create_key(who: Admin, database: Store, wanted: ApiKeyRequest) -> NewApiKey:
    """Make an API key."""
    with database.session() as session:
        key, secret = api_keys.create(session, wanted.name, wanted.role, by=who.name, now=time.time())
    return NewApiKey(key, secret)


@router.delete("/keys/{prefix}", tags=["keys"], status_code=204, responses=responses(404))
def revoke_key(who: Admin, database: Store, prefix: str) -> None:
    """Refuse an API key from now on."""
    with database.session() as session:
        api_keys.revoke(session, prefix, by=who.name, now=time.time())
