"""Weights that cannot be used or would gain nothing from int8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from onnx import TensorProto, numpy_helper

from converters.preflight.findings import Finding, named
from converters.preflight.onnx_graph import constants_of, walk

_QUANTISABLE: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_QUANTISED: Final = frozenset({"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"})


def find_weights(model: Any) -> Iterator[Finding]:
    """NaN, nothing to quantise, already quantised."""
    graph = model.graph
    if unfit := [tensor.name for tensor in graph.initializer if not _fits(tensor)]:
        yield Finding("error", "invalid", f"weights do not have the size that the model says: {named(unfit)}",
                      "the file is damaged; copy or export it again", tuple(unfit))  # fmt: skip
        return
    broken = [tensor.name for tensor in graph.initializer if _has_nan(tensor)]
    if broken:
        yield Finding("error", "nan_weights", f"weights hold NaN or infinity: {named(broken)}",
                      "the training diverged; export a sound checkpoint", tuple(broken))  # fmt: skip
    if any(node.op_type in _QUANTISED for node in walk(graph)):
        yield Finding("warning", "already_quantised", "the model is quantised already",
                      "start from the float model; build with --precision float32 otherwise")  # fmt: skip
        return
    # Bodies of control flow do not count: their weights are never quantised.
    fed = constants_of(graph).keys()
    if not any(node.op_type in _QUANTISABLE and fed & set(node.input[1:]) for node in graph.node):
        yield Finding("warning", "nothing_to_quantise", "no Conv, Gemm or MatMul has constant weights",
                      "int8 would change nothing; build with --precision float32")  # fmt: skip


def _fits(tensor: Any) -> bool:
    """Whether a weight's bytes are as many as its type and sizes need; those kept elsewhere are not looked at."""
    if not tensor.raw_data or tensor.data_location == TensorProto.EXTERNAL:
        return True
    try:
        numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError):
        return False
    return True


def _has_nan(tensor: Any) -> bool:
    if tensor.data_location == TensorProto.EXTERNAL:
        return False
    if tensor.data_type not in {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16}:
        return False
    import numpy as np

    return not bool(np.isfinite(numpy_helper.to_array(tensor)).all())
