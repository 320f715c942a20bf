"""Rows of certificates, claims, API keys and the audit log; they leave this module as domain types only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Column, CursorResult, and_, or_, update
from sqlalchemy import Text as TextType
from sqlmodel import Field, SQLModel, col, select

from edge_runtime.contract.ids import DeviceId
from fleet_server.db import Session
from fleet_server.identity.model import ApiKey, AuditEntry, Claim, DeviceCertificate, Role


class CertificateRow(SQLModel, table=True):
    """One certificate that was issued to a device."""

    __tablename__ = "certificate"

    serial: str = Field(primary_key=True)
    device: str = Field(index=True)
    key_sha256: str
    not_before: float
    not_after: float
    first_used_at: float | None = None
    superseded_at: float | None = None
    revoked_at: float | None = None


class ClaimRow(SQLModel, table=True):
    """One one-time secret, by its hash."""

    __tablename__ = "claim"

    secret_sha256: str = Field(primary_key=True)
    id: str = Field(index=True, unique=True)
    device: str | None = None
    labels: str = Field(default="{}", sa_column=Column(TextType, nullable=False))
    created_at: float
    expires_at: float
    used_at: float | None = None
    used_by: str | None = None
    used_key_sha256: str | None = None


class ApiKeyRow(SQLModel, table=True):
    """One API key, by the hash of its secret."""

    __tablename__ = "api_key"

    prefix: str = Field(primary_key=True)
    secret_sha256: str
    name: str
    role: str
    created_at: float
    revoked_at: float | None = None


class AuditRow(SQLModel, table=True):
    """One link of the audit chain."""

    __tablename__ = "audit"

    id: int | None = Field(default=None, primary_key=True)
    at: float
    who: str
    action: str = Field(index=True)
    subject: str = Field(index=True)
    detail: str = Field(sa_column=Column(TextType, nullable=False))
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key with the hash its secret must have."""

    key: ApiKey
    secret_sha256: str


def add_certificate(session: Session, certificate: DeviceCertificate) -> None:
    """Remember a certificate before it is handed out."""
    session.add(
        CertificateRow(
            serial=_serial(certificate.serial),
            device=certificate.device,
            key_sha256=certificate.key_sha256,
            not_before=certificate.not_before,
            not_after=certificate.not_after,
        )
    )


def find_certificate(session: Session, serial: int) -> DeviceCertificate | None:
    """One certificate by its X.509 serial number."""
    row = session.get(CertificateRow, _serial(serial))
    return None if row is None else _certificate(row)


def was_revoked_or_replaced(session: Session, certificate: DeviceCertificate) -> bool:
    """Whether something is known of this device that puts an unknown certificate out of force.

    A device that was revoked since its issue, or one that uses a certificate issued later.
    """
    revoked_since = col(CertificateRow.revoked_at) >= certificate.not_before
    newer_in_use = and_(
        col(CertificateRow.first_used_at).is_not(None), col(CertificateRow.not_before) >= certificate.not_before
    )
    query = select(CertificateRow.serial).where(CertificateRow.device == certificate.device)
    return session.exec(query.where(or_(revoked_since, newer_in_use)).limit(1)).first() is not None


def mark_first_used(session: Session, certificate: DeviceCertificate, now: float) -> None:
    """A device used this certificate for the first time: the earlier ones of this device are superseded."""
    session.execute(
        update(CertificateRow)
        .where(col(CertificateRow.device) == certificate.device)
        .where(col(CertificateRow.not_before) <= certificate.not_before)
        .where(col(CertificateRow.serial) != _serial(certificate.serial))
        .where(col(CertificateRow.superseded_at).is_(None))
        .values(superseded_at=now)
    )
    session.execute(
        update(CertificateRow)
        .where(col(CertificateRow.serial) == _serial(certificate.serial))
        .where(col(CertificateRow.first_used_at).is_(None))
        .values(first_used_at=now)
    )


def revoke_certificates(session: Session, device: DeviceId, now: float) -> None:
    """Revoke every certificate of a device."""
    session.execute(
        update(CertificateRow)
        .where(col(CertificateRow.device) == device)
        .where(col(CertificateRow.revoked_at).is_(None))
        .values(revoked_at=now)
    )


def revoked_certificates(session: Session, now: float) -> list[DeviceCertificate]:
    """Revoked certificates whose time is not over yet."""
    query = select(CertificateRow).where(col(CertificateRow.revoked_at).is_not(None), CertificateRow.not_after > now)
    return [_certificate(row) for row in session.exec(query.order_by(col(CertificateRow.serial)))]


def devices_with_certificate(session: Session, now: float) -> set[DeviceId]:
    """Devices that hold a certificate which is neither revoked nor expired."""
    query = select(CertificateRow.device).where(
        col(CertificateRow.revoked_at).is_(None), CertificateRow.not_after > now
    )
    return {DeviceId(device) for device in session.exec(query.distinct())}


def add_claim(session: Session, claim: Claim, secret_sha256: str) -> None:
    """Remember a claim."""
    session.add(
        ClaimRow(
            secret_sha256=secret_sha256,
            id=claim.id,
            device=claim.device,
            labels=json.dumps(dict(claim.labels), sort_keys=True),
            created_at=claim.created_at,
            expires_at=claim.expires_at,
        )
    )


def find_claim(session: Session, secret_sha256: str) -> Claim | None:
    """The claim behind a secret's hash."""
    row = session.get(ClaimRow, secret_sha256)
    return None if row is None else _claim(row)


def list_claims(session: Session) -> list[Claim]:
    """Every claim, newest first."""
    return [_claim(row) for row in session.exec(select(ClaimRow).order_by(col(ClaimRow.created_at).desc()))]


def take_claim(session: Session, secret_sha256: str, device: DeviceId, key_sha256: str, now: float) -> bool:
    """Use a claim up; False when somebody was faster."""
    result = session.execute(
        update(ClaimRow)
        .where(col(ClaimRow.secret_sha256) == secret_sha256)
        .where(col(ClaimRow.used_at).is_(None))
        .values(used_at=now, used_by=device, used_key_sha256=key_sha256)
    )
    return cast("CursorResult[object]", result).rowcount == 1


def add_api_key(session: Session, key: ApiKey, secret_sha256: str) -> None:
    """Remember an API key."""
    session.add(
        ApiKeyRow(
            prefix=key.prefix,
            secret_sha256=secret_sha256,
            name=key.name,
            role=key.role.value,
            created_at=key.created_at,
        )
    )


def find_api_key(session: Session, prefix: str) -> StoredKey | None:
    """One API key by its prefix."""
    row = session.get(ApiKeyRow, prefix)
    return None if row is None else StoredKey(_api_key(row), row.secret_sha256)


def list_api_keys(session: Session) -> list[ApiKey]:
    """Every API key, oldest first."""
    return [_api_key(row) for row in session.exec(select(ApiKeyRow).order_by(col(ApiKeyRow.created_at)))]


def revoke_api_key(session: Session, prefix: str, now: float) -> None:
    """Refuse an API key from now on."""
    session.execute(
        update(ApiKeyRow)
        .where(col(ApiKeyRow.prefix) == prefix, col(ApiKeyRow.revoked_at).is_(None))
        .values(revoked_at=now)
    )


def last_audit_hash(session: Session) -> str | None:
    """The hash of the newest link, or None for an empty chain."""
    return session.exec(select(AuditRow.hash).order_by(col(AuditRow.id).desc()).limit(1)).first()


def add_audit(session: Session, entry: AuditEntry) -> None:
    """Append one link; its id is given by the database."""
    session.add(
        AuditRow(
            at=entry.at,
            who=entry.who,
            action=entry.action,
            subject=entry.subject,
            detail=entry.detail,
            previous=entry.previous,
            hash=entry.hash,
        )
    )
    # The next link of the same transaction must see this one.
    session.flush()


def list_audit(
    session: Session, *, before: int | None = None, limit: int, action: str | None = None, subject: str | None = None
) -> list[AuditEntry]:
    """Links, newest first, older than a cursor."""
    query = select(AuditRow)
    if before is not None:
        query = query.where(col(AuditRow.id) < before)
    if action is not None:
        query = query.where(AuditRow.action == action)
    if subject is not None:
        query = query.where(AuditRow.subject == subject)
    return [_audit(row) for row in session.exec(query.order_by(col(AuditRow.id).desc()).limit(limit))]


def whole_audit(session: Session) -> list[AuditEntry]:
    """The whole chain, oldest first."""
    return [_audit(row) for row in session.exec(select(AuditRow).order_by(col(AuditRow.id)))]


def _serial(serial: int) -> str:
    # X.509 serials have up to 160 bits, more than a database integer.
    return f"{serial:x}"


def _certificate(row: CertificateRow) -> DeviceCertificate:
    return DeviceCertificate(
        serial=int(row.serial, 16),
        device=DeviceId(row.device),
        key_sha256=row.key_sha256,
        not_before=row.not_before,
        not_after=row.not_after,
        first_used_at=row.first_used_at,
        superseded_at=row.superseded_at,
        revoked_at=row.revoked_at,
    )


def _claim(row: ClaimRow) -> Claim:
    return Claim(
        id=row.id,
        device=None if row.device is None else DeviceId(row.device),
        labels=json.loads(row.labels),
        created_at=row.created_at,
        expires_at=row.expires_at,
        used_at=row.used_at,
        used_by=None if row.used_by is None else DeviceId(row.used_by),
        used_key_sha256=row.used_key_sha256,
    )


def _api_key(row: ApiKeyRow) -> ApiKey:
    return ApiKey(row.prefix, row.name, Role(row.role), row.created_at, row.revoked_at)


def _audit(row: AuditRow) -> AuditEntry:
    return AuditEntry(
        id=row.id or 0,
        at=row.at,
        who=row.who,
        action=row.action,
        subject=row.subject,
        detail=row.detail,
        previous=row.previous,
        hash=row.hash,
    )
