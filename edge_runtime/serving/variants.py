"""Which builds of a release can serve on this machine, and which one stands in for another (pure but for reading)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.errors import ContractError, DigestMismatch, InferenceError
from edge_runtime.contract.ids import VariantId, shown
from edge_runtime.contract.layout import BlobSource, LayoutFolder, OpenRelease, OpenVariant, VariantEntry, open_variant
from edge_runtime.contract.reasons import NO_VARIANT
from edge_runtime.contract.release import VariantManifest
from edge_runtime.contract.variant_choice import OfferedVariant, Rejected, choose
from edge_runtime.inference.backend import BACKENDS, Registry
from edge_runtime.inference.facts import what_would_help
from edge_runtime.inference.tuned import TunedFrom, applicable, read_choices, winner_of
from edge_runtime.inference.tuned_settings import TunedSettings, settings_of

Release = Path | str | tuple[OpenRelease, BlobSource]
"""Folder of an OCI layout, or a release already read and where its blobs are; read again when a model is reloaded."""

_PLAIN_PROVIDERS: Final = frozenset({"cpu", "xnnpack"})


@dataclass(frozen=True, slots=True)
class Origin:
    """A release as it can be opened here, again and again."""

    release: OpenRelease
    source: BlobSource
    variants: tuple[VariantManifest, ...]
    """Those that fit, best first; never empty."""
    skipped: tuple[Rejected, ...]
    facts: DeviceFacts
    tuned: Mapping[VariantId, TunedSettings]
    """What was found best for a variant on this machine."""


def read_origin(
    release: Release,
    wanted: str | None,
    facts_about: Callable[[frozenset[str]], DeviceFacts],
    tuned_from: TunedFrom = None,
    *,
    first: VariantId | None = None,
    registry: Registry = BACKENDS,
) -> Origin:
    """Find the variants of a release that fit this machine.

    Args:
        release: what to read.
        wanted: exactly this variant (and the fallback that it names); None: all that fit.
        facts_about: this machine's facts, as far as these engines matter.
        tuned_from: where what was tuned is taken from.
        first: the one that is meant, whatever suits this machine better; of the others only what is whole is taken.
        registry: backends that may be used, by name.

    Raises:
        InferenceError: code `no_variant`; none fits, or not the one that is meant.
        ContractError: the release breaks the contract.
        DigestMismatch: a file is not the promised one.
    """
    opened, source = release if isinstance(release, tuple) else _from_folder(Path(release))
    sound: list[OpenVariant] = []
    skipped: list[Rejected] = []
    for entry in opened.index.variants:
        one = _read_variant(source, entry, must_be_whole=first in {None, entry.id})
        if isinstance(one, Rejected):
            skipped.append(one)
        else:
            sound.append(one)
    sound = _meant(sound, wanted)
    facts = facts_about(frozenset(one.manifest.target.engine for one in sound))
    tuned = applicable(read_choices(tuned_from), opened.digest, facts)
    choice = choose(tuple(OfferedVariant(one.digest, one.manifest) for one in sound), facts, winner_of(tuned))
    skipped.extend(choice.rejected)
    # One that was asked for comes first, whatever its fallback promises.
    asked = first or wanted
    fitting = sorted((offered.manifest for offered in choice.candidates), key=lambda one: one.id != (asked or one.id))
    if not fitting or first not in {None, fitting[0].id}:
        remedy = what_would_help({one.manifest.target.engine for one in sound}, facts, registry=registry)
        raise _none_fits(opened, asked, skipped, remedy)
    settings = {
        one.manifest.id: settings_of(opened.manifest, one, tuned[one.digest]) for one in sound if one.digest in tuned
    }
    return Origin(opened, source, tuple(fitting), tuple(skipped), facts, settings)


def is_accelerated(variant: VariantManifest) -> bool:
    """Whether it leans on more than the CPU, which may be absent today and back tomorrow."""
    target = variant.target
    return target.accelerator is not None or bool(set(target.provider or ()) - _PLAIN_PROVIDERS)


def stand_in(origin: Origin, failed: VariantManifest, broken: Collection[VariantId]) -> VariantManifest | None:
    """The variant that answers in place of one that failed: the fallback it names, else the best that needs only a CPU.

    A variant for the CPU has no stand-in but the one that it names.
    """
    usable = [one for one in origin.variants if one.id != failed.id and one.id not in broken]
    named = next((one for one in usable if one.id == failed.fallback), None)
    if named is not None or not is_accelerated(failed):
        return named
    return next((one for one in usable if not is_accelerated(one)), None)


def last_resort(origin: Origin, failed: VariantManifest, broken: Collection[VariantId]) -> VariantManifest | None:
    """The best other variant that needs only a CPU, for one whose process does not stay alive."""
    usable = [one for one in origin.variants if one.id != failed.id and one.id not in broken]
    return next((one for one in usable if not is_accelerated(one)), None)


def _from_folder(folder: Path) -> tuple[OpenRelease, BlobSource]:
    layout = LayoutFolder(folder)
    return layout.open(), layout


def _read_variant(source: BlobSource, entry: VariantEntry, *, must_be_whole: bool) -> OpenVariant | Rejected:
    try:
        return open_variant(source, entry)
    except (ContractError, DigestMismatch) as error:
        if must_be_whole and isinstance(error, DigestMismatch):
            raise
        return Rejected(entry.id, error.code, str(error))


def _meant(variants: list[OpenVariant], wanted: str | None) -> list[OpenVariant]:
    if wanted is None:
        return variants
    chosen = {one.manifest.fallback for one in variants if one.manifest.id == wanted}
    return [one for one in variants if one.manifest.id == wanted or one.manifest.id in chosen]


def _none_fits(
    release: OpenRelease, wanted: str | None, skipped: list[Rejected], remedy: str
) -> InferenceError:
    manifest = release.manifest
    reasons = "; ".join(f"{one.variant}: {one.because}" for one in skipped if wanted in {None, one.variant})
    if wanted is not None and wanted not in manifest.variants:
        reasons = f"it has no variant {shown(wanted)}, only {', '.join(manifest.variants)}"
    return InferenceError(
        f"serve {manifest.name} {manifest.version}",
        f"none of its variants works here ({reasons})",
        remedy,
        code=NO_VARIANT,
    )
