"""How a model ends: the operator that makes an output, seen through those that change no number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from converters.model.source import Imported

Activation = Literal["none", "softmax", "sigmoid"]

_PASSING: Final = frozenset(
    {"cast", "dequantize", "dequantizelinear", "flatten", "identity", "quantize", "quantizelinear", "reshape",
     "squeeze", "transpose", "unsqueeze"}
)  # fmt: skip
"""Operators that hand scores on."""
_ACTIVATIONS: Final[Mapping[str, Activation]] = {"softmax": "softmax", "sigmoid": "sigmoid", "logistic": "sigmoid"}


def activation_in(imported: Imported, output: str) -> Activation:
    """The activation that an output has been through already; `none` when its last operator is another one."""
    makers = _of_tflite(imported.model) if imported.format == "tflite" else _of_onnx(imported.model)
    name: str | None = output
    # A graph may be damaged: nobody follows a circle.
    for _ in range(len(makers)):
        if name is None or name not in makers:
            break
        kind, name = makers[name]
        if kind not in _PASSING:
            return _ACTIVATIONS.get(kind, "none")
    return "none"


def _of_onnx(model: Any) -> dict[str, tuple[str, str | None]]:
    """What makes each tensor, and from what."""
    makers: dict[str, tuple[str, str | None]] = {}
    for node in model.graph.node:
        makers |= dict.fromkeys(node.output, (node.op_type.lower(), next(iter(node.input), None)))
    return makers


def _of_tflite(content: bytes) -> dict[str, tuple[str, str | None]]:
    from converters.model.tflite_file import parse_tflite

    graph = parse_tflite(content, "the model").main
    makers: dict[str, tuple[str, str | None]] = {}
    for operator in graph.operators:
        given = graph.given(operator)
        source = given[0].name if given and given[0] is not None else None
        makers |= {made.name: (operator.kind.lower(), source) for made in graph.made(operator)}
    return makers
