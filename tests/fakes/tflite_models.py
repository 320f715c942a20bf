"""Small TensorFlow Lite files for the converter's tests, written operator by operator with the format's own schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from converters.model.tflite_file import IDENTIFIER


@dataclass(frozen=True)
class Tensor:
    """What a test says about one tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "INT8"
    scales: tuple[float, ...] = (0.5,)
    zero_points: tuple[int, ...] = ()
    axis: int = 0
    values: np.ndarray[Any, Any] | None = None
    """Makes it a constant."""
    signature: tuple[int, ...] = ()
    is_variable: bool = False


@dataclass(frozen=True)
class Operator:
    """What a test says about one operator."""

    kind: str
    """The schema's name, or any other for a custom operator."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    version: int = 1
    options: tuple[str, Mapping[str, Any]] | None = None
    """The schema's class without its T (`Conv2DOptions`), and its fields."""


@dataclass(frozen=True)
class Model:
    """A whole file."""

    tensors: Sequence[Tensor]
    operators: Sequence[Operator]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    signature: str | None = None

    def content(self) -> bytes:
        """The file's bytes."""
        index = {tensor.name: number for number, tensor in enumerate(self.tensors)}
        model = schema.ModelT()
        model.version = 3
        model.buffers = [schema.BufferT()]
        graph = schema.SubGraphT()
        graph.tensors = [_tensor(tensor, model.buffers) for tensor in self.tensors]
        graph.inputs = [index[name] for name in self.inputs]
        graph.outputs = [index[name] for name in self.outputs]
        model.operatorCodes = [_code(one) for one in self.operators]
        graph.operators = [_operator(one, number, index) for number, one in enumerate(self.operators)]
        model.subgraphs = [graph]
        model.metadata = [_metadata(name, text, model.buffers) for name, text in self.metadata.items()]
        if self.signature:
            model.signatureDefs = [_signature(self, index)]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())


def int8_classifier(**changes: Any) -> Model:
    """`image` int8 [1, 8, 8, 3] → CONV_2D per channel, RELU inside → `out` int8 [1, 8, 8, 4]."""
    weights = np.random.default_rng(3).integers(-127, 127, (4, 3, 3, 3)).astype(np.int8)
    conv = ("Conv2DOptions", {"padding": 0, "strideW": 1, "strideH": 1, "fusedActivationFunction": 1})
    parts: dict[str, Any] = {
        "tensors": [
            Tensor("image", (1, 8, 8, 3), zero_points=(-128,)),
            Tensor("w", (4, 3, 3, 3), scales=(0.1, 0.2, 0.3, 0.4), values=weights),
            Tensor("b", (4,), "INT32", scales=(0.05, 0.1, 0.15, 0.2), values=np.zeros(4, np.int32)),
            Tensor("out", (1, 8, 8, 4)),
        ],
        "operators": [Operator("CONV_2D", ("image", "w", "b"), ("out",), 3, conv)],
        "inputs": ("image",),
        "outputs": ("out",),
        **changes,
    }
    return Model(**parts)


def _tensor(tensor: Tensor, buffers: list[Any]) -> Any:
    made = schema.TensorT()
    made.name, made.shape = tensor.name, list(tensor.shape)
    made.type = getattr(schema.TensorType, tensor.dtype)
    made.shapeSignature = list(tensor.signature) or None
    made.isVariable = tensor.is_variable
    made.buffer = 0
    if tensor.values is not None:
        made.buffer = len(buffers)
        buffers.append(_buffer(tensor.values.tobytes()))
    if tensor.scales and tensor.dtype != "FLOAT32":
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = list(tensor.scales)
        made.quantization.zeroPoint = list(tensor.zero_points or (0,) * len(tensor.scales))
        made.quantization.quantizedDimension = tensor.axis
    return made


def _code(operator: Operator) -> Any:
    code = schema.OperatorCodeT()
    number = getattr(schema.BuiltinOperator, operator.kind, None)
    code.builtinCode = schema.BuiltinOperator.CUSTOM if number is None else number
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.customCode = operator.kind if number is None else None
    code.version = operator.version
    return code


def _operator(operator: Operator, number: int, index: Mapping[str, int]) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex = number
    made.inputs = [index[name] if name else -1 for name in operator.inputs]
    made.outputs = [index[name] for name in operator.outputs]
    if operator.options:
        kind, fields = operator.options
        made.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        made.builtinOptions = getattr(schema, f"{kind}T")()
        for name, value in fields.items():
            setattr(made.builtinOptions, name, value)
    return made


def _metadata(name: str, content: bytes, buffers: list[Any]) -> Any:
    entry = schema.MetadataT()
    entry.name, entry.buffer = name, len(buffers)
    buffers.append(_buffer(content))
    return entry


def _buffer(content: bytes) -> Any:
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(content, np.uint8)
    return buffer


def _signature(model: Model, index: Mapping[str, int]) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = model.signature, 0
    signature.inputs = [_named(name, index[name]) for name in model.inputs]
    signature.outputs = [_named(name, index[name]) for name in model.outputs]
    return signature


def _named(name: str, number: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, number
    return entry
