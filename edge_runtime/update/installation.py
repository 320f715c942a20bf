"""Carries out what an installation needs before anything changes for the live model: admit, fetch, try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from edge_runtime.contract import reasons
from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.device_state import Assignment, Candidate, TrialReport
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import (
    ContractError,
    DigestMismatch,
    EdgeError,
    InferenceError,
    TransportError,
    TrustError,
)
from edge_runtime.contract.evidence import By, Evidence, Latency, Where
from edge_runtime.contract.ids import DeviceId, ModelName, parse_target_path
from edge_runtime.contract.layout import (
    Descriptor,
    OpenRelease,
    OpenVariant,
    ReleaseIndex,
    VariantEntry,
    open_release,
    open_variant,
)
from edge_runtime.contract.release import limit_for
from edge_runtime.contract.variant_choice import find_misfit
from edge_runtime.update.contents import documents, everything, index_descriptor, read_index
from edge_runtime.update.ports import (
    BlobFetcher,
    Interrupted,
    LiveSlot,
    ReleaseSource,
    TrialBench,
    TrialMeasurement,
    TrialRequest,
)
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore
from edge_runtime.update.trial import Accepted, Bounds, Refused, Verdict, judge

_REASON_BY_FAMILY: Final = (
    (ContractError, reasons.BAD_RELEASE),
    (TrustError, reasons.UNTRUSTED),
    (InferenceError, reasons.LOAD_FAILED),
)


@dataclass(frozen=True, slots=True)
class Ports:
    """What the machine acts through."""

    source: ReleaseSource
    fetcher: BlobFetcher
    bench: TrialBench
    live: LiveSlot


@dataclass(frozen=True, slots=True)
class Board:
    """The device that installs."""

    device: DeviceId
    facts: DeviceFacts
    aliases: tuple[str, ...] = ()
    """Families of its profile, for limits by alias."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Which candidates may be tried here, in order, and why the others may not."""

    queue: tuple[Candidate, ...]
    refused: tuple[TrialReport, ...]


class Installation:
    """The acts of one assignment; each is safe to repeat.

    Args:
        assignment: what to install; of kind `model`.
        store: where the blobs go.
        ports: source, fetcher and bench.
        board: this device.

    Raises:
        ContractError: the assignment does not name a release.
    """

    def __init__(self, assignment: Assignment, store: ContentStore, ports: Ports, board: Board) -> None:
        self._assignment = assignment
        self._store = store
        self._ports = ports
        self._board = board
        self._model, self._release, self._index = _named(assignment)

    def admit(self, interrupted: Callable[[], bool]) -> Admission:
        """Authorise the release, read its documents, and see what fits.

        Raises:
            TransportError: something cannot be had now.
            EdgeError: the release may not or cannot be installed.
        """
        verified = self._ports.source.authorise(self._assignment)
        if verified.digest != self._release:
            raise TrustError(f"install assignment {self._assignment.seq}", "another release was authorised")
        wanted = {candidate.digest for candidate in self._assignment.candidates}
        for blob in documents(self._store, self._index, wanted):
            self._ensure(blob, interrupted)
        index = self._read_index()
        open_release(self._store, index)
        queue: list[Candidate] = []
        refused: list[TrialReport] = []
        for candidate in self._assignment.candidates:
            misfit = self._misfit(index, candidate)
            if misfit is None:
                queue.append(candidate)
            else:
                refused.append(_report(candidate, misfit))
        trials = queue[: max(1, self._assignment.max_trials)]
        self._store.check_reserve(sum(self._missing_bytes(index, candidate) for candidate in trials))
        return Admission(tuple(queue), tuple(refused))

    def fetch_next(self, candidate: Candidate, interrupted: Callable[[], bool]) -> bool:
        """Bring the next missing blob of a candidate; False when none was missing and all of them are sound.

        Raises:
            TransportError: not now; also for damage that fetching again can heal.
            EdgeError: the candidate cannot be had.
        """
        for blob in everything(self._store, self._index, candidate.digest):
            if not self._store.has(blob):
                self._ensure(blob, interrupted)
                return True
        try:
            for blob in everything(self._store, self._index, candidate.digest):
                self._store.verify(blob)
        except DigestMismatch as error:
            raise TransportError(error.cannot, error.because, "it is fetched again", code=error.code) from error
        open_variant(self._store, _entry(self._read_index(), candidate))
        return False

    def trial(self, candidate: Candidate, running: Activation | None, now: float) -> tuple[Verdict, TrialReport]:
        """Measure and judge a candidate beside what runs. Raises: EdgeError when the bench cannot work."""
        index = self._read_index()
        release, variant = open_release(self._store, index), open_variant(self._store, _entry(index, candidate))
        measurement = self._ports.bench.trial(TrialRequest(activation_of(self._assignment, candidate), running))
        verdict = judge(measurement, self._bounds(release, variant))
        return verdict, _report(candidate, verdict, self._evidence(candidate, verdict, measurement, now))

    def _read_index(self) -> ReleaseIndex:
        return read_index(self._store, self._release, self._index.size)

    def _ensure(self, blob: Descriptor, interrupted: Callable[[], bool]) -> None:
        continued = self._store.has_partial(blob.digest)

        def fill(stage: Path) -> None:
            self._ports.fetcher.fetch(self._model, blob, stage, interrupted=interrupted)
            if interrupted():
                raise Interrupted(f"fetch blob {blob.digest}", "something more important came up")

        try:
            self._store.ensure(blob, fill)
        except DigestMismatch as error:
            if not continued:
                raise
            # The half that an earlier run left may be what is wrong: it is gone now, one fresh download decides.
            raise TransportError(error.cannot, error.because, "it is fetched again", code=error.code) from error

    def _misfit(self, index: ReleaseIndex, candidate: Candidate) -> Refused | None:
        if all((entry.id, entry.digest) != (candidate.id, candidate.digest) for entry in index.variants):
            return Refused(reasons.NO_VARIANT, "the release does not have this variant")
        variant = open_variant(self._store, _entry(index, candidate)).manifest
        if (misfit := find_misfit(variant, self._board.facts)) is not None:
            return Refused(misfit.code, misfit.because)
        if variant.build is not None:
            return Refused(reasons.UNSUPPORTED_FEATURE, "this agent cannot build engines")
        return None

    def _missing_bytes(self, index: ReleaseIndex, candidate: Candidate) -> int:
        layers = open_variant(self._store, _entry(index, candidate)).layers.by_title.values()
        shared = open_release(self._store, index).layers.by_title.values()
        blobs = {blob.digest: blob for blob in (*layers, *shared)}
        return sum(blob.size for blob in blobs.values() if not self._store.has(blob))

    def _bounds(self, release: OpenRelease, variant: OpenVariant) -> Bounds:
        manifest = release.manifest
        profile = self._board.facts.profile
        return Bounds(
            checks=len(manifest.golden.checks) if manifest.golden is not None else 0,
            own_is_float=variant.manifest.golden_own is None,
            latency_p95_ms=limit_for(manifest.limits.latency_p95_ms, profile, self._board.aliases),
            max_latency_ratio=self._assignment.policy.max_latency_ratio,
            memory_bytes=self._board.facts.memory_bytes,
        )

    def _evidence(self, candidate: Candidate, verdict: Verdict, measured: TrialMeasurement, now: float) -> Evidence:
        facts = self._board.facts
        latency = None
        if measured.p50_ms is not None and measured.p95_ms is not None:
            latency = Latency(p50=measured.p50_ms, p95=measured.p95_ms)
        return Evidence(
            variant=candidate.digest,
            release=self._release,
            at=datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
            by=By(kind="device", id=self._board.device),
            where=Where(arch=facts.arch, isa=facts.isa, cpu=facts.cpu, execution="native", engine=measured.engine,
                        board=facts.board),
            verdict=_verdict_text(verdict),
            latency_ms=latency,
            checks=list(measured.checks),
            peak_bytes=measured.peak_bytes,
        )  # fmt: skip


def activation_of(assignment: Assignment, candidate: Candidate) -> Activation:
    """What activating a candidate would put into the slot. Raises: ContractError when no release is named."""
    _, release, index = _named(assignment)
    return Activation(
        seq=assignment.seq,
        target=assignment.target,
        release=release,
        release_bytes=index.size,
        variant=candidate.id,
        variant_digest=candidate.digest,
        parameters=assignment.parameters,
    )


def refusal_report(candidate: Candidate, refused: Refused) -> TrialReport:
    """The report of a candidate that was given up without a trial."""
    return _report(candidate, refused)


def reason_code(error: EdgeError) -> str:
    """The reason that an error becomes when it ends an attempt."""
    if error.code in reasons.EXPLANATIONS:
        return error.code
    for family, code in _REASON_BY_FAMILY:
        if isinstance(error, family):
            return code
    return reasons.INTERNAL


def _named(assignment: Assignment) -> tuple[ModelName, Digest, Descriptor]:
    target, release, length = assignment.target, assignment.release, assignment.length
    if target is None or release is None or length is None:
        raise ContractError(f"install assignment {assignment.seq}", "it names no release")
    return parse_target_path(target)[0], release, index_descriptor(release, length)


def _entry(index: ReleaseIndex, candidate: Candidate) -> VariantEntry:
    for entry in index.variants:
        if (entry.id, entry.digest) == (candidate.id, candidate.digest):
            return entry
    raise ContractError(f"open variant {candidate.id}", "the release does not have it")


def _report(candidate: Candidate, verdict: Verdict, evidence: Evidence | None = None) -> TrialReport:
    detail = verdict.detail if isinstance(verdict, Refused) else None
    return TrialReport(
        variant=candidate.id, digest=candidate.digest, verdict=_verdict_text(verdict), evidence=evidence, detail=detail
    )


def _verdict_text(verdict: Verdict) -> str:
    return "passed" if isinstance(verdict, Accepted) else f"refused:{verdict.code}"
