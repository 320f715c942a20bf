"""Which releases devices may be given: complete, consistent, and signed by the model's own team."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from tuf.api.metadata import Targets

from edge_runtime.contract.codec import decode
from edge_runtime.contract.digest import Digest, check_bytes
from edge_runtime.contract.errors import ContractError, TrustError
from edge_runtime.contract.evidence import EVIDENCE_LAYER, EvidenceFile
from edge_runtime.contract.ids import LayerName, ModelName, TargetPath, Version, shown, target_path
from edge_runtime.contract.layout import (
    INDEX_MAX_BYTES,
    OCI_INDEX,
    Descriptor,
    OpenRelease,
    open_release,
    open_variant,
    parse_release_index,
    read_checked,
)
from edge_runtime.trust import metadata
from fleet_server.db import Database, Session
from fleet_server.errors import Conflict, NotFound
from fleet_server.identity import audit
from fleet_server.releases import store
from fleet_server.releases.blobs import BlobStore
from fleet_server.releases.model import Push, ReadRelease, Release, ReleaseDetail, StoredBlob
from fleet_server.releases.signing import TufRepository

_CACHED: Final = 32
_EVIDENCE_MAX_BYTES: Final = 4 * 1024 * 1024


class Releases:
    """Accepted releases, their blobs and their signed metadata."""

    def __init__(
        self, database: Database, blobs: BlobStore, repository: TufRepository, *, check_signatures: bool = True
    ) -> None:
        self._database = database
        self._repository = repository
        self._check_signatures = check_signatures
        self.blobs = blobs
        self._read: OrderedDict[Digest, ReadRelease] = OrderedDict()
        self._reading = threading.Lock()
        self._accepting = threading.Lock()

    def accept(self, push: Push, *, by: str, now: float) -> Release:
        """Accept a pushed release; the same push again changes nothing.

        Raises:
            ContractError: it is incomplete or contradicts itself. TrustError: its metadata cannot be accepted.
            Conflict: the version exists with another digest.
        """
        with self._accepting:
            with self._database.reading() as session:
                self._refuse_rewriting(session, push)
            found = self._read_release(push.digest)
            if (found.manifest.name, found.manifest.version) != (push.model, push.version):
                raise ContractError(
                    f"accept release {push.model} {push.version}",
                    f"its manifest says {found.manifest.name} {found.manifest.version}",
                    "push it under its own name",
                )
            self._accept_metadata(push, found.length, now)
            release = Release(push.model, push.version, push.digest, found.length, now, by)
            with self._database.session() as session:
                known = store.find_release(session, push.model, push.version)
                if known is not None:
                    return known
                blobs = [StoredBlob(blob.digest, blob.size, blob.mediaType) for blob in found.blobs]
                store.add_release(session, release, blobs)
                detail = {"digest": push.digest, "waivers": [waiver.check for waiver in found.manifest.waivers]}
                audit.record(session, by, "release.pushed", release.target, now=now, detail=detail)
        return release

    def list(self, session: Session, model: ModelName | None = None, *, limit: int = 100) -> list[Release]:
        """Releases, newest first."""
        return store.list_releases(session, model, limit=limit)

    def get(self, session: Session, model: ModelName, version: Version) -> Release:
        """One release. Raises: NotFound."""
        found = store.find_release(session, model, version)
        if found is None:
            raise NotFound(
                f"find release {shown(model)} {shown(version)}", "it was never pushed here", "edge-fleet releases list"
            )
        return found

    def offered(self, session: Session, model: ModelName, version: Version) -> Release:
        """One release that its team still stands behind. Raises: NotFound; Conflict when it was withdrawn."""
        found = self.get(session, model, version)
        if self.withdrawn([found]):
            raise Conflict(
                f"offer release {shown(model)} {shown(version)}",
                "its team has withdrawn it: its metadata no longer lists it, and devices would refuse",
                "sign it again on top of the server's metadata (edge-convert sign --server), and push it",
            )
        return found

    def withdrawn(self, releases: Sequence[Release]) -> frozenset[TargetPath]:
        """Those that their team's metadata in force no longer lists, so that devices refuse to install them."""
        if not self._check_signatures:
            return frozenset()
        listed = {model: self._repository.in_force(model) for model in {release.model for release in releases}}
        return frozenset(release.target for release in releases if release.target not in listed[release.model])

    def by_digest(self, session: Session, digest: Digest) -> Release | None:
        """The release of a digest, or None."""
        return store.find_by_digest(session, digest)

    def detail(self, release: Release) -> ReleaseDetail:
        """Manifests and evidence of a release. Raises: ContractError when its blobs were damaged."""
        found = self._read_release(release.digest)
        return ReleaseDetail(release, found.manifest, found.variants, found.evidence)

    def blob(self, model: ModelName, digest: Digest) -> StoredBlob:
        """A blob that devices may pull. Raises: NotFound for one that no accepted release of the model holds."""
        with self._database.reading() as session:
            found = store.find_blob(session, model, digest)
        if found is None or self.blobs.size_of(digest) != found.size_bytes:
            raise NotFound(f"serve {shown(digest)}", f"no release of {shown(model)} holds it here")
        return found

    def model_metadata(self, model: ModelName) -> bytes:
        """The role metadata in force for a model. Raises: NotFound before its first release."""
        content = self._repository.model_metadata(model)
        if content is None:
            raise NotFound(f"show the metadata of {shown(model)}", "nothing was released under this name yet")
        return content

    def _refuse_rewriting(self, session: Session, push: Push) -> None:
        known = store.find_release(session, push.model, push.version)
        if known is not None and known.digest != push.digest:
            raise Conflict(
                f"push release {push.model} {push.version}",
                f"it exists as {known.digest}",
                "give the new release a new version",
            )

    def _accept_metadata(self, push: Push, length: int, now: float) -> None:
        path = target_path(push.model, push.version)
        what = f"the metadata of model {push.model}"
        # Only read here, so that metadata without this release is never published; `accept_role` checks signatures.
        offered = metadata.parse(push.metadata, Targets, max_bytes=metadata.TARGETS_MAX_BYTES, what=what)
        info = metadata.read_model_role(offered.signed, push.model).get(path)
        if info is None or (info.digest, info.length) != (push.digest, length):
            raise TrustError(
                f"accept release {push.model} {push.version}",
                "its metadata does not list this digest",
                "sign the release (edge-convert sign) and push it with that metadata",
            )
        if self._check_signatures:
            withdraws = frozenset(target_path(push.model, version) for version in push.withdraws)
            self._repository.accept_role(push.model, push.metadata, now, withdraws=withdraws)

    def _read_release(self, digest: Digest) -> ReadRelease:
        with self._reading:
            if digest in self._read:
                self._read.move_to_end(digest)
                return self._read[digest]
        found = read_release(self.blobs, digest)
        with self._reading:
            self._read[digest] = found
            while len(self._read) > _CACHED:
                self._read.popitem(last=False)
        return found


def read_release(blobs: BlobStore, digest: Digest) -> ReadRelease:
    """Read a whole release and see that every blob of it is there.

    Raises:
        ContractError: a blob is missing, or documents contradict each other. DigestMismatch: a blob is damaged.
    """
    descriptor = Descriptor(mediaType=OCI_INDEX, digest=digest, size=blobs.size_of(digest) or 0)
    content = blobs.read_blob(descriptor, max_bytes=INDEX_MAX_BYTES)
    check_bytes(content, digest, None, "the release index")
    index = parse_release_index(content)
    release = open_release(blobs, index)
    variants = tuple(open_variant(blobs, entry) for entry in index.variants)
    manifests = [index.release, *(entry.descriptor for entry in index.variants)]
    layers = [release.layers, *(variant.layers for variant in variants)]
    files = [part for layer in layers for part in (layer.config, *layer.by_title.values())]
    for part in files:
        if blobs.size_of(part.digest) != part.size:
            raise ContractError(
                f"accept release {release.manifest.name} {release.manifest.version}",
                f"blob {part.digest} is missing or has another size",
                "push the whole release again",
            )
    whole = Descriptor(mediaType=OCI_INDEX, digest=digest, size=len(content))
    evidence = _evidence(blobs, release)
    return ReadRelease(len(content), release.manifest, variants, evidence, (*files, *manifests, whole))


def _evidence(blobs: BlobStore, release: OpenRelease) -> EvidenceFile | None:
    layer = release.layers.by_title.get(LayerName(EVIDENCE_LAYER))
    if layer is None:
        return None
    return decode(read_checked(blobs, layer, max_bytes=_EVIDENCE_MAX_BYTES), EvidenceFile)
