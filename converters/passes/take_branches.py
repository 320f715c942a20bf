"""Branches whose condition never changes are taken: what is left has one path, which every engine reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

_ROUNDS_MAX: Final = 64
"""Branches inside branches."""
_KNOWN_BYTES_MAX: Final = 4096
"""Conditions are worked out from shapes and flags, never from weights."""


def take_branches(model: Any, sizes: Mapping[str, Sequence[int]]) -> Any:
    """A copy without the branches that are never taken; the model itself where there is none to take.

    Args:
        model: whose constants are initialisers.
        sizes: of every call, by input; conditions are often about shapes.
    """
    if not any(node.op_type == "If" for node in model.graph.node):
        return model
    taken = _copy(model)
    for entry in taken.graph.input:
        for axis, size in zip(entry.type.tensor_type.shape.dim, sizes.get(entry.name, ()), strict=False):
            axis.dim_value = size
    for number in range(_ROUNDS_MAX):
        known = _known(taken)
        found = next((node for node in taken.graph.node if node.op_type == "If" and node.input[0] in known), None)
        if found is None:
            break
        wanted = "then_branch" if np.all(known[found.input[0]]) else "else_branch"
        _inline(taken.graph, found, wanted, f"branch{number}/")
    _drop_unused(taken.graph)
    return taken


def _known(model: Any) -> dict[str, Any]:
    """Values of tensors that are the same in every call, as far as small ones and shapes tell."""
    graph = model.graph
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    small = {name: value for name, value in values.items() if value.nbytes <= _KNOWN_BYTES_MAX}
    shapes = _shapes(model)
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes and not node.attribute:
            small[node.output[0]] = np.asarray(shapes[node.input[0]], np.int64)
        elif node.op_type == "Constant" or (node.input and all(name in small for name in node.input if name)):
            small.update(_computed(model, node, small))
    return small


def _computed(model: Any, node: Any, small: Mapping[str, Any]) -> dict[str, Any]:
    if any(attribute.type == onnx.AttributeProto.GRAPH for attribute in node.attribute):
        return {}
    inputs = [helper.make_value_info(name, onnx.TypeProto()) for name in node.input if name]
    outputs = [helper.make_value_info(name, onnx.TypeProto()) for name in node.output]
    alone = helper.make_model(helper.make_graph([node], "one", inputs, outputs), opset_imports=model.opset_import)
    try:
        answers = ReferenceEvaluator(alone).run(None, {name: small[name] for name in node.input if name})
    except Exception:  # noqa: BLE001 (what cannot be worked out is simply not known)
        return {}
    named = dict(zip(node.output, answers, strict=True))
    return {name: value for name, value in named.items() if np.asarray(value).nbytes <= _KNOWN_BYTES_MAX}


def _shapes(model: Any) -> dict[str, list[int]]:
    """Sizes of tensors of which all are known."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # noqa: BLE001 (a branch that is not taken may contradict the sizes)
        inferred = model
    found: dict[str, list[int]] = {}
    for entry in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        sizes = [axis.dim_value for axis in entry.type.tensor_type.shape.dim]
        if entry.type.tensor_type.HasField("shape") and all(size > 0 for size in sizes):
            found[entry.name] = sizes
    return found


def _inline(graph: Any, node: Any, wanted: str, prefix: str) -> None:
    """Put the nodes of one branch in the place of the condition; what they are called is called so nowhere else."""
    branch = next(attribute.g for attribute in node.attribute if attribute.name == wanted)
    own = {name for inner in branch.node for name in inner.output} | {one.name for one in branch.initializer}
    names = {name: prefix + name for name in own if name}
    given = list(zip([entry.name for entry in branch.output], node.output, strict=True))
    inner = [_renamed(one, names) for one in branch.node]
    inner += [helper.make_node("Identity", [names.get(name, name)], [outside]) for name, outside in given]
    position = list(graph.node).index(node)
    nodes = [_copy(one) for one in (*graph.node[:position], *inner, *graph.node[position + 1 :])]
    weights = [_copy(one) for one in branch.initializer]
    for one in weights:
        one.name = names[one.name]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)


def _copy(message: Any) -> Any:
    """A message that does not belong to the graph it came from."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _renamed(node: Any, names: Mapping[str, str]) -> Any:
    """A copy with other names, inside its own branches too."""
    copy = _copy(node)
    for part in _parts(copy):
        for given in (part.input, part.output):
            given[:] = [names.get(name, name) for name in given]
    for graph in _graphs(copy):
        for entry in graph.output:
            entry.name = names.get(entry.name, entry.name)
    return copy


def _parts(node: Any) -> Iterator[Any]:
    yield node
    for graph in _graphs(node):
        yield from graph.node


def _graphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
            for inner in attribute.g.node:
                yield from _graphs(inner)


def _drop_unused(graph: Any) -> None:
    """Nodes and weights that no output needs, which the branches not taken leave behind."""
    needed = {entry.name for entry in graph.output}
    kept = []
    for node in reversed(graph.node):
        if set(node.output) & needed:
            kept.append(node)
            for part in _parts(node):
                needed |= set(part.input)
            needed |= {entry.name for inner in _graphs(node) for entry in inner.output}
    nodes = [_copy(node) for node in reversed(kept)]
    weights = [_copy(one) for one in graph.initializer if one.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
