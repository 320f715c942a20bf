"""Which blobs a release consists of, parents before children, and which blobs the store must keep."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import EdgeError
from edge_runtime.contract.layout import (
    INDEX_MAX_BYTES,
    OCI_INDEX,
    RELEASE_CONFIG,
    VARIANT_CONFIG,
    BlobSource,
    Descriptor,
    ReleaseIndex,
    VariantEntry,
    parse_release_index,
    read_checked,
    read_layers,
)
from edge_runtime.update.states import (
    Activated,
    Activation,
    Admitted,
    Built,
    Fetching,
    Offered,
    Shadowing,
    SlotStatus,
    Soaking,
    Trialled,
    Verified,
)


def index_descriptor(release: Digest, size_bytes: int) -> Descriptor:
    """The descriptor of a release index blob."""
    return Descriptor(mediaType=OCI_INDEX, digest=release, size=size_bytes)


def read_index(source: BlobSource, release: Digest, size_bytes: int) -> ReleaseIndex:
    """A release's index, out of the store. Raises: ContractError, DigestMismatch."""
    content = read_checked(source, index_descriptor(release, size_bytes), max_bytes=INDEX_MAX_BYTES)
    return parse_release_index(content)


def documents(source: BlobSource, index: Descriptor, variants: Collection[Digest]) -> Iterator[Descriptor]:
    """Index, manifests and configs of a release and some of its variants: enough to decide what fits.

    Each blob must be in `source` before the next is asked for. Raises: ContractError, DigestMismatch.
    """
    yield index
    parsed = read_index(source, index.digest, index.size)
    yield parsed.release
    yield read_layers(source, parsed.release, RELEASE_CONFIG).config
    for entry in _entries(parsed, variants):
        yield entry.descriptor
        yield read_layers(source, entry.descriptor, VARIANT_CONFIG).config


def everything(source: BlobSource, index: Descriptor, variant: Digest) -> Iterator[Descriptor]:
    """Every blob that one variant of a release needs to run and to be tried; order and errors as `documents`."""
    yield from documents(source, index, {variant})
    parsed = read_index(source, index.digest, index.size)
    yield from read_layers(source, parsed.release, RELEASE_CONFIG).by_title.values()
    for entry in _entries(parsed, {variant}):
        yield from read_layers(source, entry.descriptor, VARIANT_CONFIG).by_title.values()


def blobs_to_keep(
    source: BlobSource, activations: Iterable[Activation], statuses: Iterable[SlotStatus]
) -> set[Digest]:
    """Every blob that something live can reach: pointers, ways back, and attempts in progress."""
    keep: set[Digest] = set()
    for index, variant in _roots(activations, statuses):
        keep |= _reachable(source, index, variant)
    return keep


def _roots(
    activations: Iterable[Activation], statuses: Iterable[SlotStatus]
) -> Iterator[tuple[Descriptor, Digest]]:
    for activation in activations:
        yield _root(activation)
    for status in statuses:
        if isinstance(status, (Activated, Soaking)):
            yield _root(status.chosen)
            if status.previous is not None:
                yield _root(status.previous)
        elif isinstance(status, (Offered, Admitted, Fetching, Verified, Built, Trialled, Shadowing)):
            assignment = status.attempt.assignment
            if assignment.release is not None and assignment.length is not None:
                index = index_descriptor(assignment.release, assignment.length)
                yield from ((index, candidate.digest) for candidate in assignment.candidates)


def _root(activation: Activation) -> tuple[Descriptor, Digest]:
    return index_descriptor(activation.release, activation.release_bytes), activation.variant_digest


def _entries(index: ReleaseIndex, variants: Collection[Digest]) -> list[VariantEntry]:
    return [entry for entry in index.variants if entry.digest in variants]


def _reachable(source: BlobSource, index: Descriptor, variant: Digest) -> set[Digest]:
    found: set[Digest] = set()
    try:
        for blob in everything(source, index, variant):
            found.add(blob.digest)
    except EdgeError:
        # Not all of it is there yet (or any more): what can be reached is kept, the rest is not in the store.
        return found
    return found
