"""A TensorFlow Lite file becomes a source model: it stays as it is, and its ports are described in real numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from converters.errors import BadModel
from converters.model.source import Imported, Port, Stored
from converters.model.tflite_file import TfliteGraph, TfliteTensor, parse_tflite

_DTYPES = frozenset({"float32", "float16", "uint8", "int8", "int16", "int32", "int64", "bool"})
_QUANTISED = frozenset({"uint8", "int8", "int16"})


def import_tflite(path: Path) -> Imported:
    """Read a model and describe its ports. Raises: BadModel when it cannot be read or used."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadModel(f"read {path.name}", error.strerror or str(error), "check the path") from error
    return describe(content, path.name)


def describe(content: bytes, name: str) -> Imported:
    """The ports of a model in memory; `name` is what errors call it. Raises: BadModel."""
    graph = parse_tflite(content, name).main
    if hidden := [tensor.name for tensor in graph.tensors if tensor.is_variable]:
        because = f"it keeps state between calls in {hidden[0]}"
        raise BadModel(f"use {name}", because, "export it with the state as an input and an output")
    inputs, outputs = _ports(graph, graph.inputs), _ports(graph, graph.outputs)
    return Imported(content, inputs, outputs, opset=None, ir=None, format="tflite")


def activation_bytes(content: bytes) -> int:
    """Bytes of all intermediate tensors of one sample. Raises: BadModel."""
    graph = parse_tflite(content, "the model").main
    return sum(_size_bytes(tensor) for tensor in graph.tensors if not tensor.is_constant)


def _ports(graph: TfliteGraph, indices: tuple[int, ...]) -> tuple[Port, ...]:
    names = Counter(graph.tensors[index].name for index in indices)
    return tuple(_port(graph.tensors[index], names) for index in indices)


def _port(tensor: TfliteTensor, names: Counter[str]) -> Port:
    # A name that repeats is told apart by the tensor's number, as the runtime's LiteRT adapter does.
    name = tensor.name if tensor.name and names[tensor.name] == 1 else f"{tensor.name}#{tensor.index}"
    if tensor.dtype not in _DTYPES:
        remedy = "export it with numeric tensors"
        raise BadModel(f"use tensor {name}", f"its type {tensor.dtype} is not supported", remedy)
    shape = tuple(None if axis in tensor.free_axes else size for axis, size in enumerate(tensor.shape))
    affine = tensor.affine
    if affine is None or tensor.dtype not in _QUANTISED:
        return Port(name, tensor.dtype, shape)
    if affine.is_per_channel:
        because = f"it has {len(affine.scales)} scales"
        raise BadModel(f"use tensor {name}", because, "quantise inputs and outputs per tensor")
    return Port(name, "float32", shape, Stored(tensor.dtype, affine.scales[0], affine.zero_points[0]))


def _size_bytes(tensor: TfliteTensor) -> int:
    size = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "int16": 2}.get(tensor.dtype, 1)
    for extent in tensor.shape:
        size *= extent
    return size
