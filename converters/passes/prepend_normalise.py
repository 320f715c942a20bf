"""Puts normalisation and layout in front of a graph, so that an image model takes uint8 NHWC pictures.

The operations are the runtime's own, in its order and precision (float32), hence exact; folding them into the first
convolution is not, because padded borders would see another zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from converters.errors import BadModel

_TO_NCHW: Final = (0, 3, 1, 2)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """y = (x · scale − mean) / std per channel, then the layout of the model's input."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: str
    """`NCHW` or `NHWC`."""


def prepend_normalise(model: Any, tensor: str, normalisation: Normalisation, *, input_name: str) -> Any:
    """A copy of a model whose input `tensor` is computed from a new uint8 input of layout NHWC.

    Raises:
        BadModel: the input is not a float32 image tensor of four axes, or the name is taken.
    """
    extended = type(model)()
    extended.CopyFrom(model)
    graph = extended.graph
    position, entry = _image_input(graph, tensor)
    if input_name != free_name(model, input_name):
        raise BadModel(f"name the image input {input_name}", "the model uses that name already")
    name = input_name
    current = f"{name}__float"
    nodes = [helper.make_node("Cast", [name], [current], name=f"{name}__cast", to=TensorProto.FLOAT)]
    for step, operator, values, neutral in (
        ("scale", "Mul", (normalisation.scale,), 1.0),
        ("mean", "Sub", normalisation.mean, 0.0),
        ("std", "Div", normalisation.std, 1.0),
    ):
        if all(value == neutral for value in values):
            continue
        constant = numpy_helper.from_array(np.asarray(values, dtype=np.float32), f"{name}__{step}_value")
        graph.initializer.append(constant)
        nodes.append(helper.make_node(operator, [current, constant.name], [f"{name}__{step}"], name=f"{name}__{step}"))
        current = f"{name}__{step}"
    if normalisation.layout == "NCHW":
        permute = {"name": f"{name}__layout", "perm": _TO_NCHW}
        nodes.append(helper.make_node("Transpose", [current], [f"{name}__nchw"], **permute))
    nodes[-1].output[0] = tensor
    existing = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *existing])
    shape = _nhwc(entry, normalisation.layout)
    graph.input[position].CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
    return extended


def free_name(model: Any, wanted: str) -> str:
    """The wanted tensor name, or a longer one when the model uses it."""
    graph = model.graph
    taken = {name for node in graph.node for name in (*node.input, *node.output)}
    taken |= {tensor.name for tensor in graph.initializer} | {entry.name for entry in graph.input}
    while wanted in taken:
        wanted += "_u8"
    return wanted


def _image_input(graph: Any, tensor: str) -> tuple[int, Any]:
    for position, entry in enumerate(graph.input):
        if entry.name == tensor:
            kind = entry.type.tensor_type
            if kind.elem_type != TensorProto.FLOAT or len(kind.shape.dim) != 4:
                raise BadModel(f"feed images to input {tensor}", "it is not a float32 tensor of four axes")
            return position, entry
    raise BadModel(f"feed images to input {tensor}", "the model has no such input")


def _nhwc(entry: Any, layout: str) -> Sequence[int | str | None]:
    sizes = [size.dim_value if size.dim_value > 0 else (size.dim_param or None) for size in
             entry.type.tensor_type.shape.dim]  # fmt: skip
    return [sizes[0], sizes[2], sizes[3], sizes[1]] if layout == "NCHW" else sizes
