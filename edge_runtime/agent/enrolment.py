"""How a device joins a fleet, once, and how it renews its certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from edge_runtime.agent.identity import Identity, IdentityFolder
from edge_runtime.contract.codec import decode
from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.device_state import Enrolment, EnrolmentRequest, IdentityGrant, RenewalRequest
from edge_runtime.contract.errors import ContractError, TrustError
from edge_runtime.contract.ids import DeviceId, parse_device_id

ENROLMENT_MAX_BYTES: Final = 1024 * 1024


class EnrolmentDesk(Protocol):
    """The server, as far as identities go."""

    def enrol(self, enrolment: Enrolment, request: EnrolmentRequest) -> IdentityGrant:
        """Trade a claim and a signing request for a certificate. Raises: TransportError, TrustError when refused."""

    def renew(self, identity: Identity, request: RenewalRequest) -> IdentityGrant:
        """Trade a signing request for the next certificate. Raises: TransportError, TrustError when refused."""


def read_enrolment(path: Path) -> Enrolment:
    """Read the file that an operator made for this device. Raises: ContractError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ContractError(
            f"read enrolment {path}", error.strerror or str(error), "make one with edge-fleet devices claim"
        ) from error
    try:
        return decode(content, Enrolment, max_bytes=ENROLMENT_MAX_BYTES)
    except ContractError as error:
        because = f"it is no enrolment document ({error})"
        raise ContractError(f"use {path}", because, "make one with edge-fleet devices claim -o") from error


def join(
    folder: IdentityFolder,
    desk: EnrolmentDesk,
    enrolment: Enrolment,
    *,
    device: DeviceId,
    labels: dict[str, str],
    facts: DeviceFacts | None,
) -> Identity:
    """Enrol this device; safe to repeat after a crash, because the same key presents the same claim.

    Raises:
        TransportError: the server cannot be reached now; nothing is stored but the device's key.
        TrustError: the claim is refused, or the answer is not for this device's key.
    """
    if enrolment.device is not None and enrolment.device != device:
        raise TrustError(
            f"enrol device {device}", f"the enrolment is for {enrolment.device}", "use the file made for this device"
        )
    request = EnrolmentRequest(
        claim=enrolment.claim,
        device=parse_device_id(device),
        csr_pem=folder.signing_request(device),
        labels={**enrolment.labels, **labels},
        facts=facts,
    )
    grant = _for_us(desk.enrol(enrolment, request), device, folder)
    folder.keep(enrolment, grant)
    return Identity(device, folder.folder, enrolment, grant)


def renew(folder: IdentityFolder, desk: EnrolmentDesk, identity: Identity) -> Identity:
    """Replace the certificate by a younger one over the same key. Raises: as `join`; the old one stays in use."""
    request = RenewalRequest(csr_pem=folder.signing_request(identity.device))
    grant = _for_us(desk.renew(identity, request), identity.device, folder)
    folder.keep(identity.enrolment, grant)
    return Identity(identity.device, folder.folder, identity.enrolment, grant)


def _for_us(grant: IdentityGrant, device: DeviceId, folder: IdentityFolder) -> IdentityGrant:
    """A certificate over another key would lock this device out of its own identity."""
    if grant.device != device or not folder.holds_key_of(grant.certificate_pem):
        raise TrustError(f"enrol device {device}", "the server certified another device or key", "ask the operator")
    return grant
