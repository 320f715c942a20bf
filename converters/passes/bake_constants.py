"""Inputs that are always given the same number become weights, for tools that give scalars an axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import helper, numpy_helper


def bake_constants(model: Any, constants: Mapping[str, bool | int | float]) -> Any:
    """A copy whose named inputs are initialisers of that value; the model itself when there are none."""
    if not constants:
        return model
    baked = type(model)()
    baked.CopyFrom(model)
    kept = [entry for entry in baked.graph.input if entry.name not in constants]
    for entry in baked.graph.input:
        if entry.name in constants:
            kind = entry.type.tensor_type
            shape = [size.dim_value for size in kind.shape.dim]
            value = np.full(shape, constants[entry.name], helper.tensor_dtype_to_np_dtype(kind.elem_type))
            baked.graph.initializer.append(numpy_helper.from_array(value, entry.name))
    del baked.graph.input[:]
    baked.graph.input.extend(kept)
    return baked
