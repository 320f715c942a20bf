"""Joining a fleet, with a desk instead of a server: nothing counts before it is whole."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from edge_runtime.agent.enrolment import join, read_enrolment, renew
from edge_runtime.agent.identity import Identity, IdentityFolder, check_validity, pinned_context
from edge_runtime.contract.codec import encode
from edge_runtime.contract.device_state import Enrolment, EnrolmentRequest, IdentityGrant, RenewalRequest
from edge_runtime.contract.errors import ContractError, TransportError, TrustError
from edge_runtime.contract.ids import DeviceId

DEVICE = DeviceId("cam-1")
NOW = datetime(2026, 11, 20, tzinfo=timezone.utc)
DAYS = 30


def certify(key: ec.EllipticCurvePublicKey, start: datetime = NOW) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DEVICE)])
    signer = ec.generate_private_key(ec.SECP256R1())
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=DAYS))
        .sign(signer, hashes.SHA256())
    )
    return built.public_bytes(Encoding.PEM).decode()


AUTHORITY = certify(ec.generate_private_key(ec.SECP256R1()).public_key())
AUTHORITY_DER = x509.load_pem_x509_certificate(AUTHORITY.encode()).public_bytes(Encoding.DER)


def enrolment(device: DeviceId | None = None, pin: str = hashlib.sha256(AUTHORITY_DER).hexdigest()) -> Enrolment:
    return Enrolment(
        server_url="https://127.0.0.1:1", ca_pem=AUTHORITY, ca_sha256=pin, tuf_root="{}", claim="once", device=device
    )


@dataclass
class Desk:
    """Certifies whatever key is asked for, or another one, or is away."""

    start: datetime = NOW
    foreign_key: bool = False
    is_away: bool = False
    asked: list[EnrolmentRequest | RenewalRequest] = field(default_factory=list)

    def enrol(self, enrolment: Enrolment, request: EnrolmentRequest) -> IdentityGrant:
        return self._answer(request)

    def renew(self, identity: Identity, request: RenewalRequest) -> IdentityGrant:
        return self._answer(request)

    def _answer(self, request: EnrolmentRequest | RenewalRequest) -> IdentityGrant:
        self.asked.append(request)
        if self.is_away:
            raise TransportError("enrol", "nobody is there")
        key = x509.load_pem_x509_csr(request.csr_pem.encode()).public_key()
        if self.foreign_key:
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return IdentityGrant(device=DEVICE, certificate_pem=certify(key, self.start), mqtt=None, time=0.0)


def joined(folder: Path, desk: Desk) -> Identity:
    return join(IdentityFolder(folder), desk, enrolment(), device=DEVICE, labels={}, facts=None)


def test_an_identity_is_whole_after_joining_and_the_claim_is_gone(tmp_path: Path) -> None:
    joined(tmp_path / "id", Desk())

    loaded = IdentityFolder(tmp_path / "id").load(DEVICE)

    assert loaded is not None
    assert loaded.enrolment.claim == ""
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "id").iterdir()} == {0o600}
    assert loaded.tls_context().check_hostname


@pytest.mark.parametrize("desk", [Desk(foreign_key=True), Desk(is_away=True)])
def test_a_refused_or_missing_answer_leaves_nothing_but_the_key(tmp_path: Path, desk: Desk) -> None:
    with pytest.raises((TrustError, TransportError)):
        joined(tmp_path / "id", desk)

    assert [path.name for path in (tmp_path / "id").iterdir()] == ["device.key"]
    assert IdentityFolder(tmp_path / "id").load(DEVICE) is None


@pytest.mark.parametrize("lost", ["grant.json", "enrolment.json"])
def test_a_device_killed_between_claim_and_certificate_asks_again_with_the_same_key(tmp_path: Path, lost: str) -> None:
    desk = Desk()
    joined(tmp_path / "id", desk)
    (tmp_path / "id" / lost).unlink()

    assert IdentityFolder(tmp_path / "id").load(DEVICE) is None
    joined(tmp_path / "id", desk)

    keys = {x509.load_pem_x509_csr(one.csr_pem.encode()).public_key().public_numbers() for one in desk.asked}
    assert len(keys) == 1


def test_a_certificate_file_that_is_older_than_the_grant_is_brought_up_to_date(tmp_path: Path) -> None:
    identity = joined(tmp_path / "id", Desk())
    (tmp_path / "id" / "device.crt").write_text("torn")

    IdentityFolder(tmp_path / "id").load(DEVICE)

    assert (tmp_path / "id" / "device.crt").read_text() == identity.grant.certificate_pem


def test_a_certificate_is_renewed_after_two_thirds_of_its_life_over_the_same_key(tmp_path: Path) -> None:
    identity = joined(tmp_path / "id", Desk())
    third_s = DAYS * 86400 / 3
    start_s = NOW.timestamp()

    assert not identity.needs_renewal(start_s + 2 * third_s - 60)
    assert identity.needs_renewal(start_s + 2 * third_s + 60)

    renewed = renew(IdentityFolder(tmp_path / "id"), Desk(start=NOW + timedelta(days=20)), identity)

    assert not renewed.needs_renewal(start_s + 2 * third_s + 60)
    assert renewed.certificate.public_key() == identity.certificate.public_key()
    loaded = IdentityFolder(tmp_path / "id").load(DEVICE)
    assert loaded is not None
    assert loaded.grant == renewed.grant


def test_a_renewal_over_another_key_is_refused_and_the_old_identity_stays(tmp_path: Path) -> None:
    identity = joined(tmp_path / "id", Desk())

    with pytest.raises(TrustError, match="another device or key"):
        renew(IdentityFolder(tmp_path / "id"), Desk(foreign_key=True), identity)

    loaded = IdentityFolder(tmp_path / "id").load(DEVICE)
    assert loaded is not None
    assert loaded.grant == identity.grant


def test_only_the_pinned_authority_is_trusted() -> None:
    assert pinned_context(enrolment()).cert_store_stats()["x509"] == 1

    with pytest.raises(TrustError, match="not the pinned one"):
        pinned_context(enrolment(pin="0" * 64))


def test_an_enrolment_for_another_device_is_refused_before_anyone_is_asked(tmp_path: Path) -> None:
    desk = Desk()

    with pytest.raises(TrustError, match="the enrolment is for other"):
        join(
            IdentityFolder(tmp_path), desk, enrolment(DeviceId("other")), device=DEVICE, labels={}, facts=None
        )  # fmt: skip

    assert desk.asked == []


def test_a_peer_is_judged_by_trusted_time() -> None:
    der = AUTHORITY_DER

    check_validity(der, NOW.timestamp())
    check_validity(der, 0.0)
    with pytest.raises(TrustError, match="expired"):
        check_validity(der, NOW.timestamp() + (DAYS + 1) * 86400)


def test_an_enrolment_file_is_read_with_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "enrolment.json"
    path.write_bytes(encode(enrolment()))
    assert read_enrolment(path) == enrolment()

    path.write_bytes(b" " * (1 << 20) + encode(enrolment()))
    with pytest.raises(ContractError, match="exceed"):
        read_enrolment(path)
