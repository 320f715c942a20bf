"""Looks at an ONNX model for seconds, before minutes of work: every finding at once, nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import TensorProto, defs, numpy_helper

from converters.preflight.file_kind import look_at_file
from converters.preflight.findings import Finding, has_errors, named

MIN_QUANTISABLE_OPSET: Final = 13
"""Per-channel quantisation is invalid below; ONNX Runtime writes such a file without complaint and then refuses it."""

_STANDARD: Final = frozenset({"", "ai.onnx"})
_RUNTIME_DOMAINS: Final = frozenset({"ai.onnx.ml", "com.microsoft"})
_QUANTISABLE: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_CONTROL: Final = frozenset({"If", "Loop", "Scan"})


def inspect(path: Path, *, max_opset: int) -> tuple[Finding, ...]:
    """Everything worth knowing about a model file, worst first.

    Args:
        path: the file.
        max_opset: newest opset that every target's engine loads.
    """
    model = _graph_in(path)
    if isinstance(model, Finding):
        return (model,)
    findings = [
        *_operators(model),
        *_external_data(model, path),
        *_opset(model, max_opset),
        *_shapes(model),
        *_weights(model),
    ]
    if not has_errors(findings):
        findings += _checker(path)
    rank = {"error": 0, "warning": 1, "note": 2}
    return tuple(sorted(findings, key=lambda finding: rank[finding.severity]))


def look_at_model(path: Path) -> Finding | None:
    """The reason why a file cannot be read as a model at all; None when it can."""
    found = _graph_in(path)
    return found if isinstance(found, Finding) else None


def walk(graph: Any) -> Iterator[Any]:
    """Every node of a graph and of its sub-graphs."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from walk(attribute.g)


def standard_opset(model: Any) -> int:
    """The version of the standard operator set a model asks for; 0 when it names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=0)


def label_of(node: Any) -> str:
    """A node's name, or its type and first output where it has none."""
    return str(node.name or f"{node.op_type}→{node.output[0] if node.output else '?'}")


def _graph_in(path: Path) -> Any:
    """The model without its external weights, or the one finding that says why there is none."""
    if refused := look_at_file(path):
        return refused
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # noqa: BLE001 (protobuf raises classes of its own C extension)
        return _unreadable(path, error)
    if not model.graph.node:
        return Finding("error", "not_onnx", f"{path.name} holds no ONNX graph", "name an exported .onnx file")
    return model


def _unreadable(path: Path, error: Exception) -> Finding:
    size = path.stat().st_size
    return Finding(
        "error",
        "truncated",
        f"{path.name} ({size} bytes) is not a whole ONNX file: {str(error)[:120]}",
        "it is truncated or another format; copy or export it again",
    )


def _operators(model: Any) -> Iterator[Finding]:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    own = {(function.domain, function.name) for function in model.functions}
    unknown: dict[tuple[str, str], list[str]] = {}
    bound: dict[str, list[str]] = {}
    control: list[str] = []
    for node in walk(model.graph):
        if node.op_type in _CONTROL:
            control.append(label_of(node))
        if (node.domain, node.op_type) in own:
            continue
        if node.domain in _RUNTIME_DOMAINS:
            bound.setdefault(node.domain, []).append(label_of(node))
        elif node.domain not in _STANDARD or not defs.has(node.op_type, max_inclusive_version=_version(versions)):
            unknown.setdefault((node.domain or "ai.onnx", node.op_type), []).append(label_of(node))
    for (domain, operator), nodes in sorted(unknown.items()):
        message = f"operator {operator} (domain {domain}) is not known in opset {_version(versions)}: {named(nodes)}"
        advice = "export without it, or replace it by standard ONNX operators"
        yield Finding("error", "unknown_operator", message, advice, tuple(nodes))
    for domain, nodes in sorted(bound.items()):
        yield Finding("warning", "vendor_operator", f"operators of {domain} run in ONNX Runtime only: {named(nodes)}",
                      "other engines will leave this model out", tuple(nodes))  # fmt: skip
    if control:
        yield Finding("warning", "control_flow", f"bodies of {named(control)} are not quantised",
                      "int8 may gain nothing", tuple(control))  # fmt: skip


def _version(versions: dict[str, int]) -> int:
    return int(max((version for domain, version in versions.items() if domain in _STANDARD), default=1))


def _external_data(model: Any, path: Path) -> Iterator[Finding]:
    folder = path.resolve().parent
    missing: set[str] = set()
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        target = (folder / location).resolve()
        if not location or not target.is_relative_to(folder):
            yield Finding("error", "external_data", f"weight {tensor.name} points outside the model's folder",
                          "save the model again with its weights beside it", (tensor.name,))  # fmt: skip
        elif not target.is_file():
            missing.add(location)
    for location in sorted(missing):
        yield Finding("error", "external_data", f"the weights file {location} is not beside the model",
                      f"copy {location} into {folder.name}/")  # fmt: skip


def _opset(model: Any, max_opset: int) -> Iterator[Finding]:
    opset = standard_opset(model)
    if opset == 0:
        yield Finding("error", "opset", "the model names no standard operator set", "export it again")
    elif opset > max_opset:
        yield Finding("warning", "opset", f"opset {opset} is newer than {max_opset}, which all targets load",
                      f"it will be lowered; if that fails, export with opset_version={max_opset}")  # fmt: skip
    elif opset < MIN_QUANTISABLE_OPSET:
        yield Finding("note", "opset", f"opset {opset} will be raised to {MIN_QUANTISABLE_OPSET} for quantisation")


def _shapes(model: Any) -> Iterator[Finding]:
    weights = {tensor.name for tensor in model.graph.initializer}
    if listed := [entry.name for entry in model.graph.input if entry.name in weights]:
        yield Finding("note", "initialiser_inputs", f"{len(listed)} weights are listed as inputs and will be taken off",
                      nodes=tuple(listed))  # fmt: skip
    for entry in model.graph.input:
        if entry.name in weights:
            continue
        sizes = entry.type.tensor_type.shape.dim
        free = [axis for axis, size in enumerate(sizes) if not size.HasField("dim_value") or size.dim_value <= 0]
        if inner := [axis for axis in free if axis > 0]:
            yield Finding("warning", "dynamic_axes", f"axes {inner} of input {entry.name} have no fixed size",
                          "the recipe's resize fixes height and width", (entry.name,))  # fmt: skip
        if 0 in free:
            yield Finding("note", "dynamic_batch", f"the batch axis of input {entry.name} is free", nodes=(entry.name,))


def _weights(model: Any) -> Iterator[Finding]:
    initialisers = {tensor.name: tensor for tensor in model.graph.initializer}
    constants = {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    broken = [name for name, tensor in initialisers.items() if _has_nan(tensor)]
    if broken:
        yield Finding("error", "nan_weights", f"weights hold NaN or infinity: {named(broken)}",
                      "the training diverged; export a sound checkpoint", tuple(broken))  # fmt: skip
    fed = initialisers.keys() | constants
    if not any(node.op_type in _QUANTISABLE and fed.intersection(node.input[1:]) for node in walk(model.graph)):
        yield Finding("warning", "nothing_to_quantise", "no Conv, Gemm or MatMul has constant weights",
                      "int8 would change nothing; build with --precision float32")  # fmt: skip
    if any(node.op_type in {"QuantizeLinear", "QLinearConv", "DequantizeLinear"} for node in walk(model.graph)):
        yield Finding("warning", "already_quantised", "the model is quantised already",
                      "start from the float model; build with --precision float32 otherwise")  # fmt: skip


def _has_nan(tensor: Any) -> bool:
    if tensor.data_location == TensorProto.EXTERNAL:
        return False
    if tensor.data_type not in {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16}:
        return False
    import numpy as np

    return not bool(np.isfinite(numpy_helper.to_array(tensor)).all())


def _checker(path: Path) -> Iterator[Finding]:
    try:
        # By path, so that external weights are found; strict_mode would refuse models engines run happily.
        onnx.checker.check_model(str(path), full_check=False)
    except Exception as error:  # noqa: BLE001 (its classes differ between onnx versions)
        yield Finding("error", "invalid", f"the graph is not valid ONNX: {str(error).splitlines()[0][:200]}",
                      "export the model again")  # fmt: skip
