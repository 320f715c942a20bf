"""Small ONNX models for the converter's tests, sound and broken in one way each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def conv_classifier(*, opset: int = 13, ir: int = 7, layout_channels: int = 3) -> Any:
    """`input` float32 [N, 3, 8, 8] → Conv, Relu, mean → `logits` float32 [N, 4, 1, 1]."""
    rng = np.random.default_rng(3)
    weights = rng.standard_normal((4, layout_channels, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], name="first_conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["logits"], name="pool"),
    ]
    entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", layout_channels, 8, 8])
    answer = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4, 1, 1])
    graph = helper.make_graph(nodes, "g", [entry], [answer], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def reshaped_weights() -> Any:
    """`input` float32 [1, 8] → MatMul with weights that a Reshape makes of [2, 4, 6], as CNTK writes them → `y`."""
    weights = np.random.default_rng(4).standard_normal((2, 4, 6)).astype(np.float32)
    nodes = [
        helper.make_node("Reshape", ["w", "shape"], ["flat"], name="reshape"),
        helper.make_node("MatMul", ["input", "flat"], ["y"], name="dense"),
    ]
    entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 8])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 6])
    constants = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.array([8, 6]), "shape")]
    graph = helper.make_graph(nodes, "g", [entry], [answer], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


def saved(model: Any, path: Path) -> Path:
    """The path, now holding the model."""
    onnx.save(model, str(path))
    return path
