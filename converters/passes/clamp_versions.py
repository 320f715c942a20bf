"""Brings opset and IR version into the range that quantisation needs and every target's engine loads."""

from __future__ import annotations

from typing import Any, Final

from onnx import helper

from converters.errors import BadModel
from converters.model.opset import convert_opset, drop_unused_domains, standard_opset

_OLDEST_USEFUL_IR: Final = 4
"""Below, initialisers must be listed as inputs."""


def clamp_versions(model: Any, *, min_opset: int, max_opset: int, max_ir: int) -> Any:
    """A copy with the lowest opset and IR that will do: old engines load it too.

    Raises:
        BadModel: the operators cannot be expressed within these versions.
    """
    wanted = min(max(standard_opset(model), min_opset), max_opset)
    clamped = type(model)()
    clamped.CopyFrom(convert_opset(model, wanted))
    drop_unused_domains(clamped)
    needed = helper.find_min_ir_version_for(
        [entry for entry in clamped.opset_import if entry.domain in {"", "ai.onnx"}], ignore_unknown=True
    )
    clamped.ir_version = min(max(min(clamped.ir_version, max_ir), needed, _OLDEST_USEFUL_IR), max_ir)
    if needed > max_ir:
        raise BadModel("lower the model's IR version", f"opset {wanted} needs IR {needed}, targets load {max_ir}")
    return clamped
