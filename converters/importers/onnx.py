"""An ONNX file becomes the model that everything else works on: weights inside, described, nothing changed yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import onnx
from onnx import helper

from converters.errors import BadModel
from converters.model.source import Imported, Port
from edge_runtime.contract.ids import shown

_DTYPES: Final = frozenset({"float32", "float16", "float64", "uint8", "int8", "int32", "int64", "bool"})


def import_onnx(path: Path) -> Imported:
    """Load a model with all its weights. Raises: BadModel when it cannot be read."""
    try:
        model = onnx.load(str(path))
    except Exception as error:
        raise BadModel(f"read {path.name}", str(error)[:200], f"run edge-convert check {path.name}") from error
    return describe(model)


def describe(model: Any) -> Imported:
    """The ports and versions of a model; initialisers listed as inputs are no ports. Raises: BadModel."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_describe(entry) for entry in model.graph.input if entry.name not in weights)
    outputs = tuple(_describe(entry) for entry in model.graph.output)
    opset = max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)
    return Imported(model, inputs, outputs, opset, int(model.ir_version))


def _describe(entry: Any) -> Port:
    tensor = entry.type.tensor_type
    # protobuf hands out a name that is no UTF-8 as bytes.
    if not isinstance(entry.name, str):
        raise BadModel(f"use tensor {shown(entry.name)}", "its name is no UTF-8 text", "rename it and export it again")
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name if tensor.elem_type else "unknown"
    except (KeyError, ValueError):
        dtype = f"number {tensor.elem_type}"
    if dtype not in _DTYPES:
        remedy = "export it with numeric tensors"
        raise BadModel(f"use tensor {shown(entry.name)}", f"its type {dtype} is not supported", remedy)
    shape = tuple(size.dim_value if size.dim_value > 0 else None for size in tensor.shape.dim)
    return Port(entry.name, dtype, shape)
