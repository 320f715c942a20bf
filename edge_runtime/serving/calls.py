"""What doors and models say to each other: a call, a reply, what a model takes and gives, and why a call is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import VariantId
from edge_runtime.inference.backend import Array
from edge_runtime.inference.blame import BadInput

Values = Array | list[bytes]
"""An array, or BYTES: one element per sample, encoded as the input accepts it (JPEG, PNG, WAV, a row of text)."""

BYTES: Final = "bytes"
"""`TensorMeta.dtype` of what travels as `list[bytes]`; every other dtype is a numpy name."""

VARIES: Final = -1
"""A size in `TensorMeta.shape` that may differ from call to call."""


@dataclass(frozen=True, slots=True)
class TensorMeta:
    """One input or output as a client sees it."""

    name: str
    dtype: str
    """numpy name, or `bytes`."""
    shape: tuple[int, ...]
    """−1 for a size that may vary."""


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """Where a call stands in a sequence of a stateful model."""

    id: int | str
    start: bool = False
    end: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """One question to a served model."""

    inputs: dict[str, Values]
    """All public inputs, or all canonical tensors, by name; an image input also takes encoded pictures as BYTES."""
    outputs: tuple[str, ...] | None = None
    """Canonical output tensors or public outputs wanted; None: all canonical ones."""
    deadline: float | None = None
    """`time.monotonic()` seconds; work that has not begun by then never begins."""
    priority: int = 0
    """Higher is more urgent."""
    sequence: SequenceStep | None = None
    is_vouched_for: bool = False
    """The door knows the caller as itself, as in process: the NaN policy does not look at its numbers."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer, and who gave it; all tensors come from the same version."""

    tensors: dict[str, Values]
    """By name: arrays that the caller owns, and one JSON document per sample for public outputs."""
    model: str
    version: str
    variant: VariantId


class Ticket(Protocol):
    """A submitted call under way."""

    def cancel(self) -> bool:
        """Give up on it; True when it had not begun and now never will."""


class BadCall(BadInput):
    """The call itself is to blame, as it came through a door."""


class UnknownModel(InferenceError):
    """No model of that name is served."""

    default_code = "unknown_model"


class UnknownVersion(UnknownModel):
    """The model is served, but not in that version."""

    default_code = "unknown_version"
