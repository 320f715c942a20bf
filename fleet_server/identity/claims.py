"""Claims: one-time secrets that let a new device in; only their hashes are stored."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edge_runtime.contract.ids import DeviceId
from fleet_server.db import Session
from fleet_server.errors import Forbidden, InvalidRequest
from fleet_server.identity import store
from fleet_server.identity.model import Claim

MAX_TTL_S: Final = 90 * 86_400.0
_RENEW: Final = "ask the operator for a new one (edge-fleet devices claim)"


@dataclass(frozen=True, slots=True)
class Applicant:
    """A device that presents a claim, and the key it made."""

    device: DeviceId
    key_sha256: str


def create(
    session: Session, *, device: DeviceId | None, labels: Mapping[str, str], ttl_s: float, now: float
) -> tuple[Claim, str]:
    """Make a claim; the secret is shown once. Raises: InvalidRequest."""
    if not 0 < ttl_s <= MAX_TTL_S:
        raise InvalidRequest("create a claim", f"a life of {ttl_s:.0f} s is impossible", "use up to 90 days")
    secret = secrets.token_urlsafe(32)
    claim = Claim(id=secrets.token_hex(6), device=device, labels=dict(labels), created_at=now, expires_at=now + ttl_s)
    store.add_claim(session, claim, _sha256(secret))
    return claim, secret


def take(session: Session, secret: str, applicant: Applicant, now: float) -> Claim:
    """Use a claim up, once; the device that used it may repeat its request with the same key, if the answer got lost.

    Raises:
        Forbidden: unknown, used by another key, expired, or meant for another device.
    """
    what = f"enrol device {applicant.device}"
    hashed = _sha256(secret)
    claim = store.find_claim(session, hashed)
    if claim is None:
        raise Forbidden(what, "this server does not know the claim", _RENEW, code="claim_unknown")
    if claim.device is not None and claim.device != applicant.device:
        raise Forbidden(what, "the claim is for another device", _RENEW, code="claim_other_device")
    repeated = claim.used_by == applicant.device and claim.used_key_sha256 == applicant.key_sha256
    if claim.used_at is not None and not repeated:
        raise Forbidden(what, "the claim was used already", _RENEW, code="claim_used")
    if now > claim.expires_at:
        raise Forbidden(what, "the claim has expired", _RENEW, code="claim_expired")
    if not repeated and not store.take_claim(session, hashed, applicant.device, applicant.key_sha256, now):
        raise Forbidden(what, "the claim was used already", _RENEW, code="claim_used")
    return claim


def list_all(session: Session) -> list[Claim]:
    """Every claim, newest first, without secrets."""
    return store.list_claims(session)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
