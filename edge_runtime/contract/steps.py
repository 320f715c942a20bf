"""The preprocessing and postprocessing vocabulary: each step typed, nothing that changes numbers has a default.

A manifest carries steps as plain objects, so that an unknown step spoils one release or variant with a
reason instead of making the whole document unreadable; `parse_preprocess` and `parse_postprocess` type them.
"""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec

from edge_runtime.contract.errors import ContractError, UnsupportedFeature
from edge_runtime.contract.ids import shown

RawStep = dict[str, object]
"""One step as the manifest carries it: `op` and the fields of that operation."""

Color = Literal["rgb", "bgr", "gray"]
Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
"""At least one, and no more than memory can be taken for."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Preparing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    """What all preprocessing steps say."""

    id: str
    """Named by `absorbs` in a variant's `io`."""
    from_: str | None = msgspec.field(name="from", default=None)
    """Public input the chain starts from; only on the first step."""


class Decode(Preparing, frozen=True, kw_only=True, tag="decode"):
    """Encoded image bytes (or an array) to uint8 HWC."""

    color: Color
    exif: Literal["apply", "ignore"]
    reduced: Literal["never", "exact_scale", "allowed"]
    formats: list[str] = []


class Resize(Preparing, frozen=True, kw_only=True, tag="resize"):
    """Image to a fixed size; `antialias` true is Pillow's filter, false OpenCV's."""

    mode: Literal["stretch", "fit_pad", "fit_crop", "shortest_side", "none"]
    size: tuple[Count, Count]
    """Height, width."""
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos", "area"]
    antialias: bool
    pad_value: list[float] | None = None
    pad_anchor: Literal["center", "top_left"] | None = None
    stride: int | None = None
    tolerance_lsb: int = 0


class Crop(Preparing, frozen=True, kw_only=True, tag="crop"):
    """Cut a window out of an image."""

    mode: Literal["center", "boxes"]
    size: tuple[Count, Count] | None = None
    margin: float | None = None


class ColorStep(Preparing, frozen=True, kw_only=True, tag="color"):
    """Change the colour order or reduce to grey."""

    to: Color


class Normalize(Preparing, frozen=True, kw_only=True, tag="normalize"):
    """y = (x · scale − mean) / std, per channel; all in units of the value after `scale`."""

    scale: float
    mean: list[float]
    std: list[float]


class Layout(Preparing, frozen=True, kw_only=True, tag="layout"):
    """Permute axes."""

    to: Literal["NCHW", "NHWC", "CHW", "HWC", "NT", "NTC"]


class Cast(Preparing, frozen=True, kw_only=True, tag="cast"):
    """Change the dtype with a stated rounding."""

    dtype: str
    rounding: Literal["half_even", "floor"]
    saturate: bool


class Tokenize(Preparing, frozen=True, kw_only=True, tag="tokenize"):
    """Text to token ids; needs the feature `tokenizer`."""

    tokenizer: str
    max_length: int
    padding: str
    truncation: str
    outputs: list[str]


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    """What all postprocessing steps say."""

    from_: str = msgspec.field(name="from")
    """Canonical tensor (or the result of an earlier step) this reads."""


class TopK(Reading, frozen=True, kw_only=True, tag="top_k"):
    """Best classes with their scores."""

    activation: Literal["none", "softmax", "sigmoid"]
    k: int
    min_score: float = 0.0
    ignore: list[int] = []
    labels_offset: int = 0


class Detect(Reading, frozen=True, kw_only=True, tag="detect"):
    """Raw detector tensors to scored boxes; `from` names the boxes, or the one tensor that holds everything."""

    family: Literal[
        "tflite_postprocess",
        "ssd_priors",
        "ultraface",
        "ultraface_raw",
        "fastestdet",
        "yolo_v5",
        "yolo_v8",
        "yolox",
        "raw",
    ]
    score: str
    """`cls`, `obj*cls` or `obj^a*cls^b`."""
    activation: Literal["none", "softmax", "sigmoid"]
    box_format: Literal["xyxy", "yxyx", "cxcywh", "ltrb", "offsets"]
    box_units: Literal["normalized", "input_px", "grid"]
    min_score: float
    max: Count
    """Most objects that an answer holds."""
    scores: str | None = None
    """Canonical tensor of class scores, where they are no part of `from`."""
    classes: str | None = None
    """Canonical tensor of class indices, where the model chose the class itself."""
    count: str | None = None
    """Canonical tensor that says how many boxes are valid."""
    strides: list[Count] = []
    """Input pixels per cell of each grid, finest first."""
    anchors: str | None = None
    anchor_sizes: list[list[float]] = []
    """For each stride, sides of its square priors in input pixels."""
    priors: str | None = None
    """`layer:<title>` of a .npy, float32 [A, 4]: centre x, centre y, width, height, normalised."""
    variances: list[float] = []
    """Of the centre, of the size."""


class Nms(Reading, frozen=True, kw_only=True, tag="nms"):
    """Non-maximum suppression of what `from` names, an earlier step; boxes leave as xyxy pixels of the caller's image.

    `soft` is the linear form: a box that overlaps a better one by more than `iou` keeps 1 − overlap of its score.
    """

    iou: Share
    per_class: bool
    kind: Literal["hard", "soft"]
    in_graph: bool


class Segment(Reading, frozen=True, kw_only=True, tag="segment"):
    """Per-pixel classes."""

    source: Literal["logits", "classmap"]
    resize_to: Literal["input", "original"]
    axis: int | None = None
    """Axis of the classes, the batch axis being 0; needed for logits."""
    ignore: list[int] = []
    """Classes that a summary leaves out."""


class Reconstruction(Reading, frozen=True, kw_only=True, tag="reconstruction"):
    """Distance between input and reconstruction (anomaly score)."""

    metric: Literal["mse", "mae"]
    over: str
    """Canonical input tensor that was to be reconstructed."""
    aggregate: Literal["mean", "max"]
    """Over the windows of one sample."""
    threshold: float | None = None


class Hysteresis(Reading, frozen=True, kw_only=True, tag="hysteresis"):
    """Scores over time to segments."""

    on: float
    off: float
    min_on_ms: float
    min_off_ms: float
    pad_ms: float


class Score(Reading, frozen=True, kw_only=True, tag="score"):
    """One number between 0 and 1."""


class Regression(Reading, frozen=True, kw_only=True, tag="regression"):
    """Numbers with a unit."""

    unit: str
    scale: float


class Embedding(Reading, frozen=True, kw_only=True, tag="embedding"):
    """A vector, optionally of unit length."""

    normalise: Literal["none", "l2"]


class RawTensor(Reading, frozen=True, kw_only=True, tag="raw"):
    """The canonical tensor as it is."""


if TYPE_CHECKING:
    from edge_runtime.contract.sound_steps import Amplitude, Dct, Frame, Log, Mel, Mono, Resample, Stack, Stft
    from edge_runtime.contract.table_steps import Columns, Relative, Standardize

    PreStep: TypeAlias = (
        Decode | Resize | Crop | ColorStep | Normalize | Layout | Cast | Tokenize | Resample | Mono | Amplitude | Frame
        | Stft | Mel | Log | Dct | Stack | Columns | Standardize | Relative
    )  # fmt: skip
    PostStep: TypeAlias = (
        TopK | Detect | Nms | Segment | Reconstruction | Hysteresis | Score | Regression | Embedding | RawTensor
    )  # fmt: skip
else:
    PreStep, PostStep = Preparing, Reading

_SOUNDS: Final = "edge_runtime.contract.sound_steps"
_TABLES: Final = "edge_runtime.contract.table_steps"
# By operation: msgspec looks into the types of those steps alone that a release takes, and whoever asks about pictures
# waits for no steps on sounds.
PREPROCESS: Final[Mapping[str, type[Preparing] | str]] = {
    "decode": Decode, "resize": Resize, "crop": Crop, "color": ColorStep, "normalize": Normalize, "layout": Layout,
    "cast": Cast, "tokenize": Tokenize,
    "resample": f"{_SOUNDS}:Resample", "mono": f"{_SOUNDS}:Mono", "amplitude": f"{_SOUNDS}:Amplitude",
    "frame": f"{_SOUNDS}:Frame", "stft": f"{_SOUNDS}:Stft", "mel": f"{_SOUNDS}:Mel", "log": f"{_SOUNDS}:Log",
    "dct": f"{_SOUNDS}:Dct", "stack": f"{_SOUNDS}:Stack",
    "columns": f"{_TABLES}:Columns", "standardize": f"{_TABLES}:Standardize", "relative": f"{_TABLES}:Relative",
}  # fmt: skip
"""Types of preprocessing steps by operation, some as `module:Class`."""
POSTPROCESS: Final[Mapping[str, type[Reading]]] = {
    "top_k": TopK, "detect": Detect, "nms": Nms, "segment": Segment, "reconstruction": Reconstruction,
    "hysteresis": Hysteresis, "score": Score, "regression": Regression, "embedding": Embedding, "raw": RawTensor,
}  # fmt: skip
"""Types of postprocessing steps by operation."""


def parse_preprocess(steps: list[RawStep]) -> tuple[PreStep, ...]:
    """Type the steps that turn a public input into a canonical tensor.

    Raises:
        UnsupportedFeature: an operation, or a value of one of its enums, that this reader does not know.
        ContractError: a known operation with missing or mistyped fields.
    """
    return tuple(_parse(step, PREPROCESS, "preprocess") for step in steps)


def parse_postprocess(steps: list[RawStep]) -> tuple[PostStep, ...]:
    """Type the steps that turn canonical tensors into an answer. Raises: as `parse_preprocess`."""
    return tuple(_parse(step, POSTPROCESS, "postprocess") for step in steps)


def raw_steps(steps: tuple[PreStep, ...] | tuple[PostStep, ...]) -> list[RawStep]:
    """Typed steps as a manifest carries them."""
    # Through JSON, so that a manifest just built equals the same manifest read back (tuples become lists).
    decoded: list[RawStep] = msgspec.json.decode(msgspec.json.encode(steps))
    return decoded


def op_of(step: PreStep | PostStep) -> str:
    """The operation of a step, as manifests name it."""
    return str(type(step).__struct_config__.tag)


def _parse(step: RawStep, known: Mapping[str, type[msgspec.Struct] | str], where: str) -> Any:  # of a known type
    op = step.get("op")
    kind = known.get(op) if isinstance(op, str) else None
    if isinstance(kind, str):
        module, _, name = kind.partition(":")
        kind = getattr(import_module(module), name)
    if kind is None:
        raise UnsupportedFeature(f"run {where} step {shown(op)}", "this runtime does not know it", "update the runtime")
    try:
        return msgspec.convert(step, type=kind)
    except msgspec.ValidationError as error:
        if "Invalid enum value" in str(error):
            from edge_runtime.contract.choices import with_choices  # rarely needed, and slow to import

            because = shown(with_choices(str(error), kind), 300)
            raise UnsupportedFeature(f"run {where} step {op}", because, "update the runtime") from error
        raise ContractError(f"read {where} step {op}", shown(str(error), 200), "write the field it names") from error
