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


def saved(model: Any, path: Path) -> Path:
    """The path, now holding the model."""
    onnx.save(model, str(path))
    return path
