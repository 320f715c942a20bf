"""Reading an ONNX file for a look: without its external weights, nothing run, nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import onnx

from converters.preflight.findings import Finding

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx"})


def read_onnx(path: Path) -> Any:
    """The model without its external weights, or the one finding that says why there is none."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # noqa: BLE001 (protobuf raises classes of its own C extension)
        size = path.stat().st_size
        return Finding(
            "error",
            "truncated",
            f"{path.name} ({size} bytes) is not a whole ONNX file: {str(error)[:120]}",
            "it is truncated or another format; copy or export it again",
        )
    if not model.graph.node:
        return Finding("error", "not_onnx", f"{path.name} holds no ONNX graph", "name an exported .onnx file")
    return model


def walk(graph: Any) -> Iterator[Any]:
    """Every node of a graph and of its sub-graphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from walk(attribute.g)


def label_of(node: Any) -> str:
    """A node's name, or its type and first output where it has none."""
    return str(node.name or f"{node.op_type}→{node.output[0] if node.output else '?'}")


def constants_of(graph: Any) -> dict[str, Any]:
    """Tensors of a graph whose values stand in the file, as TensorProto by name."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    found[node.output[0]] = attribute.t
    return found


def fed_inputs(graph: Any) -> list[Any]:
    """The inputs a caller feeds: old exporters list initialisers among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [entry for entry in graph.input if entry.name not in weights]
