"""Who may do what: roles, keys, claims, certificates, and links of the audit chain (pure)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from edge_runtime.contract.ids import DeviceId

GENESIS: Final = "0" * 64
SUPERSEDED_GRACE_S: Final = 3600.0
"""How long a certificate still counts after its successor was first used: requests under way may finish."""
RENEWAL_GRACE_S: Final = 180 * 86_400.0
"""How long after its expiry a certificate may still ask for the next one: the device slept."""


class Role(str, Enum):
    """What a person or program may do; each includes those before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    RELEASER = "releaser"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Whether this role may do what `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever asks on the people's listener."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key without its secret."""

    prefix: str
    name: str
    role: Role
    created_at: float
    revoked_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A one-time right to enrol, without its secret."""

    id: str
    created_at: float
    expires_at: float
    device: DeviceId | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    used_at: float | None = None
    used_by: DeviceId | None = None
    used_key_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCertificate:
    """A certificate that was issued to a device."""

    serial: int
    device: DeviceId
    key_sha256: str
    """Hex SHA-256 of the public key (SubjectPublicKeyInfo)."""
    not_before: float
    not_after: float
    first_used_at: float | None = None
    superseded_at: float | None = None
    revoked_at: float | None = None

    def objection(self, now: float, *, renewing: bool) -> str | None:
        """Why this certificate does not count now; None when it does. A renewal may come late."""
        if self.revoked_at is not None:
            return "the certificate is revoked"
        if self.superseded_at is not None and now > self.superseded_at + SUPERSEDED_GRACE_S:
            return "the certificate was replaced by a newer one"
        if now > self.not_after + (RENEWAL_GRACE_S if renewing else 0.0):
            return "the certificate has expired"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One link of the audit chain: its hash covers everything else in it, the previous hash included."""

    at: float
    who: str
    action: str
    subject: str
    detail: str
    """JSON object, as text: hashed as it is stored."""
    previous: str
    hash: str
    id: int = 0


def link(previous: str, *, at: float, who: str, action: str, subject: str, detail: Mapping[str, object]) -> AuditEntry:
    """The next link after `previous`."""
    text = json.dumps(dict(detail), sort_keys=True, separators=(",", ":"), default=str)
    return AuditEntry(
        at=at,
        who=who,
        action=action,
        subject=subject,
        detail=text,
        previous=previous,
        hash=_hash(previous, at, who, action, subject, text),
    )


def first_broken(chain: Iterable[AuditEntry]) -> AuditEntry | None:
    """The first link that was changed, or whose predecessor is missing; None for a sound chain."""
    previous = GENESIS
    for entry in chain:
        expected = _hash(previous, entry.at, entry.who, entry.action, entry.subject, entry.detail)
        if entry.previous != previous or entry.hash != expected:
            return entry
        previous = entry.hash
    return None


def _hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
