from collections.abc import Mapping

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.errors import BadModel
from converters.model.opset import convert_opset, drop_unused_domains, standard_opset

ort = pytest.importorskip("onnxruntime")
X = np.random.default_rng(0).standard_normal((1, 2, 5, 5)).astype(np.float32)


def one_node(
    operator: str,
    opset: int,
    scales: list[float] | None = None,
    inputs: Mapping[str, np.ndarray | None] | None = None,
    **attributes: object,
):
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(X.shape))
    outputs = ["y", "z"] if operator == "Split" else ["y"]
    answer = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    constants = {"scales": np.array(scales, np.float32)} if scales else dict(inputs or {})
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items() if value is not None]
    fed = ["x", *(name if value is not None else "" for name, value in constants.items())]
    node = helper.make_node(operator, fed, outputs, name="node", **attributes)
    graph = helper.make_graph([node], "g", [entry], answer, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def answer_of(model):
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": X})[0]


@pytest.mark.parametrize(
    "model",
    [
        one_node("Upsample", 9, [1, 1, 1.7, 2.3], mode="nearest"),
        one_node("Upsample", 9, [1, 1, 2, 2], mode="linear"),
        one_node("Resize", 10, [1, 1, 1.7, 2.3], mode="nearest"),
        one_node("Resize", 10, [1, 1, 0.6, 0.4], mode="nearest"),
        one_node("Resize", 10, [1, 1, 0.6, 2], mode="linear"),
        one_node("Softmax", 9, axis=1),
        one_node("LogSoftmax", 9, axis=2),
    ],
    ids=lambda model: f"{model.graph.node[0].op_type}-{standard_opset(model)}",
)
def test_a_raised_opset_answers_as_before(model) -> None:
    raised = convert_opset(model, 13)

    assert standard_opset(raised) == 13
    assert np.array_equal(answer_of(raised), answer_of(model))


@pytest.mark.parametrize(
    "model", [one_node("Resize", 10, [1, 1, 0.6, 2], mode="nearest"), one_node("Hardmax", 9, axis=1)]
)
def test_what_cannot_be_raised_exactly_is_refused(model) -> None:
    with pytest.raises(BadModel, match="convert the model from opset"):
        convert_opset(model, 13)


@pytest.mark.parametrize(
    "model",
    [
        one_node("Pad", 18, mode="reflect", inputs={"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
        one_node("Split", 18, axis=3, num_outputs=2),
        one_node("Split", 20, axis=1, inputs={"sizes": np.array([1, 1])}),
        one_node("ReduceMean", 18, keepdims=0, inputs={"axes": np.array([2, 3])}),
        one_node("Resize", 19, mode="linear", inputs={"roi": None, "scales": np.array([1, 1, 2, 2], np.float32)}),
    ],
    ids=lambda model: f"{model.graph.node[0].op_type}-{standard_opset(model)}",
)
def test_a_lowered_opset_answers_as_before(model) -> None:
    lowered = convert_opset(model, 17)

    assert standard_opset(lowered) == 17
    assert {entry.domain for entry in lowered.opset_import} == {""}
    assert np.array_equal(answer_of(lowered), answer_of(model))


def test_a_split_of_unknown_sizes_is_refused() -> None:
    model = one_node("Split", 18, axis=3, num_outputs=2)
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "W"

    with pytest.raises(BadModel, match="opset_version=17"):
        convert_opset(model, 17)


def test_what_the_older_operator_lacks_is_refused() -> None:
    model = one_node("AveragePool", 19, kernel_shape=[2, 2], dilations=[2, 2])

    with pytest.raises(BadModel, match="opset_version=17"):
        convert_opset(model, 17)


def test_operator_sets_that_no_node_is_of_are_taken_off() -> None:
    model = one_node("Relu", 13)
    model.opset_import.extend([helper.make_opsetid("ai.onnx.ml", 5), helper.make_opsetid("com.microsoft", 1)])

    drop_unused_domains(model)

    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
