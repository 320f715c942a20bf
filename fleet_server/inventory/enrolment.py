"""How a device joins the fleet: claim, signing request, certificate; later renewals, and the way out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge_runtime.contract.device_state import (
    Enrolment,
    EnrolmentRequest,
    IdentityGrant,
    MqttEndpoint,
    RenewalRequest,
)
from edge_runtime.contract.ids import DeviceId, parse_device_id
from fleet_server.db import Database, on_commit
from fleet_server.errors import Forbidden, Unauthenticated
from fleet_server.identity import audit, claims
from fleet_server.identity.ca import CertificateAuthority, read_signing_request
from fleet_server.identity.certificates import DeviceCertificates, Revocations
from fleet_server.identity.claims import Applicant
from fleet_server.inventory.model import check_labels
from fleet_server.inventory.service import Inventory


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where devices find this fleet."""

    server_url: str
    mqtt: MqttEndpoint


class Reception:
    """Lets devices in and out; each use case is one transaction."""

    def __init__(
        self,
        database: Database,
        inventory: Inventory,
        certificates: DeviceCertificates,
        *,
        revocations: Revocations,
        authority: CertificateAuthority,
        endpoints: Endpoints,
        tuf_root: Callable[[], bytes],
    ) -> None:
        self._database = database
        self._inventory = inventory
        self._certificates = certificates
        self._revocations = revocations
        self._authority = authority
        self._endpoints = endpoints
        self._tuf_root = tuf_root

    def invite(
        self, *, device: DeviceId | None, labels: Mapping[str, str], ttl_s: float, by: str, now: float
    ) -> Enrolment:
        """Everything a new device needs, with a one-time claim. Raises: InvalidRequest, ContractError."""
        bound = None if device is None else parse_device_id(device)
        checked = check_labels(labels)
        with self._database.session() as session:
            claim, secret = claims.create(session, device=bound, labels=checked, ttl_s=ttl_s, now=now)
            detail = {"device": bound, "labels": checked, "expires_at": claim.expires_at}
            audit.record(session, by, "claim.created", claim.id, now=now, detail=detail)
        return Enrolment(
            server_url=self._endpoints.server_url,
            ca_pem=self._authority.pem,
            ca_sha256=self._authority.pin,
            tuf_root=self._tuf_root().decode(),
            claim=secret,
            device=bound,
            labels=checked,
        )

    def enrol(self, request: EnrolmentRequest, now: float) -> IdentityGrant:
        """Use a claim up and certify the device's own key. Raises: Forbidden, InvalidRequest, Conflict."""
        device = parse_device_id(request.device)
        signing = read_signing_request(request.csr_pem, device)
        with self._database.session() as session:
            claim = claims.take(session, request.claim, Applicant(device, signing.key_sha256), now)
            known = self._inventory.find(session, device)
            if known is not None and claim.used_at is not None and known.standing != "active":
                raise Forbidden(f"enrol device {device}", f"it is {known.standing}", "ask for a new claim")
            if known is not None and claim.device is None and claim.used_at is None:
                # Otherwise whoever holds any claim could become any device.
                raise Forbidden(
                    f"enrol device {device}",
                    "a device of this name exists and the claim is not bound to it",
                    f"choose another id, or ask for a claim made with --device {device}",
                    code="claim_not_bound",
                )
            if claim.used_at is None:
                # A known device with a new key is a replacement: what the old unit holds counts no longer.
                self._certificates.revoke(session, device, now)
                labels = {**request.labels, **claim.labels}
                self._inventory.register(session, device, labels=labels, facts=request.facts, now=now)
                audit.record(session, f"claim:{claim.id}", "device.enrolled", device, now=now)
                on_commit(session, lambda: self._revocations.apply(now))
            pem = self._certificates.issue(session, device, signing, now)
        return self._grant(device, pem, now)

    def renew(self, device: DeviceId, request: RenewalRequest, now: float) -> IdentityGrant:
        """The next certificate of a device that proved to hold the present one.

        Raises:
            InvalidRequest: the signing request is unusable. Unauthenticated: the device has left the fleet.
        """
        signing = read_signing_request(request.csr_pem, device)
        with self._database.session() as session:
            if self._inventory.device(session, device).standing != "active":
                raise Unauthenticated(f"renew the certificate of {device}", "it is not part of this fleet any more")
            pem = self._certificates.issue(session, device, signing, now)
        return self._grant(device, pem, now)

    def revoke(self, device: DeviceId, *, by: str, now: float, decommission: bool) -> None:
        """End a device's membership at once, its live sessions included. Raises: NotFound."""
        with self._database.session() as session:
            if decommission:
                self._inventory.decommission(session, device, now)
            else:
                self._inventory.revoke(session, device, now)
            self._certificates.revoke(session, device, now)
            audit.record(session, by, f"device.{'decommissioned' if decommission else 'revoked'}", device, now=now)
            on_commit(session, lambda: self._revocations.apply(now))

    def _grant(self, device: DeviceId, pem: str, now: float) -> IdentityGrant:
        return IdentityGrant(device=device, certificate_pem=pem, mqtt=self._endpoints.mqtt, time=now)
