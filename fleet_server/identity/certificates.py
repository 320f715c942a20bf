"""Device certificates: issued, recognised, superseded by use, and revoked everywhere at once."""

from __future__ import annotations

import threading

import structlog
from cryptography import x509
from cryptography.x509.oid import NameOID

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import DeviceId, parse_device_id
from fleet_server.db import Database, Session
from fleet_server.errors import Unauthenticated
from fleet_server.identity import audit, store
from fleet_server.identity.ca import CertificateAuthority, SigningRequest
from fleet_server.identity.model import DeviceCertificate
from fleet_server.messaging.broker import Broker, BrokerError, DeniedCertificate, Denylist

_ENROL: str = "enrol this device again with a new claim (edge-fleet devices claim)"

log = structlog.get_logger("identity")


class DeviceCertificates:
    """Who a device is, by the certificate it proved to hold."""

    def __init__(self, database: Database, authority: CertificateAuthority, days: float) -> None:
        self._database = database
        self._authority = authority
        self._days = days

    def issue(self, session: Session, device: DeviceId, request: SigningRequest, now: float) -> str:
        """Certify a device's key (PEM); it replaces the device's older certificates once it is used."""
        certificate, pem = self._authority.issue(device, request, self._days, now)
        store.add_certificate(session, certificate)
        return pem

    def revoke(self, session: Session, device: DeviceId, now: float) -> None:
        """Refuse every certificate of a device; tell brokers with `Revocations.apply` after the commit."""
        store.revoke_certificates(session, device, now)

    def admit(self, der: bytes, now: float, *, renewing: bool) -> DeviceId:
        """The device behind a certificate whose chain and possession TLS has verified.

        TLS is told to ignore time, so that a device that slept can renew: validity is decided here.

        Raises:
            Unauthenticated: not one of ours, revoked, replaced or expired.
        """
        device, serial = _name_and_serial(der)
        with self._database.reading() as session:
            known = store.find_certificate(session, serial)
        if known is None:
            known = self._recall(device, der, now)
        if known.device != device:
            raise Unauthenticated(f"admit device {device}", "this server did not issue its certificate", _ENROL)
        objection = known.objection(now, renewing=renewing)
        if objection is not None:
            raise Unauthenticated(f"admit device {device}", objection, _ENROL)
        if known.first_used_at is None:
            with self._database.session() as session:
                store.mark_first_used(session, known, now)
        return device

    def _recall(self, device: DeviceId, der: bytes, now: float) -> DeviceCertificate:
        """Remember a certificate of our authority that a database restored from an older copy has forgotten.

        Only what was issued after everything this database knows of the device: an older one was revoked or replaced.
        """
        forgotten = self._authority.recognise(der, device)
        with self._database.session() as session:
            if forgotten is None or store.was_revoked_or_replaced(session, forgotten):
                raise Unauthenticated(f"admit device {device}", "this server did not issue its certificate", _ENROL)
            store.add_certificate(session, forgotten)
            detail = {"serial": f"{forgotten.serial:x}", "issued": forgotten.not_before}
            audit.record(session, audit.SYSTEM, "device.recalled", device, now=now, detail=detail)
        return forgotten


class Revocations:
    """Carries revocations from the database to the broker, whole, as often as one likes."""

    def __init__(self, database: Database, authority: CertificateAuthority, broker: Broker) -> None:
        self._database = database
        self._authority = authority
        self._broker = broker
        self._applying = threading.Lock()

    def apply(self, now: float) -> None:
        """Refuse what is revoked and close its sessions. A broker that is away reads the list when it starts."""
        with self._applying:
            with self._database.reading() as session:
                revoked = store.revoked_certificates(session, now)
                valid = store.devices_with_certificate(session, now)
            self._authority.write_revocation_list(revoked, now)
            denied = Denylist(
                devices=frozenset(entry.device for entry in revoked if entry.device not in valid),
                certificates=frozenset(
                    DeniedCertificate(entry.device, entry.serial) for entry in revoked if entry.device in valid
                ),
            )
            try:
                self._broker.deny(denied)
            except BrokerError as error:
                log.warning("revocation.delayed", reason=str(error))


def _name_and_serial(der: bytes) -> tuple[DeviceId, int]:
    try:
        certificate = x509.load_der_x509_certificate(der)
        (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return parse_device_id(str(name.value)), certificate.serial_number
    except (ValueError, ContractError) as error:
        raise Unauthenticated("admit the device", "its certificate names no device", _ENROL) from error
