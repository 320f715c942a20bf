"""What the Edge TPU can compute, operator by operator.

Source: Coral, "TensorFlow models on the Edge TPU", supported operations, for compiler 16.0. Operator versions are those
that TensorFlow Lite 2.5 knows, the release the last compiler was built with: a newer one ends it with "Didn't find op
for builtin opcode".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from converters.model.tflite_file import TfliteGraph, TfliteOperator, TfliteTensor

SRAM_BYTES: Final = int(7.9 * 1024**2)
"""On-chip memory that caches parameters: the compiler's log says 7.98 MiB free with a model of next to nothing."""

_MOST_SOFTMAX: Final = 16_000


@dataclass(frozen=True, slots=True)
class Step:
    """One operator with the tensors it touches."""

    operator: TfliteOperator
    given: tuple[TfliteTensor | None, ...]
    made: tuple[TfliteTensor, ...]

    def constant(self, position: int) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]] | None:
        """Values of a constant input; None when it is computed or absent."""
        tensor = self.given[position] if position < len(self.given) else None
        return None if tensor is None else tensor.values()

    def option(self, name: str) -> int:
        """A whole-number option; 0, the schema's default, when it is not written."""
        value = self.operator.options.get(name)
        return int(value) if isinstance(value, int | float) else 0


Limit = Callable[[Step], str | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """How far an operator is supported."""

    newest: int
    """Operator version."""
    limit: Limit | None = None
    """Why one use of it is not mapped; None when it is."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an operator is not mapped."""

    code: str
    """`operator`, `version`, `float`, `type`, `rank`, `per_channel`, `limit`."""
    because: str


def step_of(graph: TfliteGraph, operator: TfliteOperator) -> Step:
    """An operator with its tensors."""
    return Step(operator, graph.given(operator), graph.made(operator))


def why_not_mapped(step: Step, *, will_be_quantised: bool) -> Refusal | None:
    """Why the compiler leaves an operator to the CPU, or gives up; None when it maps it.

    Args:
        step: the operator.
        will_be_quantised: the file is still float, so types, scales and versions of the int8 file are not known yet.
    """
    kind = step.operator.kind
    rule = RULES.get(kind)
    if rule is None:
        return Refusal("operator", "the Edge TPU has no such operator")
    if not will_be_quantised:
        if step.operator.version > rule.newest:
            return Refusal("version", f"version {step.operator.version} is newer than the compiler's {rule.newest}")
        if refusal := _wrong_type(step) or _scale_per_channel(step):
            return refusal
    if refusal := _wrong_rank(step):
        return refusal
    because = rule.limit(step) if rule.limit else None
    return Refusal("limit", because) if because else None


def _wrong_type(step: Step) -> Refusal | None:
    for tensor in (*step.given, *step.made):
        if tensor is None:
            continue
        if tensor.dtype.startswith("float"):
            return Refusal("float", f"it reads or writes {tensor.dtype}")
        if tensor.dtype in {"int16", "int32", "int64"} and not tensor.is_constant:
            return Refusal("type", f"it reads or writes {tensor.dtype}, not 8 bits")
    return None


def _scale_per_channel(step: Step) -> Refusal | None:
    weights = step.given[1] if len(step.given) > 1 else None
    if step.operator.kind != "FULLY_CONNECTED" or weights is None or weights.affine is None:
        return None
    return (
        Refusal("per_channel", "its weights have a scale for each channel") if weights.affine.is_per_channel else None
    )


def _wrong_rank(step: Step) -> Refusal | None:
    for tensor in (*step.given, *step.made):
        if tensor is not None and not tensor.is_constant and math.prod(tensor.shape[:-3]) > 1:
            return Refusal("rank", f"{list(tensor.shape)} has more than three dimensions above 1")
    return None


def _no_fused(step: Step) -> str | None:
    return "a fused activation" if step.option("fusedActivationFunction") else None


def _same_dilation(step: Step) -> str | None:
    return None if step.option("dilationWFactor") == step.option("dilationHFactor") else "unequal dilation in x and y"


def _constant_filter(step: Step) -> str | None:
    weights = step.given[1] if len(step.given) > 1 else None
    return None if weights is not None and weights.is_constant else "its filter is not constant"


def _convolution(step: Step) -> str | None:
    return _constant_filter(step) or _same_dilation(step)


def _fully_connected(step: Step) -> str | None:
    if step.option("weightsFormat"):
        return "shuffled weights"
    if step.made and math.prod(step.made[0].shape[:-1]) > 1:
        return f"an output {list(step.made[0].shape)} of more than one dimension"
    return _constant_filter(step)


def _concatenation(step: Step) -> str | None:
    if because := _no_fused(step):
        return because
    constants = [tensor for tensor in step.given if tensor is not None and tensor.is_constant]
    if not constants:
        return None
    zeros = constants[0].affine.zero_points[0] if constants[0].affine else 0
    values = constants[0].values()
    if len(step.given) != 2 or values is None or bool(np.any(values != zeros)):
        return "a constant that is not zero padding of one other input"
    return None


def _softmax(step: Step) -> str | None:
    shape = step.made[0].shape if step.made else ()
    if math.prod(shape[:-1]) > 1:
        return f"more than one row ({list(shape)})"
    return f"more than {_MOST_SOFTMAX} elements" if shape and shape[-1] > _MOST_SOFTMAX else None


def _not_in_batch(position: int) -> Limit:
    """Axes in the constant input at a position must leave out the batch."""

    def limit(step: Step) -> str | None:
        axes = step.constant(position)
        first = step.given[0]
        if axes is None or first is None:
            return "axes that are not constant"
        rank = len(first.shape)
        return "the batch axis" if rank > 3 and any(int(axis) % rank == 0 for axis in np.ravel(axes)) else None

    return limit


def _mean(step: Step) -> str | None:
    if because := _not_in_batch(1)(step):
        return because
    axes, first = step.constant(1), step.given[0]
    if axes is None or first is None:
        return None
    last = len(first.shape) - 1
    touches_depth = any(int(axis) % (last + 1) == last for axis in np.ravel(axes))
    return "a depth that is no multiple of 4" if touches_depth and first.shape[-1] % 4 else None


def _pad(step: Step) -> str | None:
    amounts, first = step.constant(1), step.given[0]
    if amounts is None or first is None:
        return "amounts that are not constant"
    return "the batch axis" if len(first.shape) > 3 and bool(np.any(amounts[0] != 0)) else None


def _squeeze(step: Step) -> str | None:
    first = step.given[0]
    shape = first.shape if first is not None else ()
    sizes = [axis for axis, size in enumerate(shape) if size > 1]
    # (1, 1, 10) loses leading ones; (5, 1, 10) would move data.
    return None if not sizes or 1 not in shape[sizes[0] :] else "ones that are not leading"


def _strided_slice(step: Step) -> str | None:
    strides = step.constant(3)
    if strides is None or bool(np.any(strides != 1)):
        return "strides other than 1"
    return "an ellipsis or a new axis" if step.option("ellipsisMask") or step.option("newAxisMask") else None


def _split(step: Step) -> str | None:
    axis, whole = step.constant(0), step.given[1] if len(step.given) > 1 else None
    if axis is None or whole is None:
        return "an axis that is not constant"
    rank = len(whole.shape)
    return "the batch axis" if rank > 3 and int(np.ravel(axis)[0]) % rank == 0 else None


def _pack(step: Step) -> str | None:
    return "the batch axis" if step.option("axis") == 0 and len(step.made[0].shape) > 3 else None


def _prelu(step: Step) -> str | None:
    alpha = step.given[1] if len(step.given) > 1 else None
    return None if alpha is not None and math.prod(alpha.shape[:-1]) <= 1 else "an alpha of more than one dimension"


def _three_dimensions(step: Step) -> str | None:
    first = step.given[0]
    return None if first is not None and math.prod(first.shape[:-3]) <= 1 else "more than three dimensions"


RULES: Final[Mapping[str, Rule]] = {
    "ADD": Rule(3), "SUB": Rule(4), "MUL": Rule(4), "MAXIMUM": Rule(4), "MINIMUM": Rule(4),
    "LOGISTIC": Rule(3), "TANH": Rule(3), "RELU": Rule(2), "RELU6": Rule(2), "RELU_N1_TO_1": Rule(1),
    "L2_NORMALIZATION": Rule(2), "SPACE_TO_DEPTH": Rule(2), "SLICE": Rule(3), "QUANTIZE": Rule(2),
    "EXPAND_DIMS": Rule(1), "RESHAPE": Rule(1), "RSQRT": Rule(2), "SQUARED_DIFFERENCE": Rule(2),
    "AVERAGE_POOL_2D": Rule(3, _no_fused), "MAX_POOL_2D": Rule(3, _no_fused),
    "CONCATENATION": Rule(3, _concatenation), "CONV_2D": Rule(5, _convolution),
    "DEPTHWISE_CONV_2D": Rule(6, _convolution), "TRANSPOSE_CONV": Rule(3),
    "FULLY_CONNECTED": Rule(9, _fully_connected), "SOFTMAX": Rule(3, _softmax), "MEAN": Rule(2, _mean),
    "SUM": Rule(2, _not_in_batch(1)), "REDUCE_MAX": Rule(2, _not_in_batch(1)), "REDUCE_MIN": Rule(2, _not_in_batch(1)),
    "PAD": Rule(3, _pad), "PACK": Rule(3, _pack), "SPLIT": Rule(4, _split), "SQUEEZE": Rule(2, _squeeze),
    "STRIDED_SLICE": Rule(4, _strided_slice), "TRANSPOSE": Rule(5), "PRELU": Rule(1, _prelu),
    "RESIZE_BILINEAR": Rule(3, _three_dimensions), "RESIZE_NEAREST_NEIGHBOR": Rule(3, _three_dimensions),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Rule(3), "LSTM": Rule(4),
}  # fmt: skip

REWRITES: Final[Mapping[str, str]] = {
    "HARD_SWISH": "train with ReLU6 in place of hard swish",
    "LEAKY_RELU": "train with PReLU of one alpha per channel, or ReLU",
    "GELU": "train with ReLU6 in place of GELU",
    "ELU": "train with ReLU6 in place of ELU",
    "RELU_0_TO_1": "write it as a minimum and a maximum, or as ReLU6",
    "DIV": "multiply by the reciprocal constant",
    "BATCH_MATMUL": "write products with constants as fully-connected layers",
    "ARG_MAX": "leave it out of the model; the runtime does it after every engine alike",
    "SHAPE": "convert again with every input size fixed, so that shapes become constants",
    "SPACE_TO_BATCH_ND": "convert again with fixed sizes, so that it becomes part of a dilated convolution",
    "BATCH_TO_SPACE_ND": "convert again with fixed sizes, so that it becomes part of a dilated convolution",
    "DEQUANTIZE": "keep int8 inputs and outputs, and quantise every operator",
}
"""What to do about operators that are not in the table."""
