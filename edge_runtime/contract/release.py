"""ReleaseManifest (what a model promises) and VariantManifest (one build of it)."""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

from typing import Final, Literal

import msgspec

from edge_runtime.contract.codec import SCHEMA, Document, decode
from edge_runtime.contract.digest import Digest, parse_digest
from edge_runtime.contract.errors import ContractError, UnsupportedFeature
from edge_runtime.contract.ids import (
    LayerName,
    ModelName,
    VariantId,
    Version,
    parse_layer_name,
    parse_model_name,
    parse_variant_id,
    parse_version,
    shown,
)
from edge_runtime.contract.steps import RawStep
from edge_runtime.contract.target import Target
from edge_runtime.contract.tensor import Signature, TensorSpec

Scalar = str | int | float | bool | None

GOLDEN_MAX_BYTES: Final = 4 * 1024 * 1024
KNOWN_FEATURES: Final = frozenset({"states", "stream", "audio.mel"})
"""Features this reader can honour; `tokenizer`, `pipeline`, `bundle` and `encrypted` are reserved."""

_LAYER_PREFIX: Final = "layer:"
_READING: Final = ("from", "scores", "classes", "count", "over")
"""Fields of postprocessing steps that name a canonical tensor."""


class Licence(Document, frozen=True, kw_only=True):
    """Under which terms the weights may be used; `unknown` is said loudly wherever it is shown."""

    spdx: str
    attribution: str | None = None
    model_card: str | None = None


class Source(Document, frozen=True, kw_only=True):
    """The trained model this release was made from."""

    digest: Digest
    format: str
    uri: str | None = None
    opset: int | None = None


class Calibration(Document, frozen=True, kw_only=True):
    """The data that set the quantisation ranges."""

    digest: Digest
    count: int
    name: str | None = None
    """Folder or file name as the engineer gave it, without its path."""


class Waiver(Document, frozen=True, kw_only=True):
    """A defence that someone switched off when building this release; shown wherever the release is."""

    check: str
    """`accuracy_gate`, `golden`."""
    detail: str


class GoldenCheck(Document, frozen=True, kw_only=True):
    """One threshold; comes from the recipe, never from the candidate that is judged by it."""

    against: Literal["own", "float", "truth"]
    """`own`: is this silicon right?  `float`: is this variant good?  `truth`: is this model good?"""
    metric: str
    """On a tensor: `snr_db`, `max_abs`, `cosine`, `top1`. On the answer: `top1`, `box_agreement`, `pixel_agreement`,
    `segment_iou`.

    Against truth: `top1`, `top5`, `box_f1`, `mean_iou`, `r2`, `mae`, `auc`. A reader refuses what it does not know.
    """
    on: str | None = None
    """Canonical tensor the metric is computed on; None for task metrics on the answer."""
    min: float | None = None
    max: float | None = None


class GoldenSpec(Document, frozen=True, kw_only=True):
    """A small proof of sanity, not an accuracy measurement."""

    layer: str
    count: int
    contains_personal_data: bool
    checks: list[GoldenCheck]
    stored: str = "decoded"
    """Inputs after `decode`, of one sample (`decoded`) or of all that one session hears (`sequence`)."""
    max_bytes: int = GOLDEN_MAX_BYTES


class StateSpec(Document, frozen=True, kw_only=True):
    """A tensor that one call hands to the next."""

    name: str
    init: str
    in_: str | None = msgspec.field(name="in", default=None)
    out: str | None = None
    dtype: str | None = None
    shape: list[int | str] = []
    of_step: str | None = None


class StreamSpec(Document, frozen=True, kw_only=True):
    """How a stateful model meets an endless input."""

    unit: str
    session: str
    reset: list[str] = []
    gap_ms: float | None = None
    idle_ms: float | None = None
    max_sessions: int | None = None
    on_swap: str = "drain"


class ReferenceScore(Document, frozen=True, kw_only=True):
    """What the source model scores on the evaluation set."""

    metric: str
    value: float
    count: int
    evaluation: Digest | None = None
    ci95: list[float] | None = None


class Limits(Document, frozen=True, kw_only=True):
    """Bounds by profile id, family alias or `*`, in that order of precedence."""

    latency_p95_ms: dict[str, float] = {}
    max_drop: dict[str, float] = {}
    min_agreement: dict[str, float] = {}
    """Without labels: with the source model, by the task's own measure; never called a drop."""
    min_snr_db: dict[str, float] = {}
    """Without labels: answers against the source model's."""


class ReleaseManifest(Document, frozen=True, kw_only=True):
    """One version of one model: signature, pre- and postprocessing, golden set, limits; no engine in it."""

    schema: str = SCHEMA
    kind: str
    name: ModelName
    version: Version
    task: str
    requires: list[str]
    licence: Licence
    source: Source
    signature: Signature
    tensors: dict[str, TensorSpec]
    preprocess: dict[str, list[RawStep]]
    postprocess: dict[str, list[RawStep]]
    variants: list[VariantId]
    golden: GoldenSpec | None = None
    states: list[StateSpec] = []
    stream: StreamSpec | None = None
    recipe: Digest | None = None
    calibration: Calibration | None = None
    reference: ReferenceScore | None = None
    limits: Limits = Limits()
    waivers: list[Waiver] = []

    @property
    def is_sequential(self) -> bool:
        """Whether calls depend on the calls before them."""
        return bool(self.states) or self.stream is not None


class FileEntry(Document, frozen=True, kw_only=True):
    """One file of a variant: its role and the layer that carries it."""

    role: str
    """`model`, `weights`, `build_input`."""
    layer: LayerName
    digest: Digest
    size: int
    chunks: list[Digest] = []
    """Digests of consecutive 1 MiB pieces, for files over 1 MiB."""


class ModelFormat(Document, frozen=True, kw_only=True):
    """Versions of the model file's own format."""

    opset: int | None = None
    ir: int | None = None
    typing: str | None = None


class EngineRequirement(Document, frozen=True, kw_only=True):
    """Which engine runs the variant, and the options without which it is wrong."""

    version: str | None = None
    """PEP 440 style range (`>=1.17,<2`)."""
    format: ModelFormat | None = None
    options: dict[str, Scalar] = {}
    edgetpu_runtime: str | None = None


class TensorBinding(Document, frozen=True, kw_only=True):
    """Which tensor of the file carries a canonical tensor, and what the graph already does."""

    tensor: str | int
    dtype: str
    layout: str | None = None
    scale: float | None = None
    zero_point: int | None = None
    absorbs: list[str] = []
    """Ids of trailing preprocessing steps that the graph or its input quantisation already performs.

    An int8 tensor that absorbs the steps of a uint8 picture takes the picture minus 128.
    """
    exact: bool = True


class TensorMap(Document, frozen=True, kw_only=True):
    """Canonical names to tensors of the file."""

    inputs: dict[str, TensorBinding]
    outputs: dict[str, TensorBinding]


class BatchSpec(Document, frozen=True, kw_only=True):
    """How many samples one call may carry."""

    max: int
    dynamic: bool


class Resources(Document, frozen=True, kw_only=True):
    """Memory one instance needs, and how that was found out."""

    peak_bytes: int
    method: str


class Quantisation(Document, frozen=True, kw_only=True):
    """How the weights and activations were quantised."""

    tool: str
    granularity: str
    overflow_safe: bool | None = None
    reduce_range: bool | None = None
    calibration: str | None = None
    """Digest of the examples that set the ranges."""
    scheme: str | None = None
    """`static` or `dynamic`."""
    weights: str | None = None
    activations: str | None = None
    """Number types, `int8`, `uint8`, `int16`, `uint16`."""
    symmetric: bool | None = None
    ranges: str | None = None
    """How examples became ranges: `minmax`, `entropy`, `percentile`."""
    excluded: list[str] = []
    """Nodes left in float."""


class BuildPlan(Document, frozen=True, kw_only=True):
    """What the device must build before it can run the variant."""

    where: str
    timeout_s: float
    peak_bytes: int
    flags: list[str] = []
    workspace_bytes: int | None = None
    cache_key: list[str] = []
    profiles: list[dict[str, dict[str, list[int]]]] = []
    timing_cache: str | None = None
    dla: int | None = None
    shareable: str | None = None


class Compiled(Document, frozen=True, kw_only=True):
    """What an accelerator's compiler said."""

    compiler: str
    mapped: int
    unmapped: int
    on_chip_bytes: int | None = None
    off_chip_bytes: int | None = None
    bundle: Digest | None = None
    members: list[VariantId] = []
    order: int | None = None


class Encryption(Document, frozen=True, kw_only=True):
    """Reserved: how the weights are encrypted (feature `encrypted`)."""

    scheme: str
    key_id: str
    wrapped_for: str


class VariantManifest(Document, frozen=True, kw_only=True):
    """One build of a release: target, files, engine options and tensor mapping; never a measurement."""

    schema: str = SCHEMA
    id: VariantId
    requires: list[str]
    target: Target
    files: list[FileEntry]
    io: TensorMap
    engine: EngineRequirement = EngineRequirement()
    batch: BatchSpec = BatchSpec(max=1, dynamic=False)
    resources: Resources | None = None
    quantisation: Quantisation | None = None
    golden_own: str | None = None
    """`layer:own.npz`, or None when the variant's own emulation equals the float reference."""
    fallback: VariantId | None = None
    build: BuildPlan | None = None
    compiled: Compiled | None = None
    encryption: Encryption | None = None


def read_release(content: bytes) -> ReleaseManifest:
    """Read and check a release manifest.

    Raises:
        UnsupportedFeature: another major version, or a required feature this reader does not know.
        ContractError: anything else that breaks the contract.
    """
    manifest = decode(content, ReleaseManifest)
    parse_model_name(manifest.name)
    parse_version(manifest.version)
    check_requires(manifest.requires, f"use release {manifest.name} {manifest.version}")
    if not manifest.variants:
        raise ContractError(f"use release {manifest.name} {manifest.version}", "it has no variants")
    for variant in manifest.variants:
        parse_variant_id(variant)
    if len(set(manifest.variants)) != len(manifest.variants):
        raise ContractError(f"use release {manifest.name} {manifest.version}", "it lists a variant twice")
    if missing := sorted(set(manifest.tensors) - set(manifest.preprocess) - _fed_or_produced(manifest)):
        raise ContractError(
            f"use release {manifest.name} {manifest.version}", f"nothing feeds or reads tensor {missing[0]!r}"
        )
    return manifest


def read_variant(content: bytes) -> VariantManifest:
    """Read and check a variant manifest. Unknown `requires` are left to the caller: they disable only this variant.

    Raises:
        ContractError: it breaks the contract.
    """
    manifest = decode(content, VariantManifest)
    parse_variant_id(manifest.id)
    for entry in manifest.files:
        parse_layer_name(entry.layer)
        parse_digest(entry.digest)
        if entry.size < 0:
            raise ContractError(f"use variant {manifest.id}", f"file {entry.layer} has a negative size")
    if not manifest.files:
        raise ContractError(f"use variant {manifest.id}", "it has no files")
    return manifest


def check_requires(requires: list[str], what: str) -> None:
    """Refuse features this reader does not know. Raises: UnsupportedFeature naming the first."""
    for feature in requires:
        if feature not in KNOWN_FEATURES:
            raise UnsupportedFeature(what, f"it requires {shown(feature)}", "update the runtime on this device")


def layer_of(reference: str) -> LayerName:
    """The layer title behind a `layer:<title>` reference. Raises: ContractError."""
    if not reference.startswith(_LAYER_PREFIX):
        raise ContractError(f"resolve {shown(reference)}", "references look like layer:<title>")
    return parse_layer_name(reference.removeprefix(_LAYER_PREFIX))


def reference_to(title: LayerName) -> str:
    """The `layer:<title>` reference to a layer."""
    return _LAYER_PREFIX + title


def limit_for(limits: dict[str, float], profile: str | None, aliases: tuple[str, ...] = ()) -> float | None:
    """The bound that applies: profile before alias before `*`; None when there is none."""
    for key in (profile, *aliases, "*"):
        if key is not None and key in limits:
            return limits[key]
    return None


def _fed_or_produced(manifest: ReleaseManifest) -> set[str]:
    read = {str(step.get(key)) for steps in manifest.postprocess.values() for step in steps for key in _READING}
    raw = {output.raw for output in manifest.signature.outputs if output.raw}
    states = {name for state in manifest.states for name in (state.in_, state.out) if name}
    constants = {name for name, tensor in manifest.tensors.items() if tensor.constant is not None}
    return read | raw | states | constants
