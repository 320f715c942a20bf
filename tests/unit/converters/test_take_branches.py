"""Branches that never change are taken, others stay, and the answers are the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.passes.bake_constants import bake_constants
from converters.passes.take_branches import take_branches


def graph_of(nodes: list[Any], output: str, weights: dict[str, np.ndarray] | None = None) -> Any:
    """A branch that gives `output`."""
    answer = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    return helper.make_graph(nodes, "branch", [], [answer], constants)


def conditional() -> Any:
    """`x` float32 [N, K], `sr` int64, `flag` bool → `y`, `z`.

    sr 16000: y is x · 2 where K is 4, else x + 1; another sr: y is Relu(x). z: y or −y, as the flag says.
    """
    doubled = graph_of([helper.make_node("Mul", ["x", "w"], ["t"])], "t", {"w": np.float32(2)})
    raised = graph_of([helper.make_node("Add", ["x", "w"], ["t"])], "t", {"w": np.float32(1)})
    nested = graph_of(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "one"], ["k"]),
            helper.make_node("Equal", ["k", "four"], ["is_four"]),
            helper.make_node("If", ["is_four"], ["t"], then_branch=doubled, else_branch=raised),
        ],
        "t",
        {"one": np.int64(1), "four": np.int64(4)},
    )
    plain = graph_of([helper.make_node("Relu", ["x"], ["t"])], "t")
    kept = graph_of([helper.make_node("Identity", ["y"], ["t"])], "t")
    turned = graph_of([helper.make_node("Neg", ["y"], ["t"])], "t")
    nodes = [
        helper.make_node("Equal", ["sr", "rate"], ["is_fast"]),
        helper.make_node("If", ["is_fast"], ["y"], then_branch=nested, else_branch=plain),
        helper.make_node("If", ["flag"], ["z"], then_branch=kept, else_branch=turned),
    ]
    ports = [("x", TensorProto.FLOAT, ["N", "K"]), ("sr", TensorProto.INT64, []), ("flag", TensorProto.BOOL, [])]
    answers = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", "K"]) for name in ("y", "z")]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info(*port) for port in ports], answers,
        [numpy_helper.from_array(np.int64(16000), "rate")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def answers(model: Any, **fed: Any) -> list[np.ndarray]:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y", "z"], fed)


def ops(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node if node.op_type != "Identity"]


@pytest.mark.parametrize(
    ("rate", "sizes", "left"),
    [
        (16000, {"x": [1, 4]}, ["Mul", "If"]),
        (16000, {"x": [1, 3]}, ["Add", "If"]),
        (16000, {}, ["Shape", "Gather", "Equal", "If", "If"]),
        (8000, {}, ["Relu", "If"]),
    ],
)
def test_what_never_changes_is_taken_and_the_answers_stay_the_same(rate, sizes, left) -> None:
    model = conditional()

    taken = take_branches(bake_constants(model, {"sr": rate}), sizes)

    onnx.checker.check_model(taken)
    x = np.linspace(-1, 1, sizes.get("x", [1, 5])[1], dtype=np.float32)[None]
    for flag in (np.asarray(True), np.asarray(False)):
        expected = answers(model, x=x, sr=np.asarray(rate), flag=flag)
        assert all(map(np.array_equal, answers(taken, x=x, flag=flag), expected))
    assert ops(taken) == left
    assert "sr" not in {entry.name for entry in taken.graph.input}


def test_weights_that_only_the_other_branch_used_are_gone() -> None:
    taken = take_branches(bake_constants(conditional(), {"sr": 8000}), {})

    assert [one.name for one in taken.graph.initializer] == []


def test_a_model_without_branches_is_left_alone() -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:]))

    assert take_branches(model, {"x": [1, 4]}) is model
