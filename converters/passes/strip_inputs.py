"""Takes initialisers off the input list: old exporters list them, which blocks constant folding in every engine."""

from __future__ import annotations

from typing import Any


def strip_initialiser_inputs(model: Any) -> Any:
    """A copy of an ONNX model whose inputs are what a caller must feed."""
    stripped = type(model)()
    stripped.CopyFrom(model)
    weights = {tensor.name for tensor in stripped.graph.initializer}
    kept = [entry for entry in stripped.graph.input if entry.name not in weights]
    del stripped.graph.input[:]
    stripped.graph.input.extend(kept)
    # Before IR 4 every initialiser had to be an input; converters check that.
    stripped.ir_version = max(stripped.ir_version, 4)
    return stripped
