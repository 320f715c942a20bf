"""From a release to a loaded variant: picks the build for this machine, checks every byte, falls through on failure.

No engine sees a byte whose digest was not checked; what was checked in memory is what is handed on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.contract.ids import LayerName, shown
from edge_runtime.contract.layout import (
    FILE_MAX_BYTES,
    BlobSource,
    Layers,
    LayoutFolder,
    OpenRelease,
    OpenVariant,
    VariantEntry,
    open_variant,
    read_checked,
)
from edge_runtime.contract.reasons import LOAD_FAILED, NO_VARIANT
from edge_runtime.contract.release import ReleaseManifest, VariantManifest, layer_of
from edge_runtime.contract.variant_choice import OfferedVariant, Rejected, choose
from edge_runtime.importing import uncollected
from edge_runtime.inference.backend import Array, BackendOptions, Registry, allowed
from edge_runtime.inference.facts import engines, machine_facts, what_would_help
from edge_runtime.inference.postprocessing.postprocess import parse_labels
from edge_runtime.inference.predictor import Predictor, load_predictor
from edge_runtime.inference.tuned import applicable, leaves_threads_open, read_choices, winner_of

if TYPE_CHECKING:
    from edge_runtime.inference.tuned import TunedFrom
    from edge_runtime.inference.tuned_choice import TunedChoice

LABELS_MAX_BYTES: Final = 4 * 1024 * 1024

Release = Path | str | tuple[OpenRelease, BlobSource]
"""Folder of an OCI layout, or a release already read and where its blobs are."""


class Wishes(msgspec.Struct, frozen=True):
    """What the caller decides about how a release is opened."""

    variant: str | None = None
    """Load exactly this one."""
    backends: Collection[str] | None = None
    """Names of engines that may be used; None: all."""
    facts: DeviceFacts | None = None
    """This device's facts; None: found out by constructing the engines that the release names."""
    options: BackendOptions = msgspec.field(default_factory=BackendOptions)
    provider: str | None = None
    """Only this provider of the engine; None: as the variant lists them."""
    built: Path | None = None
    """Folder of what engines build; None: the user's own."""
    tuned: TunedFrom = None
    """Where what `edge-runtime tune` found is taken from."""
    batch: int | None = None
    """Samples of which the engine is asked at once; None: as was found."""


class Opened(msgspec.Struct, frozen=True):
    """A release with one variant loaded."""

    release: OpenRelease
    variant: OpenVariant
    predictor: Predictor
    skipped: tuple[Rejected, ...]
    """Variants that were better placed or misfits, and why they were not taken."""
    source: BlobSource
    options: BackendOptions
    """As the session was opened, with what was tuned."""
    batch: int | None
    """Samples of which the engine is asked at once, as wished or found best here; None: nobody knows."""
    tuned: TunedChoice | None
    """What was found best for this variant on this machine; wishes went before it."""


def open_release(release: Release, wishes: Wishes, registry: Registry) -> Opened:
    """Open a release and load the best variant for this machine; falls through to the next when one fails to load.

    Args:
        release: which one.
        wishes: how.
        registry: backends by name.

    Raises:
        InferenceError: code `no_variant` or `load_failed`; no variant could be loaded, with all reasons.
        DigestMismatch: a file is not the promised one.
        ContractError: the release breaks the contract.
    """
    opened, source = _read_release(release)
    variants, skipped = _read_variants(opened, source, wishes.variant)
    usable = allowed(registry, wishes.backends)
    forbidden: set[str] = set()
    if wishes.backends is not None:
        # Said as what it is: the device may well have the engine.
        barred = [one for one in variants if one.manifest.target.engine not in {*usable, *wishes.backends}]
        skipped += [Rejected(one.manifest.id, NO_VARIANT, _barred(one)) for one in barred]
        variants = [one for one in variants if one not in barred]
        forbidden = {one.manifest.target.engine for one in barred}
    named = {one.manifest.target.engine for one in variants}
    providers = {name for one in variants for name in one.manifest.target.provider or ["cpu"]}
    with uncollected():  # the engine is imported here
        facts = wishes.facts or machine_facts(engines(named, usable, providers=providers))
    tuned = applicable(read_choices(wishes.tuned), opened.digest, facts)
    offered = tuple(OfferedVariant(one.digest, one.manifest) for one in variants)
    choice = choose(offered, facts, winner_of(tuned))
    skipped.extend(choice.rejected)
    labels = read_labels(opened, source)
    arrays = _read_priors(opened, source)
    by_digest = {one.digest: one for one in variants}
    for chosen in (by_digest[one.digest] for one in choice.candidates):
        files = _read_files(chosen, source)
        options = _with_folder(_tuned_options(wishes.options, chosen, tuned), chosen, wishes.built, facts)
        provider = wishes.provider or _tuned_provider(chosen, tuned)
        try:
            predictor = load_predictor(
                opened.manifest,
                _narrowed(chosen.manifest, provider),
                files,
                labels=labels,
                layers=arrays,
                options=options,
                registry=usable,
            )
        except (InferenceError, ContractError) as error:
            skipped.append(Rejected(chosen.manifest.id, error.code, str(error)))
            continue
        batch = wishes.batch or _tuned_batch(chosen, tuned)
        return Opened(opened, chosen, predictor, tuple(skipped), source, options, batch, tuned.get(chosen.digest))
    remedy = what_would_help(named, facts, forbidden, usable)
    raise _nothing_loaded(opened.manifest, skipped, remedy, any_fitted=bool(choice.candidates))


def _tuned_options(
    options: BackendOptions, variant: OpenVariant, tuned: Mapping[Digest, TunedChoice]
) -> BackendOptions:
    """Threads: the caller's wish, else what was found best here, where the variant leaves it open."""
    choice = tuned.get(variant.digest)
    if options.threads is not None or choice is None or not leaves_threads_open(variant.manifest):
        return options
    return msgspec.structs.replace(options, threads=choice.threads)


def _with_folder(
    options: BackendOptions, variant: OpenVariant, base: Path | None, facts: DeviceFacts
) -> BackendOptions:
    """With the place of what the engine builds; who asks for threads at most does not pay for knowing it."""
    if variant.manifest.engine.options.keys() <= {"intra_op_threads"}:
        return options
    from edge_runtime.inference.built import default_folder, folder_of

    if (base := base or default_folder()) is None:
        return options
    return msgspec.structs.replace(options, built=folder_of(base, variant.digest, facts))


def _tuned_provider(variant: OpenVariant, tuned: Mapping[Digest, TunedChoice]) -> str | None:
    choice = tuned.get(variant.digest)
    # One that the variant does not name is a damaged file's: a model opens without it.
    return choice.provider if choice is not None and choice.provider in variant.manifest.target.provider else None


def _tuned_batch(variant: OpenVariant, tuned: Mapping[Digest, TunedChoice]) -> int | None:
    choice = tuned.get(variant.digest)
    # Of the others it was not measured.
    return choice.batch if choice is not None and choice.is_winner else None


def _narrowed(manifest: VariantManifest, provider: str | None) -> VariantManifest:
    """The manifest with that provider alone. Raises: InferenceError when it does not name it."""
    if provider is None:
        return manifest
    if provider not in manifest.target.provider:
        listed = ", ".join(manifest.target.provider) or "none"
        because = f"it does not run on provider {shown(provider)} (it names {listed})"
        raise InferenceError(f"open variant {manifest.id}", because, "leave the provider out", code=LOAD_FAILED)
    return msgspec.structs.replace(manifest, target=msgspec.structs.replace(manifest.target, provider=[provider]))


def estimate_peak_bytes(variant: VariantManifest) -> int:
    """Memory that one instance needs: as the converter measured, else twice its files (content and engine's copy)."""
    if variant.resources is not None:
        return variant.resources.peak_bytes
    return 2 * sum(file.size for file in variant.files)


def read_layer(source: BlobSource, layers: Layers, title: LayerName, max_bytes: int) -> bytes:
    """The checked content of one layer. Raises: ContractError, DigestMismatch."""
    descriptor = layers.descriptor(title)
    if descriptor.size > max_bytes:
        raise ContractError(f"read layer {title}", f"{descriptor.size} bytes exceed {max_bytes}")
    return read_checked(source, descriptor, max_bytes=descriptor.size)


def _read_release(release: Release) -> tuple[OpenRelease, BlobSource]:
    if isinstance(release, tuple):
        return release
    folder = LayoutFolder(Path(release))
    return folder.open(), folder


def _barred(variant: OpenVariant) -> str:
    return f"{variant.manifest.target.engine} is not allowed by --backend"


def _read_variants(
    release: OpenRelease, source: BlobSource, wanted: str | None
) -> tuple[list[OpenVariant], list[Rejected]]:
    """Variants whose manifests are sound, and the others with reasons; a broken one spoils only itself."""
    entries = [entry for entry in release.index.variants if wanted is None or entry.id == wanted]
    if not entries:
        raise InferenceError(
            f"open variant {shown(wanted)}",
            f"release {release.manifest.name} {release.manifest.version} has none of that name",
            f"choose one of {', '.join(release.manifest.variants)}",
            code=NO_VARIANT,
        )
    sound: list[OpenVariant] = []
    broken: list[Rejected] = []
    for entry in entries:
        variant = _read_variant(source, entry)
        if isinstance(variant, Rejected):
            broken.append(variant)
        else:
            sound.append(variant)
    return sound, broken


def _read_variant(source: BlobSource, entry: VariantEntry) -> OpenVariant | Rejected:
    try:
        return open_variant(source, entry)
    except ContractError as error:
        return Rejected(entry.id, error.code, str(error))


def read_labels(release: OpenRelease, source: BlobSource) -> dict[str, tuple[str, ...]]:
    """Label lists by public output. Raises: ContractError, DigestMismatch."""
    return {
        output.name: parse_labels(read_layer(source, release.layers, layer_of(output.labels), LABELS_MAX_BYTES))
        for output in release.manifest.signature.outputs
        if output.labels
    }


def _read_priors(release: OpenRelease, source: BlobSource) -> dict[str, Array]:
    """Arrays that detectors start from, by the reference that names their layer."""
    references = {
        str(step["priors"]) for steps in release.manifest.postprocess.values() for step in steps if step.get("priors")
    }
    if not references:
        return {}
    from edge_runtime.inference.arrays import ARCHIVE_MAX_BYTES, read_npy

    return {
        reference: read_npy(
            read_layer(source, release.layers, layer_of(reference), ARCHIVE_MAX_BYTES), f"layer {shown(reference)}"
        )
        for reference in sorted(references)
    }


def _read_files(variant: OpenVariant, source: BlobSource) -> Mapping[str, bytes]:
    files: dict[str, bytes] = {}
    for file in variant.manifest.files:
        if file.role in files:
            raise ContractError(f"open variant {variant.manifest.id}", f"two of its files have role {shown(file.role)}")
        files[file.role] = read_layer(source, variant.layers, file.layer, FILE_MAX_BYTES)
    return files


def _nothing_loaded(
    release: ReleaseManifest, skipped: list[Rejected], remedy: str, *, any_fitted: bool
) -> InferenceError:
    reasons = "; ".join(f"{one.variant}: {one.because}" for one in skipped)
    return InferenceError(
        f"open release {release.name} {release.version}",
        f"none of its variants works here ({reasons})",
        remedy,
        code=LOAD_FAILED if any_fitted else NO_VARIANT,
    )
