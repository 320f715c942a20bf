"""Opset and IR: raised for quantisation when that is exact, lowered to what the oldest engine of the targets loads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from onnx import TensorProto, defs

from converters.errors import BadModel
from converters.model.opset import convert_opset, standard_opset
from converters.preflight.findings import Finding, named
from converters.preflight.onnx_graph import constants_of, label_of, walk

MIN_QUANTISABLE_OPSET: Final = 13
"""Per-channel quantisation is invalid below; ONNX Runtime writes such a file without complaint and then refuses it."""

OLDEST_OPSET: Final = 7
"""ONNX Runtime promises nothing below (documentation, Compatibility)."""

_MOST_CONVERTED_BYTES: Final = 256 * 1024**2
"""A look takes seconds: larger models are converted by the build alone."""


def find_versions(model: Any, *, max_opset: int, max_ir: int) -> Iterator[Finding]:
    """What will happen to opset and IR, and why it cannot."""
    opset = standard_opset(model)
    if opset == 0:
        yield Finding("error", "opset", "the model names no standard operator set", "export it again")
        return
    if opset > defs.onnx_opset_version():
        newest = defs.onnx_opset_version()
        yield Finding("error", "opset", f"opset {opset} is newer than this converter's onnx, which knows {newest}",
                      f"pip install --upgrade onnx, or export with opset_version={max_opset}")  # fmt: skip
        return
    if opset < OLDEST_OPSET:
        yield Finding("error", "opset", f"opset {opset} is older than {OLDEST_OPSET}, the oldest that engines load",
                      f"export it again with opset_version={MIN_QUANTISABLE_OPSET}")  # fmt: skip
        return
    yield from _opset(model, opset, min(max(opset, MIN_QUANTISABLE_OPSET), max_opset))
    yield from _per_channel(model, opset)
    if model.ir_version > max_ir:
        yield Finding(
            "note", "ir_version", f"IR {model.ir_version} will be lowered to {max_ir}, which all targets load"
        )


def _opset(model: Any, opset: int, wanted: int) -> Iterator[Finding]:
    if wanted == opset:
        return
    verb, reason = ("raised", "for quantisation") if wanted > opset else ("lowered", "which all targets load")
    if because := _conversion_problem(model, wanted):
        yield Finding("error", "opset", f"opset {opset} cannot be {verb} to {wanted}: {because}",
                      f"export the model with opset_version={wanted}")  # fmt: skip
    elif wanted > opset:
        yield Finding("note", "opset", f"opset {opset} will be raised to {wanted} {reason}")
    else:
        yield Finding("warning", "opset", f"opset {opset} will be lowered to {wanted}, {reason}",
                      f"if an engine refuses it, export with opset_version={wanted}")  # fmt: skip


def _conversion_problem(model: Any, wanted: int) -> str | None:
    if model.ByteSize() > _MOST_CONVERTED_BYTES:
        return None
    try:
        convert_opset(model, wanted)
    except BadModel as error:
        return error.because
    return None


def _per_channel(model: Any, opset: int) -> Iterator[Finding]:
    if opset >= MIN_QUANTISABLE_OPSET:
        return
    constants = constants_of(model.graph)
    nodes = [
        label_of(node)
        for node in walk(model.graph)
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"} and _has_many(constants.get(node.input[1]))
    ]
    if nodes:
        yield Finding("error", "per_channel_opset",
                      f"opset {opset} has no per-channel scales, so this graph is invalid: {named(nodes)}",
                      "quantise again from the float model; its opset will be raised first", tuple(nodes))  # fmt: skip


def _has_many(scale: TensorProto | None) -> bool:
    return scale is not None and len(scale.dims) > 0 and any(size > 1 for size in scale.dims)
