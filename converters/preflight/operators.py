"""Operators that nobody knows, that one engine alone knows, and bodies that stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from onnx import defs

from converters.model.opset import standard_opset
from converters.preflight.findings import Finding, named
from converters.preflight.onnx_graph import STANDARD_DOMAINS, label_of, walk

_RUNTIME_DOMAINS: Final = frozenset({"ai.onnx.ml", "com.microsoft"})
_CONTROL: Final = frozenset({"If", "Loop", "Scan"})
_OTHER_ENGINES: Final = ("coral", "jetson")


def find_operators(model: Any) -> Iterator[Finding]:
    """Unknown operators with their domain, operators of one engine, control flow."""
    opset = max(standard_opset(model), 1)
    own = {(function.domain, function.name) for function in model.functions}
    unknown: dict[tuple[str, str], list[str]] = {}
    bound: dict[str, list[str]] = {}
    for node in walk(model.graph):
        if (node.domain, node.op_type) in own:
            continue
        if node.domain in _RUNTIME_DOMAINS:
            bound.setdefault(node.domain, []).append(label_of(node))
        elif node.domain not in STANDARD_DOMAINS or not defs.has(node.op_type, max_inclusive_version=opset):
            unknown.setdefault((node.domain or "ai.onnx", node.op_type), []).append(label_of(node))
    for (domain, operator), nodes in sorted(unknown.items()):
        message = f"operator {operator} (domain {domain}) is not known in opset {opset}: {named(nodes)}"
        advice = "export without it, or replace it by standard ONNX operators"
        yield Finding("error", "unknown_operator", message, advice, tuple(nodes))
    for domain, nodes in sorted(bound.items()):
        message = f"operators of {domain} run in ONNX Runtime only: {named(nodes)}"
        yield Finding("warning", "vendor_operator", message, "other engines will leave this model out", tuple(nodes))
        yield Finding("error", "vendor_operator", message, "export with standard operators", tuple(nodes),
                      families=_OTHER_ENGINES)  # fmt: skip
    yield from _control_flow(model)


def _control_flow(model: Any) -> Iterator[Finding]:
    nodes = tuple(label_of(node) for node in walk(model.graph) if node.op_type in _CONTROL)
    if not nodes:
        return
    yield Finding("warning", "control_flow", f"bodies of {named(nodes)} are not quantised; OpenVINO may refuse them",
                  "int8 may gain nothing; export one branch without the condition", nodes)  # fmt: skip
    yield Finding("error", "control_flow", f"an Edge TPU has no control flow: {named(nodes)}",
                  "export one branch without the condition", nodes, families=("coral",))  # fmt: skip
