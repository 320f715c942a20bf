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


class Preparing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    """What all preprocessing steps say."""

    id: str
    """Named by `absorbs` in a variant's `io`."""
    from_: str | None = msgspec.field(name="from", default=None)
    """Public input the chain starts from; only on the first step."""


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="op"):
    """What all postprocessing steps say."""

    from_: str = msgspec.field(name="from")
    """Canonical tensor (or the result of an earlier step) this reads."""

    @property
    def tensors(self) -> frozenset[str]:
        """All that it reads."""
        return frozenset({self.from_})


class RawTensor(Reading, frozen=True, kw_only=True, tag="raw"):
    """The canonical tensor as it is."""


if TYPE_CHECKING:
    from edge_runtime.contract.answer_steps import Embedding, Hysteresis, Regression, Score, TopK
    from edge_runtime.contract.image_steps import Cast, ColorStep, Crop, Decode, Layout, Normalize, Resize
    from edge_runtime.contract.question_steps import Detect, Nms, Reconstruction, Segment
    from edge_runtime.contract.sound_steps import Amplitude, Dct, Frame, Log, Mel, Mono, Resample, Stack, Stft
    from edge_runtime.contract.table_steps import Columns, Relative, Standardize
    from edge_runtime.contract.text_steps import Tokenize

    PreStep: TypeAlias = (
        Decode | Resize | Crop | ColorStep | Normalize | Layout | Cast | Tokenize | Resample | Mono | Amplitude | Frame
        | Stft | Mel | Log | Dct | Stack | Columns | Standardize | Relative
    )  # fmt: skip
    PostStep: TypeAlias = (
        TopK | Detect | Nms | Segment | Reconstruction | Hysteresis | Score | Regression | Embedding | RawTensor
    )  # fmt: skip
else:
    PreStep, PostStep = Preparing, Reading

# By operation, where its type stands: whoever asks about pictures waits for no steps on sounds, and who takes and gets
# tensors as they are for neither.
PREPROCESS: Final[Mapping[str, str]] = {
    "decode": "image_steps:Decode", "resize": "image_steps:Resize", "crop": "image_steps:Crop",
    "color": "image_steps:ColorStep", "normalize": "image_steps:Normalize", "layout": "image_steps:Layout",
    "cast": "image_steps:Cast", "tokenize": "text_steps:Tokenize",
    "resample": "sound_steps:Resample", "mono": "sound_steps:Mono", "amplitude": "sound_steps:Amplitude",
    "frame": "sound_steps:Frame", "stft": "sound_steps:Stft", "mel": "sound_steps:Mel", "log": "sound_steps:Log",
    "dct": "sound_steps:Dct", "stack": "sound_steps:Stack",
    "columns": "table_steps:Columns", "standardize": "table_steps:Standardize", "relative": "table_steps:Relative",
}  # fmt: skip
"""Types of preprocessing steps by operation, as `module:Class` of this package."""
POSTPROCESS: Final[Mapping[str, str]] = {
    "top_k": "answer_steps:TopK", "hysteresis": "answer_steps:Hysteresis", "score": "answer_steps:Score",
    "regression": "answer_steps:Regression", "embedding": "answer_steps:Embedding",
    "detect": "question_steps:Detect", "nms": "question_steps:Nms", "segment": "question_steps:Segment",
    "reconstruction": "question_steps:Reconstruction", "raw": "steps:RawTensor",
}  # fmt: skip
"""Types of postprocessing steps by operation, likewise."""


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


def _parse(step: RawStep, known: Mapping[str, str], where: str) -> Any:  # of a known type
    op = step.get("op")
    if not isinstance(op, str) or op not in known:
        raise UnsupportedFeature(f"run {where} step {shown(op)}", "this runtime does not know it", "update the runtime")
    module, _, name = known[op].partition(":")
    kind = getattr(import_module(f"edge_runtime.contract.{module}"), name)
    try:
        return msgspec.convert(step, type=kind)
    except msgspec.ValidationError as error:
        if "Invalid enum value" in str(error):
            from edge_runtime.contract.choices import with_choices  # rarely needed, and slow to import

            because = shown(with_choices(str(error), kind), 300)
            raise UnsupportedFeature(f"run {where} step {op}", because, "update the runtime") from error
        raise ContractError(f"read {where} step {op}", shown(str(error), 200), "write the field it names") from error
