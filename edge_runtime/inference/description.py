"""What a release says about itself and what of it fits this machine: read from manifests, no model is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from edge_runtime.contract.digest import Digest, hex_of
from edge_runtime.contract.errors import ContractError, TrustError
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.layout import BlobSource, OpenRelease, OpenVariant, VariantEntry, open_variant
from edge_runtime.contract.release import GoldenSpec, ReferenceScore, ReleaseManifest, StateSpec, StreamSpec, Waiver
from edge_runtime.contract.tensor import AxisRange, InputSpec, OutputSpec
from edge_runtime.contract.variant_choice import OfferedVariant, choose
from edge_runtime.inference.backend import BACKENDS, Registry
from edge_runtime.inference.facts import engines, machine_facts
from edge_runtime.inference.opening import read_labels
from edge_runtime.inference.tuned import TunedFrom, applicable, read_choices, winner_of
from edge_runtime.inference.tuned_choice import TunedChoice
from edge_runtime.inference.tuned_settings import TunedSettings, settings_of


class Answered(msgspec.Struct, frozen=True):
    """One answer as an application receives it."""

    output: OutputSpec
    labels: int | None
    """How many there are; None where it has none."""


class Offered(msgspec.Struct, frozen=True):
    """One variant, and whether it can run here."""

    id: VariantId
    digest: Digest
    engine: str = ""
    """With the versions that will do; empty where its manifest cannot be read."""
    precision: str = ""
    providers: list[str] = []
    arch: list[str] = []
    size_bytes: int = 0
    batch_max: int = 1
    peak_bytes: int | None = None
    place: int | None = None
    """1 is what is opened first on this machine; None is not opened here."""
    because: str = ""
    """Why it is not."""
    tuned: TunedSettings | None = None
    """What it takes of what was tuned on this machine."""


class Signed(msgspec.Struct, frozen=True):
    """The model team's metadata beside a release, as it says itself: whether its keys are trusted is for devices."""

    file: str
    keys: list[str]
    """Their ids."""
    expires: str


class Description(msgspec.Struct, frozen=True):
    """A release at a glance."""

    name: str
    version: str
    digest: Digest
    task: str
    licence: str
    inputs: list[InputSpec]
    outputs: list[Answered]
    axes: dict[str, AxisRange]
    preprocess: dict[str, list[str]]
    """Names of the steps, by canonical tensor."""
    postprocess: dict[str, list[str]]
    """The same by output."""
    variants: list[Offered]
    """What fits first, best first."""
    states: list[StateSpec]
    stream: StreamSpec | None
    golden: GoldenSpec | None
    reference: ReferenceScore | None
    waivers: list[Waiver]
    signed: Signed | None
    """None where no metadata is known."""


def describe(
    release: OpenRelease,
    source: BlobSource,
    *,
    folder: Path | None = None,
    installed: VariantId | None = None,
    tuned: TunedFrom = None,
    registry: Registry = BACKENDS,
) -> Description:
    """Say what a release takes, answers and offers this machine.

    Args:
        release: its manifests.
        source: its files.
        folder: where it lies, if its team's metadata may stand beside it.
        installed: the variant that a device's agent chose: no other is opened there.
        tuned: where what `edge-runtime tune` found is taken from.
        registry: backends by name; those that its variants name are looked for, and no model is loaded.

    Raises:
        ContractError, DigestMismatch: a label list cannot be read.
    """
    manifest = release.manifest
    labels = read_labels(release, source)
    return Description(
        name=manifest.name,
        version=manifest.version,
        digest=release.digest,
        task=manifest.task,
        licence=manifest.licence.spdx,
        inputs=manifest.signature.inputs,
        outputs=[
            Answered(output, len(labels[output.name]) if output.name in labels else None)
            for output in manifest.signature.outputs
        ],
        axes=manifest.signature.axes,
        preprocess={name: [str(step.get("op")) for step in chain] for name, chain in manifest.preprocess.items()},
        postprocess={name: [str(step.get("op")) for step in chain] for name, chain in manifest.postprocess.items()},
        variants=_offered(release, source, registry, installed, read_choices(tuned)),
        states=manifest.states,
        stream=manifest.stream,
        golden=manifest.golden,
        reference=manifest.reference,
        waivers=manifest.waivers,
        signed=None if folder is None else _signed(folder, manifest, release.digest),
    )


def _offered(
    release: OpenRelease,
    source: BlobSource,
    registry: Registry,
    installed: VariantId | None,
    choices: Iterable[TunedChoice],
) -> list[Offered]:
    read = [_read(source, entry) for entry in release.index.variants]
    sound = {one.manifest.id: one for one in read if isinstance(one, OpenVariant)}
    broken = [one for one in read if isinstance(one, Offered)]
    targets = [one.manifest.target for one in sound.values()]
    providers = {name for target in targets for name in target.provider or ["cpu"]}
    facts = machine_facts(engines({target.engine for target in targets}, registry, providers=providers))
    tuned = applicable(choices, release.digest, facts)
    first = winner_of(tuned) if installed is None else sound[installed].digest if installed in sound else None
    choice = choose(tuple(OfferedVariant(one.digest, one.manifest) for one in sound.values()), facts, first)
    fitting = []
    for place, one in enumerate(choice.candidates, start=1):
        variant = sound[one.manifest.id]
        found = tuned.get(one.digest)
        settings = None if found is None else settings_of(release.manifest, variant, found)
        if installed in {None, one.manifest.id}:
            fitting.append(_offer(variant, place=place, tuned=settings))
        else:
            fitting.append(_offer(variant, because=f"it fits; the agent chose {installed}", tuned=settings))
    return [*fitting, *(_offer(sound[one.variant], because=one.because) for one in choice.rejected), *broken]


def _read(source: BlobSource, entry: VariantEntry) -> OpenVariant | Offered:
    try:
        return open_variant(source, entry)
    except ContractError as error:
        return Offered(entry.id, entry.digest, because=error.because)


def _offer(
    variant: OpenVariant, *, place: int | None = None, because: str = "", tuned: TunedSettings | None = None
) -> Offered:
    manifest = variant.manifest
    target = manifest.target
    return Offered(
        id=manifest.id,
        digest=variant.digest,
        engine=f"{target.engine} {manifest.engine.version or ''}".strip(),
        precision=target.precision,
        providers=target.provider,
        arch=target.arch,
        size_bytes=sum(file.size for file in manifest.files),
        batch_max=manifest.batch.max,
        peak_bytes=manifest.resources.peak_bytes if manifest.resources else None,
        place=place,
        because=because,
        tuned=tuned,
    )


def _signed(folder: Path, manifest: ReleaseManifest, digest: Digest) -> Signed | None:
    """What `edge-convert sign` wrote beside a release; None where it says nothing of this one."""
    try:
        from tuf.api.metadata import Targets

        from edge_runtime.trust import metadata as tuf
    except ModuleNotFoundError:
        # Whoever only asks models has no need of what checks signatures.
        return None
    path = folder.resolve().parent / f"{tuf.role_of(manifest.name)}.json"
    try:
        found = tuf.parse(path.read_bytes(), Targets, max_bytes=tuf.TARGETS_MAX_BYTES, what=path.name)
    except (OSError, TrustError):
        return None
    if hex_of(digest) not in {target.hashes.get("sha256") for target in found.signed.targets.values()}:
        return None
    return Signed(path.name, sorted(found.signatures), found.signed.expires.isoformat())
