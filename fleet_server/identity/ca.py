"""The fleet's certificate authority: makes itself at first start, then certifies servers and devices."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_runtime.contract.ids import DeviceId
from fleet_server.errors import InvalidRequest, StartError
from fleet_server.identity.model import DeviceCertificate
from fleet_server.messaging.files import replace_file
from fleet_server.settings import SERVER_CLIENT_ID

CSR_MAX_CHARS: Final = 16 * 1024
_CA_DAYS: Final = 3650
_SERVER_DAYS: Final = 397
_SERVER_RENEW_DAYS: Final = 60
# Devices with slow clocks must not find their new certificate in the future.
_BACKDATED: Final = timedelta(hours=1)
_CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH
_SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Paths of a certificate and its key."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A device's request: its own key, proved by its own signature; whatever else it asks for is ignored."""

    key: CertificatePublicKeyTypes
    key_sha256: str


class CertificateAuthority:
    """Signs with the one P-256 key of this fleet."""

    def __init__(self, folder: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.folder = folder
        self._key = key
        self.certificate = certificate

    @classmethod
    def open(cls, folder: Path, now: float) -> CertificateAuthority:
        """Load the authority, or make it when the folder is new. Raises: StartError when it cannot be read."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        pair = KeyPair(folder / "ca.crt", folder / "ca.key")
        try:
            key = _load_or_make_key(pair.key)
            if not pair.certificate.exists():
                replace_file(pair.certificate, _pem(_self_signed(key, now)))
            certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise StartError(f"open the certificate authority in {folder}", str(error), "restore the folder") from error
        if certificate.public_key() != key.public_key():
            raise StartError(f"open the certificate authority in {folder}", "ca.crt and ca.key are no pair")
        return cls(folder, key, certificate)

    @property
    def certificate_path(self) -> Path:
        """PEM file of the authority's certificate."""
        return self.folder / "ca.crt"

    @property
    def pem(self) -> str:
        """The authority's certificate as PEM."""
        return _pem(self.certificate).decode()

    @property
    def pin(self) -> str:
        """Hex SHA-256 of the certificate's DER form."""
        return hashlib.sha256(self.certificate.public_bytes(Encoding.DER)).hexdigest()

    def server_pair(self, name: str, hosts: Iterable[str], now: float) -> KeyPair:
        """The server's own certificate for these hosts; made anew when one is missing or its time is short."""
        pair = KeyPair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        wanted = sorted(set(hosts))
        if not _covers(pair, wanted, now):
            builder = self._builder(name, now, _SERVER_DAYS, _load_or_make_key(pair.key).public_key(), _SERVER)
            names = x509.SubjectAlternativeName([_general_name(host) for host in wanted])
            replace_file(pair.certificate, _pem(self._signed(builder.add_extension(names, critical=False))))
        return pair

    def client_pair(self, name: str, now: float) -> KeyPair:
        """The certificate of the server's own MQTT client."""
        pair = KeyPair(self.folder / f"{name}.client.crt", self.folder / f"{name}.client.key")
        if not _covers(pair, [], now):
            builder = self._builder(name, now, _SERVER_DAYS, _load_or_make_key(pair.key).public_key(), _CLIENT)
            replace_file(pair.certificate, _pem(self._signed(builder)))
        return pair

    def issue(
        self, device: DeviceId, request: SigningRequest, days: float, now: float
    ) -> tuple[DeviceCertificate, str]:
        """Certify a device's key; the name is ours to give and never the request's. Returns it with its PEM."""
        certificate = self._signed(self._builder(device, now, days, request.key, _CLIENT))
        issued = DeviceCertificate(
            serial=certificate.serial_number,
            device=device,
            key_sha256=request.key_sha256,
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
        )
        return issued, _pem(certificate).decode()

    def recognise(self, der: bytes, device: DeviceId) -> DeviceCertificate | None:
        """What a device's certificate says, if this authority signed it for that device; None for any other."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            certificate.verify_directly_issued_by(self.certificate)
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
            return None
        if certificate.subject != _name(device) or list(usage) != [_CLIENT] or device == SERVER_CLIENT_ID:
            return None
        return DeviceCertificate(
            serial=certificate.serial_number,
            device=device,
            key_sha256=hashlib.sha256(key).hexdigest(),
            not_before=certificate.not_valid_before_utc.timestamp(),
            not_after=certificate.not_valid_after_utc.timestamp(),
        )

    def write_revocation_list(self, revoked: Iterable[DeviceCertificate], now: float) -> Path:
        """Write `ca.crl` for brokers that refuse single certificates by it."""
        at = _time(now)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        # An expired list would refuse every device; ours is only ever replaced by a newer one.
        builder = builder.last_update(at - _BACKDATED).next_update(at + timedelta(days=_CA_DAYS))
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial)
            builder = builder.add_revoked_certificate(
                entry.revocation_date(_time(certificate.revoked_at or now)).build()
            )
        path = self.folder / "ca.crl"
        replace_file(path, builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return path

    def _builder(
        self, name: str, now: float, days: float, key: CertificatePublicKeyTypes, usage: x509.ObjectIdentifier
    ) -> x509.CertificateBuilder:
        at = _time(now)
        builder = x509.CertificateBuilder(
            issuer_name=self.certificate.subject,
            subject_name=_name(name),
            public_key=key,
            serial_number=x509.random_serial_number(),
            not_valid_before=at - _BACKDATED,
            not_valid_after=min(at + timedelta(days=days), self.certificate.not_valid_after_utc),
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return builder.add_extension(authority, critical=False)

    def _signed(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.sign(self._key, hashes.SHA256())


def read_signing_request(pem: str, device: DeviceId) -> SigningRequest:
    """Check a certificate signing request for one device.

    Raises:
        InvalidRequest: not a request, not signed by its own key, a weak key, or it names another device.
    """
    what = f"certify device {device}"
    remedy = "make a P-256 or Ed25519 key and a request for it"
    if len(pem) > CSR_MAX_CHARS:
        raise InvalidRequest(what, f"the request is longer than {CSR_MAX_CHARS} characters", remedy)
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        genuine = request.is_signature_valid
        key = request.public_key()
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        names = [attribute.value for attribute in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidRequest(what, "its certificate signing request cannot be read", remedy) from error
    if not genuine or not _is_strong(key):
        raise InvalidRequest(what, "the request is not signed by its own strong key", remedy)
    if names not in ([], [device]):
        raise InvalidRequest(what, "the request asks for another name", f"ask for CN={device}, or for no name")
    return SigningRequest(key, hashlib.sha256(spki).hexdigest())


def _is_strong(key: object) -> bool:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return isinstance(key, Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1))
    )


def _covers(pair: KeyPair, hosts: list[str], now: float) -> bool:
    if not (pair.certificate.exists() and pair.key.exists()):
        return False
    try:
        certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
        names: x509.SubjectAlternativeName | None = None
        if hosts:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    long_enough = certificate.not_valid_after_utc > _time(now) + timedelta(days=_SERVER_RENEW_DAYS)
    return long_enough and all(names is not None and _general_name(host) in names for host in hosts)


def _self_signed(key: ec.EllipticCurvePrivateKey, now: float) -> x509.Certificate:
    at = _time(now)
    name = _name("edgefleet certificate authority")
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=at - _BACKDATED,
        not_valid_after=at + timedelta(days=_CA_DAYS),
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return builder.add_extension(identifier, critical=False).sign(key, hashes.SHA256())


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _load_or_make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        replace_file(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} is no elliptic-curve key")
    return key


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _time(now: float) -> datetime:
    return datetime.fromtimestamp(now, tz=timezone.utc)
