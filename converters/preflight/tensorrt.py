"""What TensorRT's ONNX parser refuses, narrows or computes differently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from onnx import TensorProto, numpy_helper

from converters.preflight.findings import Finding, named
from converters.preflight.onnx_graph import constants_of, label_of, walk

_JETSON: Final = ("jetson",)

_NO_IMPORTER: Final = frozenset(
    {
        "AffineGrid", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Col2Im", "Compress",
        "ConcatFromSequence", "ConvInteger", "DFT", "Det", "DynamicQuantizeLinear", "MatMulInteger", "MaxRoiPool",
        "MaxUnpool", "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement",
        "OptionalHasElement", "QLinearConv", "QLinearMatMul", "STFT", "SequenceAt", "SequenceConstruct",
        "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap",
        "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringNormalizer", "TfIdfVectorizer", "Unique",
    }
)  # fmt: skip
"""Source: onnx-tensorrt, docs/operators.md, operators marked N up to TensorRT 10."""

_QUANTISE: Final = frozenset({"QuantizeLinear", "DequantizeLinear"})


def find_tensorrt(model: Any) -> Iterator[Finding]:
    """Findings about a Jetson's TensorRT."""
    graph = model.graph
    refused: dict[str, list[str]] = {}
    for node in walk(graph):
        if node.op_type in _NO_IMPORTER:
            refused.setdefault(node.op_type, []).append(label_of(node))
    for operator, nodes in sorted(refused.items()):
        yield Finding("error", "tensorrt_operator", f"TensorRT cannot import {operator}: {named(nodes)}",
                      "replace it, or move it out of the model", tuple(nodes), _JETSON)  # fmt: skip
    yield from _types(graph)
    yield from _zero_points(graph)
    yield from _differences(graph)


def _types(graph: Any) -> Iterator[Finding]:
    every = [*graph.input, *graph.output, *graph.value_info]
    kinds = {entry.name: entry.type.tensor_type.elem_type for entry in every}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    doubles = tuple(name for name, kind in kinds.items() if kind == TensorProto.DOUBLE)
    if doubles:
        yield Finding("warning", "tensorrt_types", f"TensorRT narrows float64 to float32: {named(doubles)}",
                      "export in float32", doubles, _JETSON)  # fmt: skip
    strange = tuple(name for name, kind in kinds.items() if kind in {TensorProto.STRING, TensorProto.COMPLEX64})
    if strange:
        yield Finding("error", "tensorrt_types", f"TensorRT has no text and no complex numbers: {named(strange)}",
                      "move that part out of the model", strange, _JETSON)  # fmt: skip


def _zero_points(graph: Any) -> Iterator[Finding]:
    """TensorRT quantises symmetrically: a zero point other than 0, or uint8, is refused."""
    constants = constants_of(graph)
    nodes = tuple(
        label_of(node)
        for node in walk(graph)
        if node.op_type in _QUANTISE and len(node.input) > 2 and _is_asymmetric(constants.get(node.input[2]))
    )
    if nodes:
        yield Finding("error", "tensorrt_asymmetric",
                      f"TensorRT quantises symmetrically (int8, zero point 0), this model does not: {named(nodes)}",
                      "start from the float model; both Jetson files are made symmetric", nodes, _JETSON)  # fmt: skip


def _is_asymmetric(zero: TensorProto | None) -> bool:
    if zero is None or zero.data_location == TensorProto.EXTERNAL:
        return False
    # int32 zero points belong to biases, which TensorRT takes in float.
    return zero.data_type == TensorProto.UINT8 or bool(np.any(numpy_helper.to_array(zero)))


def _differences(graph: Any) -> Iterator[Finding]:
    suppression = tuple(label_of(node) for node in walk(graph) if node.op_type == "NonMaxSuppression")
    if suppression:
        yield Finding("warning", "tensorrt_padding",
                      f"TensorRT pads the answer of NonMaxSuppression to its largest size: {named(suppression)}",
                      "leave it out of the model; the runtime does it after every engine alike", suppression,
                      _JETSON)  # fmt: skip
    control = tuple(label_of(node) for node in walk(graph) if node.op_type in {"If", "Loop", "Scan"})
    if control:
        yield Finding("warning", "tensorrt_control_flow",
                      f"TensorRT wants equal types and sizes in every branch of control flow: {named(control)}",
                      "export one branch without the condition", control, _JETSON)  # fmt: skip
