"""What the update machine needs from the agent; every call blocks and runs in the agent's worker thread.

Each port raises an EdgeError: TransportError means "the peer cannot be had now" and makes the device wait; every
other family ends the attempt with the error's code as its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_runtime.contract.device_state import Assignment
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import TransportError
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.ids import ModelName
from edge_runtime.contract.layout import Descriptor
from edge_runtime.update.states import Activation

if TYPE_CHECKING:
    # The planner is pure and also plays in rehearsals: it must not pull in the signing libraries.
    from edge_runtime.trust.verifier import VerifiedRelease


class Interrupted(TransportError):
    """Something more important came up in the middle of a step, which counts as not begun."""

    default_code = "interrupted"


class ReleaseSource(Protocol):
    """Decides whether an assignment may be installed: refreshes TUF, then asks `trust.verifier.verify_release`."""

    def authorise(self, assignment: Assignment) -> VerifiedRelease:
        """The release an assignment names, verified against TUF.

        An adapter that had to fetch the release index for this puts it into the store (`ContentStore.put`), so that
        it is not fetched twice.

        Raises:
            TransportError: metadata cannot be had now; the device waits.
            TrustError: metadata or index cannot be accepted; code `expired` or `untrusted` becomes the reason.
            ContractError: the release index breaks the contract.
        """


class BlobFetcher(Protocol):
    """Brings one blob into a stage file; the store checks the digest before the blob counts."""

    def fetch(
        self, model: ModelName, descriptor: Descriptor, stage: Path, *, interrupted: Callable[[], bool]
    ) -> None:
        """Complete `stage` to exactly `descriptor.size` bytes, continuing what is already there.

        `descriptor.mediaType` tells manifests and indexes (OCI `manifests/`) from other blobs (`blobs/`). Returns
        early when `interrupted()` becomes true; what arrived stays in `stage`.

        Raises:
            TransportError: the peer cannot be had now (no route, time-out, 429, 5xx); what arrived stays in `stage`.
            UpdateError: code `blob_missing` when the peer does not have it, `disk_full` when the disk is full.
            DigestMismatch: the peer sent more bytes than promised.
        """


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """Try one candidate beside what runs; both can be opened from the content store."""

    candidate: Activation
    running: Activation | None


@dataclass(frozen=True, slots=True)
class TrialFailure:
    """The candidate could not even be asked."""

    code: str
    """A reason code: `load_failed`, `memory`, `crash_loop` (its process died), `unsupported_feature`, …"""
    detail: str


@dataclass(frozen=True, slots=True)
class TrialMeasurement:
    """What a trial measured, as plain numbers; judged by `update.trial.judge`, never by the bench."""

    checks: tuple[CheckResult, ...] = ()
    """One result per check of the release's golden set, in its order; empty when the release has none."""
    p50_ms: float | None = None
    p95_ms: float | None = None
    running_p50_ms: float | None = None
    """Median of the running model, its calls interleaved with the candidate's; None when nothing runs."""
    peak_bytes: int | None = None
    """Peak resident memory of the trial's process."""
    engine: str = ""
    """Name and version of the engine that ran it, for the evidence."""
    failure: TrialFailure | None = None


class TrialBench(Protocol):
    """Loads one candidate in a child process, asks it the golden set and measures its latency."""

    def trial(self, request: TrialRequest) -> TrialMeasurement:
        """Measure one candidate; a candidate that cannot be loaded is a measurement with `failure`, not an error.

        Must end by itself (time limit inside) and leave no process behind.

        Raises:
            Interrupted: the agent ends; says nothing about the candidate.
            EdgeError: the bench itself cannot work; ends the attempt with the error's code.
        """


@dataclass(frozen=True, slots=True)
class Health:
    """How the live model does since it was activated in this process."""

    loaded: Digest | None
    """Variant digest of what is really loaded and answering; None when nothing is."""
    requests: int = 0
    """Requests that the build answered or failed, without those that another build answered in its place."""
    errors: int = 0
    """Requests that failed through the model's or engine's fault, even if another build of the release answered them
    then; refused or malformed requests do not count."""
    restarts: int = 0
    """How often the model's own process had to be restarted; 0 where it lives in the agent's."""
    detail: str = ""
    stand_in: Activation | None = None
    """What really answers, where another build of the release does so because the one that was activated failed."""


class LiveSlot(Protocol):
    """The slot that answers requests."""

    def activate(self, activation: Activation) -> None:
        """Load beside, warm up, swap between requests, drain the old model.

        Safe to repeat: activating what is already loaded only takes over `seq` and `parameters`. On an error what
        answered before still answers.

        Raises:
            InferenceError: the model cannot be opened; its code becomes the reason when it is one, else `load_failed`.
        """

    def deactivate(self) -> None:
        """Stop answering; safe to repeat."""

    def health(self) -> Health:
        """Counters since the last `activate` that changed what is loaded; never blocks, never raises."""
