"""Free sizes of a model's inputs, fixed by hand: `--shape image=1,3,224,224`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from converters.errors import BadModel, BadRecipe

Shapes = Mapping[str, Sequence[int]]
"""Sizes by input name."""


def parse_shapes(texts: Iterable[str]) -> dict[str, list[int]]:
    """Shapes as the command line names them (`image=1,3,224,224`, also with `x`). Raises: BadRecipe."""
    found: dict[str, list[int]] = {}
    for text in texts:
        # Names of TensorFlow tensors may hold anything but end before the last "=".
        name, equals, sizes = text.rpartition("=")
        parts = sizes.replace("x", ",").split(",")
        if not equals or not name or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            raise BadRecipe(f"read --shape {text}", "it is not NAME=SIZES", "write for example image=1,3,224,224")
        found[name] = [int(part) for part in parts]
    return found


def fix_shapes(model: Any, shapes: Shapes) -> Any:
    """A copy of an ONNX model whose named inputs have these sizes; the model itself when there are none.

    Raises:
        BadModel: no such input, another number of axes, or an axis that is fixed to another size.
    """
    if not shapes:
        return model
    fixed = type(model)()
    fixed.CopyFrom(model)
    inputs = {entry.name: entry.type.tensor_type.shape.dim for entry in fixed.graph.input}
    for name, sizes in shapes.items():
        if name not in inputs:
            raise BadModel(f"fix the sizes of {name}", "the model has no such input", f"it has {', '.join(inputs)}")
        axes = inputs[name]
        now = [size.dim_value if size.dim_value > 0 else (size.dim_param or "?") for size in axes]
        fixed_now = {axis: size for axis, size in enumerate(now) if isinstance(size, int)}
        if len(axes) != len(sizes) or any(sizes[axis] != size for axis, size in fixed_now.items()):
            raise BadModel(f"fix {name} to {list(sizes)}", f"the model says {now}", "give sizes for its free axes")
        for axis, size in zip(axes, sizes, strict=True):
            axis.dim_value = size
    # Sizes inside, derived from the free ones, are wrong now; engines derive them again.
    del fixed.graph.value_info[:]
    return fixed
