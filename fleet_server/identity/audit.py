"""The audit log: who did what to what, append-only, each entry chained to the one before."""

from __future__ import annotations

from collections.abc import Mapping

from fleet_server.db import Session
from fleet_server.identity import store
from fleet_server.identity.model import GENESIS, AuditEntry, first_broken, link

SYSTEM = "fleet-server"
"""Who acts when no person does."""


def record(
    session: Session,
    who: str,
    action: str,
    subject: str,
    *,
    now: float,
    detail: Mapping[str, object] | None = None,
) -> None:
    """Append one entry in the caller's transaction: what is not committed did not happen."""
    previous = store.last_audit_hash(session) or GENESIS
    store.add_audit(session, link(previous, at=now, who=who, action=action, subject=subject, detail=detail or {}))


def entries(
    session: Session,
    *,
    before: int | None = None,
    limit: int = 100,
    action: str | None = None,
    subject: str | None = None,
) -> list[AuditEntry]:
    """Entries, newest first, older than a cursor."""
    return store.list_audit(session, before=before, limit=limit, action=action, subject=subject)


def find_break(session: Session) -> AuditEntry | None:
    """The first entry that does not fit its chain; None when nobody changed the log."""
    return first_broken(store.whole_audit(session))
