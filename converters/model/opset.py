"""Expresses a model in another opset, and only where its answers stay the same.

The converter of the onnx package renames operators whose defaults changed between opsets, and says nothing. Seen with
onnx 1.23 against ONNX Runtime: a linear Upsample of opset 9 differs by as much as its input after it became Resize.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from onnx import AttributeProto, checker, helper, numpy_helper, shape_inference, version_converter

from converters.errors import BadModel

_STANDARD: Final = frozenset({"", "ai.onnx"})
_RESIZE_OPSET: Final = 11
"""From here on Resize has coordinate and rounding modes; before it, it knew only `asymmetric`."""
_PAD_AND_SPLIT_OPSET: Final = 18
"""Gave Pad axes and Split a number of outputs."""
_HELD: Final = "edgefleet.held"
_LAST_AXIS_OPSET: Final = 13
"""Before, Hardmax flattened everything from its axis on; the onnx converter overlooks that (not so for Softmax)."""


def standard_opset(model: Any) -> int:
    """The version of the standard operator set a model asks for; 0 when it names none."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in _STANDARD), default=0)


def convert_opset(model: Any, wanted: int) -> Any:
    """A model of another opset with the same answers; the model itself when it has that opset already.

    Raises:
        BadModel: an operator cannot be expressed there, or not exactly.
    """
    current = standard_opset(model)
    if wanted == current:
        return model
    remedy = f"export it again with opset_version={wanted}"
    cannot = f"convert the model from opset {current} to {wanted}"
    if because := _inexact(model, current, wanted):
        raise BadModel(cannot, because, remedy)
    rounding = {node.output[0]: _nearest_mode(model, node) for node in _nodes(model.graph) if _is_resize(node)}
    try:
        converted = version_converter.convert_version(_with_held(model, current, wanted), wanted)
    except Exception as error:  # the C++ converter raises whatever its adapters happen to
        raise BadModel(cannot, _first_line(error), remedy) from error
    if current < _RESIZE_OPSET <= wanted:
        for node in _nodes(converted.graph):
            if node.op_type == "Resize":
                _write_modes(node, rounding.get(node.output[0]) or "floor")
    _release_held(converted)
    # The converter keeps attributes that the older operator does not have; ONNX Runtime then loads nothing.
    if (because := _invalid(converted)) and because != _invalid(model):
        raise BadModel(cannot, because, remedy)
    return converted


def _invalid(model: Any) -> str | None:
    try:
        checker.check_model(model)
    except Exception as error:  # noqa: BLE001 (its classes differ between onnx versions)
        return _first_line(error)
    return None


def drop_unused_domains(model: Any) -> None:
    """Take operator sets off a model's list that none of its nodes is of; ONNX Runtime's optimiser adds all of its own.

    An older engine may refuse a version of theirs that it does not know.
    """
    functions = [node for function in model.functions for node in function.node]
    used = {node.domain for node in (*_nodes(model.graph), *functions)} | _STANDARD
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _inexact(model: Any, current: int, wanted: int) -> str | None:
    """The first operator whose answers would change unnoticed."""
    for node in _nodes(model.graph):
        if _is_resize(node) and current < _RESIZE_OPSET <= wanted and _nearest_mode(model, node) is None:
            return f"{node.op_type} {node.name} picks its neighbours in a way that later opsets do not have"
        if node.op_type == "Hardmax" and current < _LAST_AXIS_OPSET <= wanted:
            return f"Hardmax {node.name} means something else there"
    return None


def _with_held(model: Any, current: int, wanted: int) -> Any:
    """A copy that hides from the converter what means the same in both opsets, because it has no way down for that.

    Pad of opset 18 is that of 13 without its new input and its new mode; so is Split once its sizes are written.
    """
    if not wanted < _PAD_AND_SPLIT_OPSET <= current:
        return model
    copy = type(model)()
    copy.CopyFrom(model)
    sizes = _inferred_sizes(copy) if any(node.op_type == "Split" for node in _nodes(copy.graph)) else {}
    for node in copy.graph.node:
        if node.op_type == "Split" and node.domain in _STANDARD:
            _write_split_sizes(copy.graph, node, sizes)
        if _means_the_same(node):
            node.domain = _HELD
    copy.opset_import.append(helper.make_opsetid(_HELD, 1))
    return copy


def _release_held(model: Any) -> None:
    for node in model.graph.node:
        if node.domain == _HELD:
            node.domain = ""
    kept = [entry for entry in model.opset_import if entry.domain != _HELD]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _means_the_same(node: Any) -> bool:
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Pad":
        return len(node.input) <= 3 and ("mode" not in attributes or attributes["mode"].s != b"wrap")
    return bool(node.op_type == "Split" and len(node.input) == 2 and "num_outputs" not in attributes)


def _inferred_sizes(model: Any) -> dict[str, list[int]]:
    try:
        graph = shape_inference.infer_shapes(model).graph
    except Exception:  # noqa: BLE001 (it fails on some exporters' graphs; the converter then refuses as before)
        return {}
    return {
        entry.name: [size.dim_value for size in entry.type.tensor_type.shape.dim]
        for entry in (*graph.value_info, *graph.input, *graph.output)
    }


def _write_split_sizes(graph: Any, node: Any, sizes: dict[str, list[int]]) -> None:
    """Say in numbers what `num_outputs` says; left as it is where a size is not known."""
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    parts = [sizes.get(name, []) for name in node.output]
    if len(node.input) > 1 or not all(part and part[axis] > 0 for part in parts):
        return
    name = f"{node.output[0]}_split_sizes"
    graph.initializer.append(numpy_helper.from_array(np.array([part[axis] for part in parts], np.int64), name))
    node.input.append(name)
    kept = [attribute for attribute in node.attribute if attribute.name != "num_outputs"]
    del node.attribute[:]
    node.attribute.extend(kept)


def _is_resize(node: Any) -> bool:
    return node.op_type in {"Upsample", "Resize"} and node.domain in _STANDARD


def _nearest_mode(model: Any, node: Any) -> str | None:
    """How opset 10 rounds a coordinate: down where it enlarges, up where it shrinks; None where it does both."""
    mode = next((attribute.s for attribute in node.attribute if attribute.name == "mode"), b"nearest")
    if node.op_type == "Upsample" or mode != b"nearest":
        return "floor"
    scales = _constant(model.graph, node.input[1]) if len(node.input) > 1 else None
    if scales is None or not scales.size:
        return None
    if bool(np.all(scales >= 1)):
        return "floor"
    return "ceil" if bool(np.all(scales <= 1)) else None


def _constant(graph: Any, name: str) -> Any:
    for tensor in graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] == name:
            return next((numpy_helper.to_array(entry.t) for entry in node.attribute if entry.name == "value"), None)
    return None


def _write_modes(node: Any, rounding: str) -> None:
    modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": rounding}
    kept = [attribute for attribute in node.attribute if attribute.name not in modes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(name, value) for name, value in modes.items())])


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
