"""Looks at a model for seconds, before minutes of work: every finding at once, nothing is changed, nothing is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import onnx

from converters.errors import BadModel
from converters.model.fixed_shapes import Shapes, fix_shapes
from converters.model.tflite_file import TfliteFile, read_tflite
from converters.preflight.edgetpu import find_edgetpu
from converters.preflight.edgetpu_onnx import find_edgetpu_in_onnx
from converters.preflight.external_data import find_external_data
from converters.preflight.file_kind import FileKind, look_at_file
from converters.preflight.findings import Finding, has_errors, worst_first
from converters.preflight.onnx_graph import read_onnx
from converters.preflight.operators import find_operators
from converters.preflight.ports import find_ports
from converters.preflight.tensorrt import find_tensorrt
from converters.preflight.tflite_graph import find_in_tflite
from converters.preflight.versions import find_versions
from converters.preflight.weights import find_weights

NEWEST_IR: Final = 10
"""ONNX Runtime 1.23.2, the newest for Python 3.10, refuses anything above."""


def inspect(
    path: Path, *, max_opset: int, families: tuple[str, ...] = ("cpu",), shapes: Shapes | None = None
) -> tuple[Finding, ...]:
    """Everything worth knowing about a model file, worst first.

    Args:
        path: the file, ONNX or TensorFlow Lite.
        max_opset: newest opset that every target's engine loads.
        families: target families it would be built for; findings about others are left out.
        shapes: sizes that the engineer fixed, by input name.
    """
    model = read_model(path)
    if isinstance(model, Finding):
        return (model,)
    if isinstance(model, TfliteFile):
        found = [*_all_of(find_in_tflite(model)), *_tflite_shapes(shapes)]
        found += _all_of(find_edgetpu(model)) if "coral" in families else []
    else:
        found = list(_in_onnx(model, path, max_opset, families, shapes or {}))
    return worst_first(one for one in found if not one.families or set(one.families) & set(families))


def look_at_model(path: Path) -> Finding | None:
    """The reason why a file cannot be read as a model at all; None when it can."""
    found = read_model(path)
    return found if isinstance(found, Finding) else None


def kind_of(path: Path) -> FileKind:
    """The format of a model file, told from its content. Raises: BadModel when it is none."""
    kind = look_at_file(path)
    if isinstance(kind, Finding):
        raise BadModel(f"use {path.name}", kind.message, kind.advice)
    return kind


def read_model(path: Path) -> Any:
    """An ONNX model without external weights, a TfliteFile, or the one finding that says why there is none."""
    kind = look_at_file(path)
    if isinstance(kind, Finding):
        return kind
    if kind == "onnx":
        return read_onnx(path)
    try:
        return read_tflite(path)
    except BadModel as error:
        return Finding("error", error.code, f"{path.name} cannot be read: {error.because}", error.remedy)


def _in_onnx(model: Any, path: Path, max_opset: int, families: tuple[str, ...], shapes: Shapes) -> Iterator[Finding]:
    try:
        model = fix_shapes(model, shapes)
    except BadModel as error:
        yield Finding("error", "shape", f"cannot {error.cannot}: {error.because}", error.remedy)
        return
    found = [
        *_all_of(find_operators(model)),
        *_all_of(find_external_data(model, path)),
        *_all_of(find_versions(model, max_opset=max_opset, max_ir=NEWEST_IR)),
        *_all_of(find_ports(model)),
        *_all_of(find_weights(model)),
    ]
    if not has_errors(one for one in found if not one.families):
        found += _checker(path)
    yield from found
    if "jetson" in families:
        yield from _all_of(find_tensorrt(model))
    if "coral" in families:
        yield from _all_of(find_edgetpu_in_onnx(model))


def _all_of(findings: Iterator[Finding]) -> list[Finding]:
    """What one look finds; one more finding where the file is damaged in a way that its format lets through."""
    found: list[Finding] = []
    try:
        found.extend(findings)
    except Exception as error:  # noqa: BLE001 (names that are no text, sizes that fit nothing: each library has its own)
        because = str(error).strip().splitlines()[:1] or [type(error).__name__]
        found.append(Finding("error", "invalid", f"the model contradicts itself: {because[0][:160]}",
                             "copy or export it again"))  # fmt: skip
    return found


def _tflite_shapes(shapes: Shapes | None) -> Iterator[Finding]:
    if shapes:
        yield Finding("error", "shape", "sizes of a TensorFlow Lite file cannot be fixed afterwards",
                      "convert the model again with fixed sizes; leave --shape out")  # fmt: skip


def _checker(path: Path) -> Iterator[Finding]:
    try:
        # By path, so that external weights are found; strict_mode would refuse models engines run happily.
        onnx.checker.check_model(str(path), full_check=False)
    except Exception as error:  # noqa: BLE001 (its classes differ between onnx versions)
        yield Finding("error", "invalid", f"the graph is not valid ONNX: {str(error).splitlines()[0][:200]}",
                      "export the model again")  # fmt: skip
