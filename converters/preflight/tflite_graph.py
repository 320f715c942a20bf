"""What a TensorFlow Lite file brings along: who runs it, what keeps state, what is already quantised or compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from converters.model.tflite_file import TfliteFile, TfliteGraph, TfliteOperator, TfliteTensor
from converters.preflight.findings import Finding, named

EDGE_TPU_OPERATOR: Final = "edgetpu-custom-op"
"""What the Edge TPU compiler puts in the place of everything it mapped."""

LITERT_CUSTOM: Final = frozenset({"TFLite_Detection_PostProcess", "Mfcc", "AudioSpectrogram", "NumericVerify"})
"""Custom operators that the stock interpreter knows (tensorflow/lite/kernels/register.cc)."""

WEIGHTED: Final = frozenset(
    {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "CONV_3D", "UNIDIRECTIONAL_SEQUENCE_LSTM"}
)
"""Operators whose constant weights int8 makes smaller."""

_CONTROL: Final = frozenset({"IF", "WHILE", "CALL_ONCE", "STABLEHLO_WHILE", "STABLEHLO_CASE"})
_VARIABLES: Final = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})
_INTEGERS: Final = frozenset({"int8", "uint8", "int16"})


def find_in_tflite(model: TfliteFile) -> Iterator[Finding]:
    """Findings about a TensorFlow Lite file whatever it is built for."""
    graph = model.main
    if any(operator.kind == EDGE_TPU_OPERATOR for operator in graph.operators):
        yield _already_compiled(graph)
        return
    yield from _operators(model)
    yield from _ports(graph)
    yield from _weights(graph)
    yield Finding("error", "needs_onnx", "a Jetson's TensorRT reads ONNX, and no exact way leads there from TFLite",
                  "name the ONNX model it was made from; on the CPU of a Jetson this file runs as well",
                  families=("jetson",))  # fmt: skip


def is_quantised(graph: TfliteGraph) -> bool:
    """Whether a graph computes in integers: some weighted operator reads and writes them."""
    return any(_computes_in_integers(graph, operator) for operator in graph.operators if operator.kind in WEIGHTED)


def _computes_in_integers(graph: TfliteGraph, operator: TfliteOperator) -> bool:
    given, made = graph.given(operator), graph.made(operator)
    return bool(given and made and given[0] is not None and {given[0].dtype, made[0].dtype} <= _INTEGERS)


def _already_compiled(graph: TfliteGraph) -> Finding:
    mapped = [operator for operator in graph.operators if operator.kind == EDGE_TPU_OPERATOR]
    rest = [graph.label(operator) for operator in graph.operators if operator.kind != EDGE_TPU_OPERATOR]
    beside = f", {len(rest)} operators left on the CPU" if rest else ""
    return Finding(
        "error",
        "already_compiled",
        f"the file is compiled for an Edge TPU already ({len(mapped)} compiled part{beside}); nothing else runs it",
        "name the int8 .tflite it was compiled from: the release needs it for devices without an Edge TPU too",
        tuple(graph.label(operator) for operator in mapped),
    )


def _operators(model: TfliteFile) -> Iterator[Finding]:
    every = [(graph, operator) for graph in model.graphs for operator in graph.operators]
    custom: dict[str, list[str]] = {}
    for graph, operator in every:
        if operator.is_custom:
            custom.setdefault(operator.kind, []).append(graph.label(operator))
    for kind, nodes in sorted(custom.items()):
        if kind.startswith("Flex"):
            yield Finding("error", "unknown_operator",
                          f"operator {kind} (domain tensorflow) needs TensorFlow itself: {named(nodes)}",
                          "convert again without SELECT_TF_OPS", tuple(nodes))  # fmt: skip
        elif kind in LITERT_CUSTOM:
            yield Finding("warning", "vendor_operator", f"custom operator {kind} runs in LiteRT only: {named(nodes)}",
                          "OpenVINO will leave this model out", tuple(nodes))  # fmt: skip
        else:
            yield Finding("error", "unknown_operator",
                          f"operator {kind} (domain custom) is known to no engine: {named(nodes)}",
                          "convert again without it", tuple(nodes))  # fmt: skip
    control = tuple(graph.label(operator) for graph, operator in every if operator.kind in _CONTROL)
    if control:
        yield Finding("warning", "control_flow", f"bodies of {named(control)} are not quantised",
                      "int8 may gain nothing", control)  # fmt: skip
    kept = tuple(tensor.short_name for graph in model.graphs for tensor in graph.tensors if tensor.is_variable)
    kept += tuple(graph.label(operator) for graph, operator in every if operator.kind in _VARIABLES)
    if kept:
        yield Finding("warning", "state", f"the model keeps a state from call to call: {named(kept)}",
                      "calibrate with whole sequences; OpenVINO may refuse it", kept)  # fmt: skip


def _ports(graph: TfliteGraph) -> Iterator[Finding]:
    for index in graph.inputs:
        tensor = graph.tensors[index]
        if inner := [axis for axis in tensor.free_axes if axis > 0]:
            yield from _free_axes(tensor, inner)
        if 0 in tensor.free_axes:
            yield Finding("note", "dynamic_batch", f"the batch axis of input {tensor.name} is free",
                          nodes=(tensor.name,))  # fmt: skip
        if tensor.dtype == "string":
            yield Finding("error", "string_input", f"input {tensor.name} takes text, which no target's engine is fed",
                          "turn text into numbers before the model", (tensor.name,))  # fmt: skip
        elif tensor.affine is None and tensor.dtype not in {"float32", "float16"}:
            yield Finding("note", "integer_input",
                          f"input {tensor.name} is {tensor.dtype} and stays so: it is not quantised",
                          nodes=(tensor.name,))  # fmt: skip


def _free_axes(tensor: TfliteTensor, axes: list[int]) -> Iterator[Finding]:
    message = f"axes {axes} of input {tensor.name} have no fixed size"
    advice = "fix them, for example --shape {}={}".format(tensor.name, ",".join(map(str, tensor.shape)))
    yield Finding("warning", "dynamic_axes", message, advice, (tensor.name,))
    yield Finding("error", "dynamic_axes", f"{message}, and an Edge TPU needs every size", advice, (tensor.name,),
                  families=("coral",))  # fmt: skip


def _weights(graph: TfliteGraph) -> Iterator[Finding]:
    broken = tuple(_not_finite(graph))
    if broken:
        yield Finding("error", "nan_weights", f"weights hold NaN or infinity: {named(broken)}",
                      "the training diverged; convert a sound checkpoint", broken)  # fmt: skip
    if is_quantised(graph):
        yield Finding("note", "already_quantised", "the model is quantised already: it is built as it is",
                      "for other precisions start from the float model")  # fmt: skip
        return
    weights = [
        tensor
        for operator in graph.operators
        if operator.kind in WEIGHTED
        for tensor in graph.given(operator)[1:]
        if tensor is not None and tensor.is_constant
    ]
    if not weights:
        yield Finding("warning", "nothing_to_quantise", "no convolution or fully-connected layer has constant weights",
                      "int8 would change nothing; build with --precision float32")  # fmt: skip
    elif any(tensor.dtype == "int8" for tensor in weights):
        hybrid = tuple(tensor.short_name for tensor in weights if tensor.dtype == "int8")
        yield Finding("note", "hybrid", f"weights are int8 and activations float: {named(hybrid)}",
                      "for full int8 start from the float model", hybrid)  # fmt: skip


def _not_finite(graph: TfliteGraph) -> Iterator[str]:
    """Names of constants that hold what is no number; content that many tensors share is looked at once."""
    seen: dict[tuple[int, str], bool] = {}
    for tensor in graph.tensors:
        place = (id(tensor.content), tensor.dtype)
        if place not in seen:
            seen[place] = _has_nan(tensor)
        if seen[place]:
            yield tensor.short_name


def _has_nan(tensor: TfliteTensor) -> bool:
    if tensor.dtype not in {"float32", "float16", "float64"} or tensor.content is None:
        return False
    kind = np.dtype(tensor.dtype)
    values = np.frombuffer(tensor.content[: tensor.content.nbytes // kind.itemsize * kind.itemsize], kind)
    return not bool(np.isfinite(values).all())
