"""Brings opset and IR version into the range that quantisation needs and every target's engine loads."""

from __future__ import annotations

from typing import Any, Final

from onnx import helper, version_converter

from converters.errors import BadModel

_OLDEST_USEFUL_IR: Final = 4
"""Below, initialisers must be listed as inputs."""


def clamp_versions(model: Any, *, min_opset: int, max_opset: int, max_ir: int) -> Any:
    """A copy with the lowest opset and IR that will do: old engines load it too.

    Raises:
        BadModel: the operators cannot be expressed within these versions.
    """
    current = max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)
    wanted = min(max(current, min_opset), max_opset)
    clamped = type(model)()
    clamped.CopyFrom(model if wanted == current else _converted(model, current, wanted))
    needed = helper.find_min_ir_version_for(
        [entry for entry in clamped.opset_import if entry.domain in {"", "ai.onnx"}], ignore_unknown=True
    )
    clamped.ir_version = min(max(min(clamped.ir_version, max_ir), needed, _OLDEST_USEFUL_IR), max_ir)
    if needed > max_ir:
        raise BadModel("lower the model's IR version", f"opset {wanted} needs IR {needed}, targets load {max_ir}")
    return clamped


def _converted(model: Any, current: int, wanted: int) -> Any:
    try:
        return version_converter.convert_version(model, wanted)
    except Exception as error:
        raise BadModel(
            f"convert the model from opset {current} to {wanted}",
            str(error).splitlines()[0][:200],
            f"export it again with opset_version={wanted}",
        ) from error
