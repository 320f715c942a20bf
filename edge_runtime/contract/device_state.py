"""What server and device tell each other about desired and reported state."""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

from edge_runtime.contract.codec import SCHEMA, Document
from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.evidence import Evidence
from edge_runtime.contract.ids import DeviceId, SlotId, TargetPath, VariantId

ASSIGNMENT_PAYLOAD_TYPE: Final = "application/vnd.edgefleet.assignment.v1+json"
SIGNED_TIME_PAYLOAD_TYPE: Final = "application/vnd.edgefleet.time.v1+json"


class SlotState(str, Enum):
    """Where one slot of a device stands; open on the wire, so an older server shows newer states verbatim."""

    IDLE = "idle"
    OFFERED = "offered"
    ADMITTED = "admitted"
    FETCHING = "fetching"
    VERIFIED = "verified"
    BUILT = "built"
    TRIALLED = "trialled"
    SHADOWING = "shadowing"
    ACTIVATED = "activated"
    SOAKING = "soaking"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"


class Enrolment(Document, frozen=True, kw_only=True):
    """Everything a new device needs to join a fleet; holds a one-time secret, never a private key."""

    schema: str = SCHEMA
    server_url: str
    """`https://host:port` of the devices' listener."""
    ca_pem: str
    """The fleet's certificate authority; TLS is checked against it alone."""
    ca_sha256: str
    """Pin: hex SHA-256 of the CA certificate's DER form."""
    tuf_root: str
    """The trusted TUF root metadata, as text."""
    claim: str
    """One-time secret; worthless once used."""
    device: DeviceId | None = None
    """Set when the claim is bound to one device id."""
    labels: dict[str, str] = {}


class EnrolmentRequest(Document, frozen=True, kw_only=True):
    """A device asks for its first certificate: claim and certificate signing request (PEM)."""

    schema: str = SCHEMA
    claim: str
    device: DeviceId
    csr_pem: str
    labels: dict[str, str] = {}
    facts: DeviceFacts | None = None


class RenewalRequest(Document, frozen=True, kw_only=True):
    """A known device asks for its next certificate over mTLS."""

    schema: str = SCHEMA
    csr_pem: str


class MqttEndpoint(Document, frozen=True, kw_only=True):
    """Where the device finds the broker."""

    host: str
    port: int


class IdentityGrant(Document, frozen=True, kw_only=True):
    """The answer to an enrolment or renewal."""

    schema: str = SCHEMA
    device: DeviceId
    certificate_pem: str
    mqtt: MqttEndpoint | None
    time: float
    """Server time, seconds since 1970; a first estimate until signed time arrives."""


class Candidate(Document, frozen=True, kw_only=True):
    """A variant the device may try."""

    id: VariantId
    digest: Digest


class Policy(Document, frozen=True, kw_only=True):
    """How carefully the device moves to the new release."""

    soak_s: float = 60.0
    """Time the device watches the activated model before it confirms."""
    deadline_s: float = 3600.0
    """From `issued`: not confirmed by then means failed or rolled back."""
    max_latency_ratio: float | None = None
    """Upper bound of the candidate's latency over the running model's, measured interleaved."""


class Assignment(Document, frozen=True, kw_only=True):
    """What one slot of one device must run; signed by the director, never trusted alone."""

    schema: str = SCHEMA
    device: DeviceId
    slot: SlotId
    kind: Literal["model", "runtime", "none"]
    seq: int
    """Strictly increasing per (device, slot): the only anti-rollback counter."""
    issued: float
    expires: float
    target: TargetPath | None = None
    """None only for kind `none`."""
    release: Digest | None = None
    length: int | None = None
    """Bytes of the release index blob."""
    candidates: list[Candidate] = []
    max_trials: int = 1
    parameters: dict[str, str | int | float | bool | list[float]] = {}
    policy: Policy = Policy()
    rollout: str | None = None


class SignedTime(Document, frozen=True, kw_only=True):
    """The director's clock, bound to the nonce the device chose."""

    schema: str = SCHEMA
    device: DeviceId
    nonce: str
    time: float


class DirectorAnswer(Document, frozen=True, kw_only=True):
    """Answer to a device that asks what to run; both kinds of envelope are DSSE, as text."""

    schema: str = SCHEMA
    time: str
    assignments: list[str]


class Running(Document, frozen=True, kw_only=True):
    """What a slot is answering with right now."""

    seq: int
    release: Digest
    variant: VariantId
    variant_digest: Digest
    target: TargetPath | None = None


class Reason(Document, frozen=True, kw_only=True):
    """Why a slot failed, rolled back or waits."""

    code: str
    detail: str
    retryable: bool


class TrialReport(Document, frozen=True, kw_only=True):
    """What happened to one candidate on this device."""

    variant: VariantId
    digest: Digest
    verdict: str
    """`passed`, `chosen`, `skipped`, or `refused:<reason code>`."""
    evidence: Evidence | None = None
    detail: str | None = None


class Reported(Document, frozen=True, kw_only=True):
    """Where one slot of a device stands; the newest `revision` wins, whatever order messages arrive in."""

    schema: str = SCHEMA
    device: DeviceId
    slot: SlotId
    revision: int
    """Grows with every report of this slot; survives restarts."""
    seq: int
    """Highest assignment sequence accepted for this slot."""
    state: str
    at: float
    target: TargetPath | None = None
    release: Digest | None = None
    variant: VariantId | None = None
    running: Running | None = None
    reason: Reason | None = None
    waiting_for: str | None = None
    trials: list[TrialReport] = []
    rollout: str | None = None


class SlotSummary(Document, frozen=True, kw_only=True):
    """A slot in a birth message."""

    seq: int
    state: str
    revision: int
    running: Running | None = None


class Status(Document, frozen=True, kw_only=True):
    """Connection state of a device; `lost` is its last will."""

    schema: str = SCHEMA
    device: DeviceId
    state: Literal["init", "ready", "sleeping", "disconnected", "lost"]
    session: str
    at: float | None = None


class Birth(Document, frozen=True, kw_only=True):
    """First message of every session: who I am, what I am, what my slots know."""

    schema: str = SCHEMA
    device: DeviceId
    session: str
    agent: str
    """Version of the agent."""
    facts: DeviceFacts
    slots: dict[SlotId, SlotSummary]
    capabilities: list[str] = []
    labels: dict[str, str] = {}


class Doorbell(Document, frozen=True, kw_only=True):
    """Something is desired of this device: carries no authority, only a hint to ask over HTTPS."""

    schema: str = SCHEMA
    slot: SlotId
    seq: int


class Command(Document, frozen=True, kw_only=True):
    """An order with an end: restart, logs, snapshot, golden, tune, log level, cancel."""

    schema: str = SCHEMA
    id: str
    name: str
    expires: float
    arguments: dict[str, str | int | float | bool] = {}


class CommandResult(Document, frozen=True, kw_only=True):
    """What became of a command."""

    schema: str = SCHEMA
    id: str
    ok: bool
    at: float
    detail: str = ""


class Event(Document, frozen=True, kw_only=True):
    """Something a person may want to know happened on the device."""

    schema: str = SCHEMA
    name: str
    """`noun.verb_past`."""
    at: float
    slot: SlotId | None = None
    severity: str = "info"
    detail: dict[str, str | int | float | bool | None] = {}
