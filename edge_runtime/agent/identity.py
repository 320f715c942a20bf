"""The device's identity: a key that never leaves it, the certificate over it, and TLS contexts made from both."""

from __future__ import annotations

import hashlib
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from edge_runtime.contract.codec import decode, encode
from edge_runtime.contract.device_state import Enrolment, IdentityGrant
from edge_runtime.contract.errors import TrustError
from edge_runtime.contract.ids import DeviceId

# openssl/x509_vfy.h: X509_V_FLAG_NO_CHECK_TIME. A device whose clock stands at 1970 must still be able to ask for
# the time; who the peer is stays checked, and validity is checked against trusted time (`check_validity`).
_NO_CHECK_TIME: Final = 0x200000
_RENEW_AFTER: Final = 2 / 3


@dataclass(frozen=True, slots=True)
class Identity:
    """An enrolled device."""

    device: DeviceId
    folder: Path
    enrolment: Enrolment
    grant: IdentityGrant

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate over this device's key."""
        return x509.load_pem_x509_certificate(self.grant.certificate_pem.encode())

    def needs_renewal(self, now: float) -> bool:
        """Two thirds of the certificate's life are over."""
        certificate = self.certificate
        start = certificate.not_valid_before_utc.timestamp()
        end = certificate.not_valid_after_utc.timestamp()
        return now > start + (end - start) * _RENEW_AFTER

    def tls_context(self) -> ssl.SSLContext:
        """TLS that trusts only the fleet's authority and shows this device's certificate."""
        context = pinned_context(self.enrolment)
        context.load_cert_chain(self.folder / "device.crt", self.folder / "device.key")
        return context


class IdentityFolder:
    """Where key, certificate and enrolment are kept; every file is complete or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, device: DeviceId) -> Identity | None:
        """The identity that an earlier start obtained; None before enrolment.

        Raises:
            TrustError: the folder belongs to another device, or is damaged.
        """
        try:
            enrolment = decode((self.folder / "enrolment.json").read_bytes(), Enrolment)
            grant = decode((self.folder / "grant.json").read_bytes(), IdentityGrant)
        except FileNotFoundError:
            return None
        if grant.device != device:
            raise TrustError(
                f"start as device {device}",
                f"{self.folder} holds the identity of {grant.device}",
                "use another state_dir for another device",
            )
        # The certificate file is a copy for the TLS library; the grant is what counts after a crash between the two.
        _write_private(self.folder / "device.crt", grant.certificate_pem.encode())
        return Identity(device, self.folder, enrolment, grant)

    def keep(self, enrolment: Enrolment, grant: IdentityGrant) -> None:
        """Store an identity; the grant comes last and makes it count. The claim is worthless now and not kept."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write_private(self.folder / "device.crt", grant.certificate_pem.encode())
        _write_private(self.folder / "enrolment.json", encode(_without_claim(enrolment)))
        _write_private(self.folder / "grant.json", encode(grant))

    def signing_request(self, device: DeviceId) -> str:
        """A certificate signing request (PEM) for this device's key; the key is made at the first call.

        Raises:
            TrustError: the stored key cannot be read.
        """
        key = self._load_or_make_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        return request.public_bytes(Encoding.PEM).decode()

    def holds_key_of(self, certificate_pem: str) -> bool:
        """Whether a certificate is over this device's key."""
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        except ValueError:
            return False
        return certificate.public_key() == self._load_or_make_key().public_key()

    def _load_or_make_key(self) -> ec.EllipticCurvePrivateKey:
        path = self.folder / "device.key"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            made = ec.generate_private_key(ec.SECP256R1())
            _write_private(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise TrustError(f"read {path}", str(error), "remove it and enrol this device anew") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TrustError(f"use {path}", "it is not a P-256 key", "remove it and enrol this device anew")
        return key


def pinned_context(enrolment: Enrolment) -> ssl.SSLContext:
    """TLS that trusts only the authority whose fingerprint the enrolment pins; names are checked, times are not.

    Raises:
        TrustError: the certificate is not the pinned one.
    """
    try:
        authority = x509.load_pem_x509_certificate(enrolment.ca_pem.encode())
    except ValueError as error:
        why = f"its CA certificate cannot be read ({error})"
        raise TrustError("use the enrolment", why, "ask for a new one") from error
    if hashlib.sha256(authority.public_bytes(Encoding.DER)).hexdigest() != enrolment.ca_sha256.lower():
        raise TrustError("use the enrolment", "its CA certificate is not the pinned one", "ask for a new one")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=enrolment.ca_pem)
    context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    return context


def check_validity(certificate_der: bytes, now: float) -> None:
    """Refuse a peer's certificate that trusted time says is not valid now. Raises: TrustError."""
    certificate = x509.load_der_x509_certificate(certificate_der)
    name = certificate.subject.rfc4514_string()
    if now > certificate.not_valid_after_utc.timestamp():
        raise TrustError(f"talk to {name}", "its certificate has expired", "restart the server to renew it")


def _without_claim(enrolment: Enrolment) -> Enrolment:
    return msgspec.structs.replace(enrolment, claim="")


def _write_private(path: Path, content: bytes) -> None:
    """Atomically, flushed, readable by the owner only."""
    staged = path.with_name(f".{path.name}.new")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
    staged.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
