"""Gives ports plain names and the batch a size of one, for tools that guess by names and cannot leave sizes open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx

from converters.errors import BadModel


def plain_names(model: Any) -> dict[str, str]:
    """What a model calls its ports, by their plain names."""
    weights = {tensor.name for tensor in model.graph.initializer}
    fed = [entry.name for entry in model.graph.input if entry.name not in weights]
    named = {f"input_{number}": name for number, name in enumerate(fed)}
    return named | {f"output_{number}": entry.name for number, entry in enumerate(model.graph.output)}


def with_plain_ports(model: Any, sizes: Mapping[str, Sequence[int]] | None = None) -> Any:
    """A copy whose inputs are input_0, …, whose outputs are output_0, …, and whose free first axes are 1.

    Args:
        model: with its own names.
        sizes: what is fed to inputs whose sizes the model leaves open, by its own names.

    Raises:
        BadModel: another axis of an input has no fixed size.
    """
    plain = type(model)()
    plain.CopyFrom(model)
    graph = plain.graph
    weights = {tensor.name for tensor in graph.initializer}
    for entry in graph.input:
        if entry.name not in weights:
            _fix_free(entry, (sizes or {}).get(entry.name, ()))
            _fix_batch(entry)
    # Sizes inside, derived from the free ones, are wrong now; tools derive them again.
    del graph.value_info[:]
    for entry in graph.output:
        _fix_batch(entry, strict=False)
    _rename(graph, {old: new for new, old in plain_names(model).items()})
    return plain


def _fix_free(entry: Any, fed: Sequence[int]) -> None:
    axes = entry.type.tensor_type.shape.dim
    for axis, size in zip(axes, fed, strict=False):
        if axis.dim_value <= 0:
            axis.dim_value = size


def _fix_batch(entry: Any, *, strict: bool = True) -> None:
    sizes = entry.type.tensor_type.shape.dim
    free = [axis for axis, size in enumerate(sizes) if size.dim_value <= 0]
    if strict and (inner := [axis for axis in free if axis > 0]):
        because = f"axes {inner} of input {entry.name} have no fixed size"
        raise BadModel("fix the sizes of the model", because, f"build with --shape {entry.name}=SIZES")
    if 0 in free:
        sizes[0].dim_value = 1


def _rename(graph: Any, names: dict[str, str]) -> None:
    # Whatever bears one of the new names already must make way first.
    taken = {new: f"{new}__inner" for new in names.values() if new not in names}
    for part in _graphs(graph):
        for node in part.node:
            for given in (node.input, node.output):
                for position, name in enumerate(given):
                    given[position] = names.get(name, taken.get(name, name))
        for tensor in part.initializer:
            tensor.name = taken.get(tensor.name, tensor.name)
    for entry in (*graph.input, *graph.output):
        entry.name = names.get(entry.name, taken.get(entry.name, entry.name))


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
