"""A throwaway certificate authority: real X.509 on P-256, valid for a day, written as PEM files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_SKEW = timedelta(hours=1)
_VALID = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key on disk."""

    cert_file: Path
    key_file: Path
    serial: int


@dataclass(frozen=True, slots=True)
class ThrowawayCa:
    """Issues certificates into `directory`; its own is `ca_file`."""

    directory: Path
    ca_file: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    def issue(self, common_name: str, *, file_name: str | None = None) -> Issued:
        """A certificate for this name, good as client and, on loopback, as server."""
        key = ec.generate_private_key(ec.SECP256R1())
        loopback = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = (
            _builder(common_name, self.certificate.subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName(loopback), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        certificate = builder.sign(self.key, hashes.SHA256())
        stem = file_name or common_name
        cert_file, key_file = self.directory / f"{stem}.crt", self.directory / f"{stem}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(_pem(key))
        return Issued(cert_file, key_file, certificate.serial_number)

    def write_crl(self, path: Path, serials: Iterable[int] = ()) -> None:
        """Write the list of revoked certificates, empty or not."""
        now = datetime.now(timezone.utc)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(now - _SKEW).next_update(now + _VALID)
        for serial in serials:
            revoked = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - _SKEW).build()
            builder = builder.add_revoked_certificate(revoked)
        crl = builder.sign(self.key, hashes.SHA256())
        path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))


def make_ca(directory: Path, common_name: str = "throwaway fleet CA") -> ThrowawayCa:
    """A new authority whose files lie in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = _builder(common_name, name, key.public_key())
    certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True).sign(
        key, hashes.SHA256()
    )
    ca_file = directory / "ca.crt"
    ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return ThrowawayCa(directory, ca_file, certificate, key)


def _builder(common_name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _VALID)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
