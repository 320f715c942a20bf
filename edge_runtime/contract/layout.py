"""The OCI shape of a release: one index blob names everything, and its digest is the release digest.

Reading works over any source of blobs (a folder, the device's store, a registry): every byte is checked
by digest and length before it is parsed.
"""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from edge_runtime.contract.codec import DOCUMENT_MAX_BYTES, Document, decode, encode
from edge_runtime.contract.digest import Digest, check_bytes, digest_of, hex_of, parse_digest
from edge_runtime.contract.errors import ContractError, DigestMismatch
from edge_runtime.contract.ids import (
    LayerName,
    VariantId,
    Version,
    parse_layer_name,
    parse_variant_id,
    parse_version,
    shown,
)
from edge_runtime.contract.release import ReleaseManifest, VariantManifest, read_release, read_variant

OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
RELEASE_CONFIG: Final = "application/vnd.edgefleet.release.v1+json"
VARIANT_CONFIG: Final = "application/vnd.edgefleet.variant.v1+json"
FILE_MEDIA_TYPE: Final = "application/vnd.edgefleet.file.v1"

TITLE: Final = "org.opencontainers.image.title"
REF_NAME: Final = "org.opencontainers.image.ref.name"
VARIANT_ID: Final = "dev.edgefleet.variant.id"
VARIANT_TARGET: Final = "dev.edgefleet.variant.target"
VARIANT_BYTES: Final = "dev.edgefleet.variant.bytes"

INDEX_MAX_BYTES: Final = 1024 * 1024
FILE_MAX_BYTES: Final = 8 * 1024**3
VARIANTS_MAX: Final = 256
LAYERS_MAX: Final = 256


class Descriptor(Document, frozen=True, kw_only=True):
    """An OCI content descriptor."""

    mediaType: str  # noqa: N815 (OCI's own spelling)
    digest: Digest
    size: int
    annotations: dict[str, str] = {}


class _OciIndex(Document, frozen=True, kw_only=True):
    schemaVersion: int  # noqa: N815
    manifests: list[Descriptor]
    mediaType: str | None = None  # noqa: N815


class _OciManifest(Document, frozen=True, kw_only=True):
    schemaVersion: int  # noqa: N815
    config: Descriptor
    layers: list[Descriptor]
    mediaType: str | None = None  # noqa: N815


if TYPE_CHECKING:

    class BlobSource(Protocol):
        """Where blobs come from; what it returns is checked by its caller."""

        def read_blob(self, descriptor: Descriptor, *, max_bytes: int) -> bytes:
            """The bytes of one blob. Raises: ContractError, TransportError or UpdateError when it cannot be had."""

else:
    BlobSource = object  # a Protocol costs each start more than it tells at run time


class VariantEntry(msgspec.Struct, frozen=True):
    """A variant as the release index lists it: enough to choose without fetching its config."""

    id: VariantId
    descriptor: Descriptor

    @property
    def digest(self) -> Digest:
        """The variant digest."""
        return self.descriptor.digest


class ReleaseIndex(msgspec.Struct, frozen=True):
    """The parsed release index: manifest 0 and the variants."""

    digest: Digest
    size_bytes: int
    release: Descriptor
    variants: tuple[VariantEntry, ...]


class Layers(msgspec.Struct, frozen=True):
    """The files of one manifest, by title."""

    config: Descriptor
    by_title: Mapping[LayerName, Descriptor]

    def descriptor(self, title: LayerName) -> Descriptor:
        """The layer of that title. Raises: ContractError when there is none."""
        if title not in self.by_title:
            raise ContractError(f"find layer {shown(title)}", "the manifest does not list it")
        return self.by_title[title]


class OpenVariant(msgspec.Struct, frozen=True):
    """One variant, read and checked."""

    digest: Digest
    manifest: VariantManifest
    layers: Layers


class OpenRelease(msgspec.Struct, frozen=True):
    """A release, read and checked as far as its manifest 0; variants are opened one by one."""

    index: ReleaseIndex
    manifest: ReleaseManifest
    layers: Layers

    @property
    def digest(self) -> Digest:
        """The release digest."""
        return self.index.digest


def parse_release_index(content: bytes) -> ReleaseIndex:
    """Read a release index blob.

    Raises:
        ContractError: it is not an index of one release manifest and its variants.
    """
    index = decode(content, _OciIndex, max_bytes=INDEX_MAX_BYTES, what="the release index")
    if index.schemaVersion != 2 or (index.mediaType or OCI_INDEX) != OCI_INDEX:
        raise ContractError("read the release index", "it is not an OCI image index")
    if not 2 <= len(index.manifests) <= VARIANTS_MAX + 1:
        raise ContractError("read the release index", f"it lists {len(index.manifests)} manifests")
    for descriptor in index.manifests:
        _check_descriptor(descriptor, OCI_MANIFEST)
    variants = tuple(
        VariantEntry(parse_variant_id(descriptor.annotations.get(VARIANT_ID, "")), descriptor)
        for descriptor in index.manifests[1:]
    )
    if len({variant.id for variant in variants}) != len(variants):
        raise ContractError("read the release index", "it lists a variant twice")
    return ReleaseIndex(digest_of(content), len(content), index.manifests[0], variants)


def open_release(source: BlobSource, index: ReleaseIndex) -> OpenRelease:
    """Read manifest 0 of a release.

    Raises:
        ContractError: it breaks the contract, or index and manifest disagree about the variants.
        DigestMismatch: bytes are not the promised ones.
    """
    layers = read_layers(source, index.release, RELEASE_CONFIG)
    manifest = read_release(read_checked(source, layers.config, max_bytes=DOCUMENT_MAX_BYTES))
    if sorted(manifest.variants) != sorted(entry.id for entry in index.variants):
        raise ContractError(
            f"open release {manifest.name} {manifest.version}", "its index lists other variants than its manifest"
        )
    return OpenRelease(index, manifest, layers)


def open_variant(source: BlobSource, entry: VariantEntry) -> OpenVariant:
    """Read one variant of a release. Raises: as `open_release`."""
    layers = read_layers(source, entry.descriptor, VARIANT_CONFIG)
    manifest = read_variant(read_checked(source, layers.config, max_bytes=DOCUMENT_MAX_BYTES))
    if manifest.id != entry.id:
        raise ContractError(f"open variant {entry.id}", f"its manifest calls itself {shown(manifest.id)}")
    for file in manifest.files:
        descriptor = layers.descriptor(file.layer)
        if (descriptor.digest, descriptor.size) != (file.digest, file.size):
            raise ContractError(f"open variant {entry.id}", f"file {file.layer} differs between manifest and layers")
    return OpenVariant(entry.digest, manifest, layers)


def read_checked(source: BlobSource, descriptor: Descriptor, *, max_bytes: int) -> bytes:
    """Read one blob and check it. Raises: ContractError when larger than `max_bytes`, DigestMismatch."""
    if descriptor.size > max_bytes:
        raise ContractError(f"read blob {descriptor.digest}", f"{descriptor.size} bytes exceed {max_bytes}")
    content = source.read_blob(descriptor, max_bytes=max_bytes)
    name = descriptor.annotations.get(TITLE, descriptor.digest)
    check_bytes(content, descriptor.digest, descriptor.size, f"blob {shown(name)}")
    return content


class LayoutFolder:
    """A release as an OCI image layout on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blobs = folder / "blobs" / "sha256"

    def read_blob(self, descriptor: Descriptor, *, max_bytes: int) -> bytes:
        """The bytes of one blob file, at most `max_bytes`. Raises: ContractError when it is not there."""
        path = self.path_of(descriptor.digest)
        try:
            with path.open("rb") as source:
                content = source.read(max_bytes + 1)
        except OSError as error:
            raise ContractError(
                f"read blob {descriptor.digest}", f"{self.folder} does not hold it", "copy the whole release folder"
            ) from error
        if len(content) > max_bytes:
            raise DigestMismatch(f"read blob {descriptor.digest}", f"it is larger than {max_bytes} bytes")
        return content

    def path_of(self, digest: Digest) -> Path:
        """Where a blob's file stands."""
        return self._blobs / hex_of(parse_digest(digest))

    def read_index(self) -> tuple[Version, ReleaseIndex]:
        """The version and the checked release index that `index.json` points to.

        Raises:
            ContractError: not a layout of exactly one release.
            DigestMismatch: the index blob is not the one `index.json` names.
        """
        try:
            with (self.folder / "index.json").open("rb") as source:
                content = source.read(INDEX_MAX_BYTES + 1)
        except OSError as error:
            raise ContractError(
                f"open release {self.folder}", self._why_unreadable(error), "name the folder edge-convert wrote"
            ) from error
        if not content:
            raise ContractError(f"open release {self.folder}", "its index.json is empty", "copy the whole folder again")
        top = decode(content, _OciIndex, max_bytes=INDEX_MAX_BYTES, what=str(self.folder / "index.json"))
        if len(top.manifests) != 1 or top.manifests[0].mediaType != OCI_INDEX:
            raise ContractError(f"open release {self.folder}", "index.json does not hold exactly one release index")
        descriptor = top.manifests[0]
        _check_descriptor(descriptor, OCI_INDEX)
        version = parse_version(descriptor.annotations.get(REF_NAME, ""))
        return version, parse_release_index(read_checked(self, descriptor, max_bytes=INDEX_MAX_BYTES))

    def _why_unreadable(self, error: OSError) -> str:
        if not self.folder.exists():
            return "there is no such folder"
        if not self.folder.is_dir():
            return "it is no folder"
        if isinstance(error, FileNotFoundError):
            return "there is no index.json in it"
        return f"its index.json cannot be read: {error.strerror or error}"

    def open(self) -> OpenRelease:
        """Open the release in this folder. Raises: as `read_index` and `open_release`."""
        version, index = self.read_index()
        release = open_release(self, index)
        if release.manifest.version != version:
            raise ContractError(
                f"open release {self.folder}", f"it is tagged {version} but says {release.manifest.version}"
            )
        return release

    def blobs(self) -> Iterator[Descriptor]:
        """Every blob of the release, children before parents, the release index last. Raises: as `open`."""
        _, index = self.read_index()
        for parent in (index.release, *(entry.descriptor for entry in index.variants)):
            manifest = _read_manifest(self, parent)
            yield manifest.config
            yield from manifest.layers
            yield parent
        yield Descriptor(mediaType=OCI_INDEX, digest=index.digest, size=index.size_bytes)


class LayoutWriter:
    """Writes a release as an OCI layout; the same input gives the same bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._blobs = folder / "blobs" / "sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)

    def add_manifest(
        self, config: bytes, config_type: str, files: Mapping[str, bytes], annotations: Mapping[str, str]
    ) -> Descriptor:
        """Write config, files (by title) and the image manifest over them."""
        layers = [self._file(parse_layer_name(title), files[title]) for title in sorted(files)]
        stored_config = self._blob(config, config_type, {})
        manifest = _OciManifest(schemaVersion=2, mediaType=OCI_MANIFEST, config=stored_config, layers=layers)
        return self._blob(encode(manifest), OCI_MANIFEST, annotations)

    def finish(self, release: Descriptor, variants: list[Descriptor], version: Version) -> Digest:
        """Write the release index, `oci-layout` and `index.json`; returns the release digest."""
        index = _OciIndex(schemaVersion=2, mediaType=OCI_INDEX, manifests=[release, *variants])
        descriptor = self._blob(encode(index), OCI_INDEX, {REF_NAME: parse_version(version)})
        (self._folder / "oci-layout").write_bytes(b'{"imageLayoutVersion": "1.0.0"}')
        top = encode(_OciIndex(schemaVersion=2, mediaType=OCI_INDEX, manifests=[descriptor]))
        # Last and by rename: a layout without index.json is recognisably unfinished.
        staged = self._folder / ".index.json"
        staged.write_bytes(top)
        staged.replace(self._folder / "index.json")
        return descriptor.digest

    def _file(self, title: LayerName, content: bytes) -> Descriptor:
        return self._blob(content, FILE_MEDIA_TYPE, {TITLE: title})

    def _blob(self, content: bytes, media_type: str, annotations: Mapping[str, str]) -> Descriptor:
        digest = digest_of(content)
        (self._blobs / hex_of(digest)).write_bytes(content)
        return Descriptor(mediaType=media_type, digest=digest, size=len(content), annotations=dict(annotations))


def variant_annotations(manifest: VariantManifest) -> dict[str, str]:
    """What the index repeats about a variant so that a device chooses without fetching its config."""
    return {
        VARIANT_ID: manifest.id,
        VARIANT_TARGET: msgspec.json.encode(manifest.target, order="sorted").decode(),
        VARIANT_BYTES: str(sum(file.size for file in manifest.files)),
    }


def read_layers(source: BlobSource, descriptor: Descriptor, config_type: str) -> Layers:
    """What one manifest lists, without reading its config. Raises: ContractError, DigestMismatch."""
    manifest = _read_manifest(source, descriptor)
    if manifest.schemaVersion != 2 or (manifest.mediaType or OCI_MANIFEST) != OCI_MANIFEST:
        raise ContractError(f"read manifest {descriptor.digest}", "it is not an OCI image manifest")
    _check_descriptor(manifest.config, config_type)
    if len(manifest.layers) > LAYERS_MAX:
        raise ContractError(f"read manifest {descriptor.digest}", f"it lists {len(manifest.layers)} layers")
    by_title: dict[LayerName, Descriptor] = {}
    for layer in manifest.layers:
        _check_descriptor(layer, FILE_MEDIA_TYPE)
        title = parse_layer_name(layer.annotations.get(TITLE, ""))
        if title in by_title:
            raise ContractError(f"read manifest {descriptor.digest}", f"two layers are called {title}")
        by_title[title] = layer
    return Layers(manifest.config, by_title)


def _read_manifest(source: BlobSource, descriptor: Descriptor) -> _OciManifest:
    content = read_checked(source, descriptor, max_bytes=INDEX_MAX_BYTES)
    return decode(content, _OciManifest, max_bytes=INDEX_MAX_BYTES)


def _check_descriptor(descriptor: Descriptor, media_type: str) -> None:
    parse_digest(descriptor.digest)
    if not 0 <= descriptor.size <= FILE_MAX_BYTES:
        raise ContractError(f"use blob {descriptor.digest}", f"its size {descriptor.size} is impossible")
    if descriptor.mediaType != media_type:
        raise ContractError(f"use blob {descriptor.digest}", f"it is {shown(descriptor.mediaType)}, not {media_type}")
