"""The preprocessing and postprocessing vocabulary: each step typed, nothing that changes numbers has a default.

A manifest carries steps as plain objects, so that an unknown step spoils one release or variant with a
reason instead of making the whole document unreadable; `parse_preprocess` and `parse_postprocess` type them.
"""

# No `from __future__ import annotations`: msgspec would read the types from text at first use, ten times as slowly.

from typing import Annotated, Final, Literal, TypeVar, Union

import msgspec

from edge_runtime.contract.errors import ContractError, UnsupportedFeature
from edge_runtime.contract.ids import shown

RawStep = dict[str, object]
"""One step as the manifest carries it: `op` and the fields of that operation."""

Color = Literal["rgb", "bgr", "gray"]
Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
"""At least one, and no more than memory can be taken for."""
Band = Annotated[int, msgspec.Meta(ge=1, le=1 << 13)]
"""Bands, coefficients or frames of which a matrix is made."""
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class _Pre(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    id: str
    """Named by `absorbs` in a variant's `io`."""
    from_: str | None = msgspec.field(name="from", default=None)
    """Public input the chain starts from; only on the first step."""


class Decode(_Pre, frozen=True, kw_only=True, tag="decode"):
    """Encoded image bytes (or an array) to uint8 HWC."""

    color: Color
    exif: Literal["apply", "ignore"]
    reduced: Literal["never", "exact_scale", "allowed"]
    formats: list[str] = []


class Resize(_Pre, frozen=True, kw_only=True, tag="resize"):
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


class Crop(_Pre, frozen=True, kw_only=True, tag="crop"):
    """Cut a window out of an image."""

    mode: Literal["center", "boxes"]
    size: tuple[Count, Count] | None = None
    margin: float | None = None


class ColorStep(_Pre, frozen=True, kw_only=True, tag="color"):
    """Change the colour order or reduce to grey."""

    to: Color


class Normalize(_Pre, frozen=True, kw_only=True, tag="normalize"):
    """y = (x · scale − mean) / std, per channel; all in units of the value after `scale`."""

    scale: float
    mean: list[float]
    std: list[float]


class Layout(_Pre, frozen=True, kw_only=True, tag="layout"):
    """Permute axes."""

    to: Literal["NCHW", "NHWC", "CHW", "HWC", "NT", "NTC"]


class Cast(_Pre, frozen=True, kw_only=True, tag="cast"):
    """Change the dtype with a stated rounding."""

    dtype: str
    rounding: Literal["half_even", "floor"]
    saturate: bool


class Resample(_Pre, frozen=True, kw_only=True, tag="resample"):
    """Audio to another sample rate."""

    rate_hz: Count
    quality: str


class Mono(_Pre, frozen=True, kw_only=True, tag="mono"):
    """Average audio channels into one."""


class Amplitude(_Pre, frozen=True, kw_only=True, tag="amplitude"):
    """Scale audio amplitudes."""

    mode: Literal["none", "int16_to_unit", "peak", "rms"]


class Frame(_Pre, frozen=True, kw_only=True, tag="frame"):
    """Cut audio into overlapping frames of samples."""

    length: Count
    hop: Count
    tail: Literal["drop", "pad_zero", "reflect"]
    context: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] = 0


class Stft(_Pre, frozen=True, kw_only=True, tag="stft"):
    """Short-time Fourier transform magnitudes (`power` 1) or powers (2) of frames, zero-padded to `fft` samples."""

    fft: Annotated[int, msgspec.Meta(ge=2, le=1 << 16)]
    window: Literal["hann_periodic", "hann_symmetric", "hamming"]
    center: bool
    """Frames were centred on every `hop`-th sample, from the first one on; the `tail` says what lies outside.

    A frame shorter than `fft` lies in the middle of it, as torch.stft and librosa.stft place a short window.
    """
    power: Literal[1, 2]


class Mel(_Pre, frozen=True, kw_only=True, tag="mel"):
    """Mel filter bank: triangles that are linear in Hz, as librosa and torchaudio build them."""

    bins: Band
    fmin_hz: float
    fmax_hz: float
    scale: Literal["htk", "slaney"]
    norm: Literal["none", "slaney"]


class Log(_Pre, frozen=True, kw_only=True, tag="log"):
    """Logarithm with an explicit offset (`add`) or floor; `db` is 10 · log10(x / ref)."""

    kind: Literal["ln", "log10", "db"]
    add: float | None = None
    floor: float | None = None
    ref: float | None = None


class Dct(_Pre, frozen=True, kw_only=True, tag="dct"):
    """Discrete cosine transform, type 2, orthonormal; keeps the first `keep` coefficients."""

    type: Literal[2]
    norm: Literal["ortho"]
    keep: Band


class Stack(_Pre, frozen=True, kw_only=True, tag="stack"):
    """Concatenate neighbouring feature frames."""

    frames: Band
    hop: Count


class Columns(_Pre, frozen=True, kw_only=True, tag="columns"):
    """Named table columns to one numeric vector."""

    names: list[str]
    dtype: str
    missing: Literal["error", "mean", "value", "keep"]
    """What an empty cell is: refused, filled with a mean or a value, or NaN that the model itself fills in."""
    value: float | None = None
    """Stands in for a missing number with `missing` value."""
    means: list[float] = []
    """One per column, with `missing` mean."""


class Standardize(_Pre, frozen=True, kw_only=True, tag="standardize"):
    """y = (x − mean) / std, per column."""

    mean: list[float]
    std: list[float]


class Relative(_Pre, frozen=True, kw_only=True, tag="relative"):
    """Coordinates relative to one point, scaled by the largest magnitude."""

    origin: int
    """Index of the point that becomes zero."""
    scale: Literal["max_abs", "none"]
    coordinates: int | None = None
    """Numbers per point, where they lie in one row; None: the last axis is a point."""


class Tokenize(_Pre, frozen=True, kw_only=True, tag="tokenize"):
    """Text to token ids; needs the feature `tokenizer`."""

    tokenizer: str
    max_length: int
    padding: str
    truncation: str
    outputs: list[str]


class _Post(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    from_: str = msgspec.field(name="from")
    """Canonical tensor (or the result of an earlier step) this reads."""


class TopK(_Post, frozen=True, kw_only=True, tag="top_k"):
    """Best classes with their scores."""

    activation: Literal["none", "softmax", "sigmoid"]
    k: int
    min_score: float = 0.0
    ignore: list[int] = []
    labels_offset: int = 0


class Detect(_Post, frozen=True, kw_only=True, tag="detect"):
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


class Nms(_Post, frozen=True, kw_only=True, tag="nms"):
    """Non-maximum suppression of what `from` names, an earlier step; boxes leave as xyxy pixels of the caller's image.

    `soft` is the linear form: a box that overlaps a better one by more than `iou` keeps 1 − overlap of its score.
    """

    iou: Share
    per_class: bool
    kind: Literal["hard", "soft"]
    in_graph: bool


class Segment(_Post, frozen=True, kw_only=True, tag="segment"):
    """Per-pixel classes."""

    source: Literal["logits", "classmap"]
    resize_to: Literal["input", "original"]
    axis: int | None = None
    """Axis of the classes, the batch axis being 0; needed for logits."""
    ignore: list[int] = []
    """Classes that a summary leaves out."""


class Reconstruction(_Post, frozen=True, kw_only=True, tag="reconstruction"):
    """Distance between input and reconstruction (anomaly score)."""

    metric: Literal["mse", "mae"]
    over: str
    """Canonical input tensor that was to be reconstructed."""
    aggregate: Literal["mean", "max"]
    """Over the windows of one sample."""
    threshold: float | None = None


class Hysteresis(_Post, frozen=True, kw_only=True, tag="hysteresis"):
    """Scores over time to segments."""

    on: float
    off: float
    min_on_ms: float
    min_off_ms: float
    pad_ms: float


class Score(_Post, frozen=True, kw_only=True, tag="score"):
    """One number between 0 and 1."""


class Regression(_Post, frozen=True, kw_only=True, tag="regression"):
    """Numbers with a unit."""

    unit: str
    scale: float


class Embedding(_Post, frozen=True, kw_only=True, tag="embedding"):
    """A vector, optionally of unit length."""

    normalise: Literal["none", "l2"]


class RawTensor(_Post, frozen=True, kw_only=True, tag="raw"):
    """The canonical tensor as it is."""


PreStep = Union[  # noqa: UP007 (msgspec resolves it at run time on 3.10)
    Decode, Resize, Crop, ColorStep, Normalize, Layout, Cast, Resample, Mono, Amplitude, Frame, Stft, Mel, Log, Dct,
    Stack, Columns, Standardize, Relative, Tokenize,
]  # fmt: skip
PostStep = Union[  # noqa: UP007
    TopK, Detect, Nms, Segment, Reconstruction, Hysteresis, Score, Regression, Embedding, RawTensor
]

# By operation, so that msgspec looks into the types of those steps alone that a release takes.
_PRE: Final[dict[str, type[PreStep]]] = {kind.__struct_config__.tag: kind for kind in PreStep.__args__}  # type: ignore[attr-defined]
_POST: Final[dict[str, type[PostStep]]] = {kind.__struct_config__.tag: kind for kind in PostStep.__args__}  # type: ignore[attr-defined]
_StepT = TypeVar("_StepT")


def parse_preprocess(steps: list[RawStep]) -> tuple[PreStep, ...]:
    """Type the steps that turn a public input into a canonical tensor.

    Raises:
        UnsupportedFeature: an operation, or a value of one of its enums, that this reader does not know.
        ContractError: a known operation with missing or mistyped fields.
    """
    return tuple(_parse(step, _PRE, "preprocess") for step in steps)


def parse_postprocess(steps: list[RawStep]) -> tuple[PostStep, ...]:
    """Type the steps that turn canonical tensors into an answer. Raises: as `parse_preprocess`."""
    return tuple(_parse(step, _POST, "postprocess") for step in steps)


def raw_steps(steps: tuple[PreStep, ...] | tuple[PostStep, ...]) -> list[RawStep]:
    """Typed steps as a manifest carries them."""
    # Through JSON, so that a manifest just built equals the same manifest read back (tuples become lists).
    decoded: list[RawStep] = msgspec.json.decode(msgspec.json.encode(steps))
    return decoded


def _parse(step: RawStep, known: dict[str, type[_StepT]], where: str) -> _StepT:
    op = step.get("op")
    kind = known.get(op) if isinstance(op, str) else None
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
