"""A quantised MobileNet as the float ONNX model it stands for: weights in real numbers, nothing else changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converters.model.tflite_file import TfliteGraph, TfliteOperator, TfliteTensor, parse_tflite

_SAME = 0


def float_mobilenet(content: bytes) -> Any:
    """`input` float32 [1, 3, H, W] (the picture as −1..1) → `scores` float32 [1, classes], opset 17.

    Knows the operators of MobileNet 1 and 2 and no other.
    """
    graph = parse_tflite(content, "mobilenet").main
    return _Rewriter(graph).model()


class _Rewriter:
    def __init__(self, graph: TfliteGraph) -> None:
        self._graph = graph
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def model(self) -> Any:
        graph = self._graph
        for operator in graph.operators:
            {
                "CONV_2D": self._conv, "DEPTHWISE_CONV_2D": self._conv, "ADD": self._add, "AVERAGE_POOL_2D": self._pool,
                "RESHAPE": self._reshape, "SOFTMAX": self._softmax, "FULLY_CONNECTED": self._dense,
            }[operator.kind](operator)  # fmt: skip
        (taken,), (given,) = graph.inputs, graph.outputs
        for node in self._nodes:
            node.input[:] = ["input" if name == _name(taken) else name for name in node.input]
        _, height, width, channels = graph.tensors[taken].shape
        self._nodes[-1].output[0] = "scores"
        ports = (
            helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, channels, height, width]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, list(graph.tensors[given].shape)),
        )
        made = helper.make_graph(self._nodes, "mobilenet", [ports[0]], [ports[1]], self._weights)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        return model

    def _conv(self, operator: TfliteOperator) -> None:
        picture, weights, bias = self._graph.given(operator)
        assert picture is not None
        assert weights is not None
        assert bias is not None
        kernel = _real(weights)
        is_depthwise = operator.kind == "DEPTHWISE_CONV_2D"
        # TFLite keeps [out, h, w, in], and [1, h, w, channels] for one filter per channel.
        kernel = kernel.transpose(3, 0, 1, 2) if is_depthwise else kernel.transpose(0, 3, 1, 2)
        strides = [int(operator.options["strideH"]), int(operator.options["strideW"])]  # type: ignore[arg-type]
        pads = _pads(picture.shape[1:3], kernel.shape[2:], strides, operator)
        self._made(
            operator, "Conv", [_name(picture.index), self._weight(weights, kernel), self._weight(bias, _real(bias))],
            strides=strides, pads=pads, group=kernel.shape[0] if is_depthwise else 1,
        )  # fmt: skip

    def _dense(self, operator: TfliteOperator) -> None:
        vector, weights, bias = self._graph.given(operator)
        assert vector is not None
        assert weights is not None
        assert bias is not None
        names = [_name(vector.index), self._weight(weights, _real(weights)), self._weight(bias, _real(bias))]
        self._made(operator, "Gemm", names, transB=1)

    def _add(self, operator: TfliteOperator) -> None:
        self._made(operator, "Add", [_name(index) for index in operator.inputs])

    def _pool(self, operator: TfliteOperator) -> None:
        size = [int(operator.options["filterHeight"]), int(operator.options["filterWidth"])]  # type: ignore[arg-type]
        self._made(operator, "AveragePool", [_name(operator.inputs[0])], kernel_shape=size, strides=size)

    def _reshape(self, operator: TfliteOperator) -> None:
        (made,) = self._graph.made(operator)
        # One pixel is left, so the order of channels and pixels does not matter.
        shape = self._weight(made, np.asarray(made.shape, np.int64), "shape")
        self._made(operator, "Reshape", [_name(operator.inputs[0]), shape])

    def _softmax(self, operator: TfliteOperator) -> None:
        self._made(operator, "Softmax", [_name(operator.inputs[0])], axis=-1)

    def _made(self, operator: TfliteOperator, kind: str, inputs: list[str], **options: Any) -> None:
        result = _name(operator.outputs[0])
        (made,) = self._graph.made(operator)
        # These files say ReLU6 by the range of the result alone: 255 steps from 0 to 6.
        affine = made.affine
        is_relu6 = affine is not None and affine.zero_points == (0,) and abs(255 * affine.scales[0] - 6) < 0.01
        inner = f"{result}_linear" if is_relu6 and kind == "Conv" else result
        self._nodes.append(helper.make_node(kind, inputs, [inner], name=f"{kind}_{operator.index}", **options))
        if inner != result:
            limits = [self._constant("zero", 0.0), self._constant("six", 6.0)]
            self._nodes.append(helper.make_node("Clip", [inner, *limits], [result], name=f"Clip_{operator.index}"))

    def _constant(self, name: str, value: float) -> str:
        if not any(tensor.name == name for tensor in self._weights):
            self._weights.append(numpy_helper.from_array(np.float32(value), name))
        return name

    def _weight(self, tensor: TfliteTensor, values: np.ndarray[Any, Any], what: str = "weight") -> str:
        name = f"{what}_{tensor.index}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name


def _real(tensor: TfliteTensor) -> np.ndarray[Any, Any]:
    """A constant in real numbers, float32."""
    values, affine = tensor.values(), tensor.affine
    assert values is not None
    if affine is None:
        return values.astype(np.float32)
    shape = [1] * values.ndim
    shape[affine.axis if affine.is_per_channel else 0] = -1
    scales, zeros = (np.asarray(numbers, np.float64).reshape(shape) for numbers in (affine.scales, affine.zero_points))
    real: np.ndarray[Any, Any] = ((values.astype(np.float64) - zeros) * scales).astype(np.float32)
    return real


def _pads(size: tuple[int, ...], kernel: tuple[int, ...], strides: list[int], operator: TfliteOperator) -> list[int]:
    if operator.options.get("padding") != _SAME:
        return [0, 0, 0, 0]
    wanted = [max((-(-have // step) - 1) * step + filled - have, 0)
              for have, filled, step in zip(size, kernel, strides, strict=True)]  # fmt: skip
    begins = [total // 2 for total in wanted]
    return [*begins, *(total - begin for total, begin in zip(wanted, begins, strict=True))]


def _name(index: int) -> str:
    return f"t{index}"
