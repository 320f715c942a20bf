"""A release as the server knows it: what was pushed, what it claims, what was measured (pure)."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.contract.digest import Digest
from edge_runtime.contract.evidence import EvidenceFile
from edge_runtime.contract.ids import ModelName, TargetPath, Version, target_path
from edge_runtime.contract.layout import Descriptor, OpenVariant
from edge_runtime.contract.release import ReleaseManifest
from edge_runtime.contract.variant_choice import OfferedVariant


@dataclass(frozen=True, slots=True)
class Release:
    """One accepted release."""

    model: ModelName
    version: Version
    digest: Digest
    length: int
    """Bytes of the release index blob."""
    pushed_at: float
    pushed_by: str

    @property
    def target(self) -> TargetPath:
        """The path under which its digest is signed."""
        return target_path(self.model, self.version)


@dataclass(frozen=True, slots=True)
class ReleaseDetail:
    """A release with everything its manifests and evidence say."""

    release: Release
    manifest: ReleaseManifest
    variants: tuple[OpenVariant, ...]
    evidence: EvidenceFile | None

    @property
    def offered(self) -> tuple[OfferedVariant, ...]:
        """The variants as `variant_choice.choose` wants them; latencies are the device's to find out."""
        return tuple(OfferedVariant(variant.digest, variant.manifest) for variant in self.variants)


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob of an accepted release, as devices may pull it."""

    digest: Digest
    size_bytes: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Push:
    """A release whose blobs are uploaded, with the model team's signed role metadata."""

    model: ModelName
    version: Version
    digest: Digest
    metadata: bytes
    withdraws: frozenset[Version] = frozenset()
    """Versions that its metadata may leave out although they are in force."""


@dataclass(frozen=True, slots=True)
class ReadRelease:
    """A release as read from the blob store: complete, and consistent in itself."""

    length: int
    manifest: ReleaseManifest
    variants: tuple[OpenVariant, ...]
    evidence: EvidenceFile | None
    blobs: tuple[Descriptor, ...]
