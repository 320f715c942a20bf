"""Writes a release as an OCI layout: beside its place first, flushed, then renamed; never half a release."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from converters.durable import flush
from converters.errors import CannotWrite
from converters.release.variants import Built
from edge_runtime.contract.codec import encode
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.evidence import EVIDENCE_LAYER, Evidence, EvidenceFile
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.layout import RELEASE_CONFIG, VARIANT_CONFIG, Descriptor, LayoutWriter, variant_annotations
from edge_runtime.contract.release import ReleaseManifest


@dataclass(frozen=True, slots=True)
class Measurement:
    """Evidence about a build, still without the digest it will be keyed by."""

    built: Built
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Written:
    """What a release is called now that it stands on disk."""

    release: Digest
    variants: Mapping[VariantId, Digest]
    """Digests of the shipped variants."""


def check_destination(out: Path, *, force: bool) -> None:
    """Fail before the work rather than after it. Raises: CannotWrite."""
    if out.exists() and not (out / "oci-layout").is_file():
        # Not even with --force: it may hold somebody's only copy of something else.
        raise CannotWrite(f"write release {out}", "it exists already and is no release", "name another folder")
    if out.exists() and not force:
        raise CannotWrite(f"write release {out}", "it exists already", "name another folder or add --force")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}."):
            pass
    except OSError as error:
        raise _cannot_write(out, error) from error


def write_release(
    out: Path,
    manifest: ReleaseManifest,
    layers: Mapping[str, bytes],
    shipped: list[Measurement],
    refused: list[Measurement],
) -> Written:
    """Write everything to `out`; an older release there is replaced as a whole.

    Raises:
        CannotWrite: no permission, disk full, read-only.
    """
    try:
        with _staged(out) as folder:
            writer = LayoutWriter(folder)
            variants = {one.built.manifest.id: _add_variant(writer, one.built) for one in shipped}
            digests = {variant: descriptor.digest for variant, descriptor in variants.items()}
            evidence = EvidenceFile(
                variants={one.built.manifest.id: _keyed(one, digests[one.built.manifest.id]) for one in shipped},
                refused={one.built.manifest.id: _keyed(one, _digest_alone(one.built)) for one in refused},
            )
            files = {**layers, EVIDENCE_LAYER: encode(evidence)}
            head = writer.add_manifest(encode(manifest), RELEASE_CONFIG, files, {})
            digest = writer.finish(head, list(variants.values()), manifest.version)
            _flush_all(folder)
            _replace(folder, out)
    except OSError as error:
        raise _cannot_write(out, error) from error
    return Written(digest, digests)


def _add_variant(writer: LayoutWriter, built: Built) -> Descriptor:
    return writer.add_manifest(
        encode(built.manifest), VARIANT_CONFIG, built.layers(), variant_annotations(built.manifest)
    )


def _digest_alone(built: Built) -> Digest:
    """The digest a refused variant would have had; nothing of it is kept."""
    with tempfile.TemporaryDirectory(prefix="edge-convert-") as folder:
        return _add_variant(LayoutWriter(Path(folder)), built).digest


def _keyed(measurement: Measurement, variant: Digest) -> Evidence:
    return msgspec.structs.replace(measurement.evidence, variant=variant)


@contextlib.contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A folder on the same file system that is gone afterwards, whatever happens."""
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _flush_all(folder: Path) -> None:
    """After a power cut the rename may survive while the bytes do not."""
    for path in sorted(folder.rglob("*"), reverse=True):
        flush(path)
    flush(folder)


def _replace(folder: Path, out: Path) -> None:
    if out.exists():
        old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
        out.rename(old / out.name)
        folder.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    else:
        folder.rename(out)
    flush(out.parent)


def _cannot_write(out: Path, error: OSError) -> CannotWrite:
    remedies = {
        errno.ENOSPC: ("the disk is full", "free some space"),
        errno.EDQUOT: ("the disk quota is used up", "free some space"),
        errno.EACCES: ("there is no permission to write there", "name another folder"),
        errno.EPERM: ("there is no permission to write there", "name another folder"),
        errno.EROFS: ("the file system is read-only", "name another folder"),
    }
    because, remedy = remedies.get(error.errno or 0, (error.strerror or str(error), "check the folder"))
    return CannotWrite(f"write release {out}", because, remedy)
