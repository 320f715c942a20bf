"""An open release: picks the variant for this machine, checks every byte, and answers.

No engine sees a byte whose digest was not checked; what was checked in memory is what is handed on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, final

from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.golden import GOLDEN_MAX_BYTES
from edge_runtime.contract.ids import LayerName, VariantId, parse_layer_name, shown
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
from edge_runtime.inference.arrays import ARCHIVE_MAX_BYTES, read_npy
from edge_runtime.inference.backend import BACKENDS, Array, BackendOptions, Registry, Tensors
from edge_runtime.inference.facts import engines, machine_facts
from edge_runtime.inference.golden import GoldenSet, load_own, run_golden, unpack_golden
from edge_runtime.inference.postprocess import parse_labels
from edge_runtime.inference.predictor import Predictor, load_predictor
from edge_runtime.inference.preprocess import Inputs
from edge_runtime.inference.results import Answer
from edge_runtime.inference.states import STATELESS

if TYPE_CHECKING:
    from edge_runtime.inference.streams import ModelSession, Sessions

LABELS_MAX_BYTES: Final = 4 * 1024 * 1024


@final
@dataclass(frozen=True, slots=True)
class Model:
    """A release with one variant loaded; use it as a context manager, one caller at a time."""

    release: OpenRelease
    variant: OpenVariant
    predictor: Predictor
    sessions: Sessions | None
    """Streams that are open; None for a model that keeps nothing between calls."""
    skipped: tuple[Rejected, ...]
    """Variants that were better placed or misfits, and why they were not taken."""
    _source: BlobSource

    def __repr__(self) -> str:
        """Which release and which build; what it holds would fill pages."""
        manifest = self.release.manifest
        return f"<Model {manifest.name}:{manifest.version}, variant {self.variant.manifest.id}>"

    @classmethod
    def open(
        cls,
        release: Path | str | tuple[OpenRelease, BlobSource],
        *,
        variant: str | None = None,
        threads: int | None = None,
        backends: Collection[str] | None = None,
        facts: DeviceFacts | None = None,
        registry: Registry = BACKENDS,
    ) -> Model:
        """Open a release and load the best variant for this machine; falls through to the next when one fails to load.

        Args:
            release: folder of an OCI layout, or a release already read and where its blobs are.
            variant: load exactly this one.
            threads: threads inside one call; None: as the variant says.
            backends: names of engines that may be used; None: all.
            facts: this device's facts; None: found out here, by constructing the engines that the release names.
            registry: backends by name.

        Raises:
            InferenceError: code `no_variant` or `load_failed`; no variant could be loaded, with all reasons.
            DigestMismatch: a file is not the promised one.
            ContractError: the release breaks the contract.
        """
        opened, source = _read_release(release)
        variants, skipped = _read_variants(opened, source, variant)
        usable = {name: registry[name] for name in registry if backends is None or name in backends}
        named = {one.manifest.target.engine for one in variants}
        choice = choose(
            tuple(OfferedVariant(one.digest, one.manifest) for one in variants),
            facts or machine_facts(engines(named, usable)),
        )
        skipped.extend(choice.rejected)
        labels = _read_labels(opened, source)
        arrays = _read_priors(opened, source)
        options = BackendOptions(threads=threads)
        by_digest = {one.digest: one for one in variants}
        for chosen in (by_digest[offered.digest] for offered in choice.candidates):
            files = _read_files(chosen, source)
            try:
                predictor = load_predictor(
                    opened.manifest,
                    chosen.manifest,
                    files,
                    labels=labels,
                    layers=arrays,
                    options=options,
                    registry=usable,
                )
            except (InferenceError, ContractError) as error:
                skipped.append(Rejected(chosen.manifest.id, error.code, str(error)))
                continue
            return cls(opened, chosen, predictor, _sessions(predictor), tuple(skipped), source)
        raise _nothing_loaded(opened.manifest, skipped, any_fitted=bool(choice.candidates))

    @property
    def release_digest(self) -> Digest:
        """Digest of the release."""
        return self.release.digest

    @property
    def variant_id(self) -> VariantId:
        """Name of the loaded variant."""
        return self.variant.manifest.id

    @property
    def variant_digest(self) -> Digest:
        """Digest of the loaded variant."""
        return self.variant.digest

    def infer(self, inputs: Inputs) -> Answer:
        """The answer to one sample, by public output name. Raises: InferenceError."""
        return self.predictor.infer(inputs)

    def infer_batch(self, inputs: Inputs) -> list[Answer]:
        """The answers to a batch, in order. Raises: InferenceError."""
        return self.predictor.infer_batch(inputs)

    def start_session(self) -> ModelSession:
        """A stream that this model hears from its beginning; sessions on different threads do not know of each other.

        Raises:
            InferenceError: codes `sessions_full`, `stateless`.
        """
        if self.sessions is None:
            because = "its calls do not depend on each other"
            raise InferenceError("start a session", because, "ask it with infer", code=STATELESS)
        return self.sessions.start()

    def run_canonical(self, feeds: Tensors) -> dict[str, Array]:
        """Canonical output tensors for what `predictor.preprocess` returns. Raises: InferenceError."""
        return self.predictor.run_canonical(feeds)

    def golden_set(self) -> GoldenSet | None:
        """The release's golden questions; None when it has none. Raises: ContractError, DigestMismatch."""
        spec = self.release.manifest.golden
        if spec is None:
            return None
        title = parse_layer_name(spec.layer)
        return unpack_golden(_read_layer(self._source, self.release.layers, title, GOLDEN_MAX_BYTES))

    def golden_check(self) -> list[CheckResult]:
        """Ask the release's golden set; empty when the release has none.

        Raises:
            InferenceError: the model cannot answer.
            ContractError: the golden set breaks the contract.
            DigestMismatch: it is not the promised one.
        """
        spec, golden = self.release.manifest.golden, self.golden_set()
        if spec is None or golden is None:
            return []
        own = None
        if reference := self.variant.manifest.golden_own:
            content = _read_layer(self._source, self.variant.layers, layer_of(reference), ARCHIVE_MAX_BYTES)
            own = load_own(content)
        return run_golden(self.predictor, golden, spec, own)

    def close(self) -> None:
        """End its sessions and free the engine's memory."""
        if self.sessions is not None:
            self.sessions.close()
        self.predictor.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def estimate_peak_bytes(variant: VariantManifest) -> int:
    """Memory that one instance needs: as the converter measured, else twice its files (content and engine's copy)."""
    if variant.resources is not None:
        return variant.resources.peak_bytes
    return 2 * sum(file.size for file in variant.files)


def _sessions(predictor: Predictor) -> Sessions | None:
    if predictor.sequencer is None:
        return None
    from edge_runtime.inference.streams import Sessions

    return Sessions(predictor.sequencer, predictor.run_once)


def _read_release(release: Path | str | tuple[OpenRelease, BlobSource]) -> tuple[OpenRelease, BlobSource]:
    if isinstance(release, tuple):
        return release
    folder = LayoutFolder(Path(release))
    return folder.open(), folder


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


def _read_labels(release: OpenRelease, source: BlobSource) -> dict[str, tuple[str, ...]]:
    return {
        output.name: parse_labels(_read_layer(source, release.layers, layer_of(output.labels), LABELS_MAX_BYTES))
        for output in release.manifest.signature.outputs
        if output.labels
    }


def _read_priors(release: OpenRelease, source: BlobSource) -> dict[str, Array]:
    """Arrays that detectors start from, by the reference that names their layer."""
    references = {
        str(step["priors"]) for steps in release.manifest.postprocess.values() for step in steps if step.get("priors")
    }
    return {
        reference: read_npy(
            _read_layer(source, release.layers, layer_of(reference), ARCHIVE_MAX_BYTES), f"layer {shown(reference)}"
        )
        for reference in sorted(references)
    }


def _read_files(variant: OpenVariant, source: BlobSource) -> Mapping[str, bytes]:
    files: dict[str, bytes] = {}
    for file in variant.manifest.files:
        if file.role in files:
            raise ContractError(f"open variant {variant.manifest.id}", f"two of its files have role {shown(file.role)}")
        files[file.role] = _read_layer(source, variant.layers, file.layer, FILE_MAX_BYTES)
    return files


def _read_layer(source: BlobSource, layers: Layers, title: LayerName, max_bytes: int) -> bytes:
    descriptor = layers.descriptor(title)
    if descriptor.size > max_bytes:
        raise ContractError(f"read layer {title}", f"{descriptor.size} bytes exceed {max_bytes}")
    return read_checked(source, descriptor, max_bytes=descriptor.size)


def _nothing_loaded(release: ReleaseManifest, skipped: list[Rejected], *, any_fitted: bool) -> InferenceError:
    reasons = "; ".join(f"{one.variant}: {one.because}" for one in skipped)
    return InferenceError(
        f"open release {release.name} {release.version}",
        f"none of its variants works here ({reasons})",
        "install one of the engines it names, or build the release for this machine",
        code=LOAD_FAILED if any_fitted else NO_VARIANT,
    )
