"""Plain names and a fixed batch change what a model is called, never what it answers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converters.errors import BadModel
from converters.importers.onnx import describe
from converters.passes.plain_ports import plain_names, with_plain_ports
from edge_runtime.inference.backend import BackendOptions, load_backend
from tests.fakes.models import Build
from tests.fakes.onnx_models import conv_classifier


def answer(model: object, name: str, x: np.ndarray) -> np.ndarray:
    content = model.SerializeToString()  # type: ignore[attr-defined]
    session = load_backend("onnxruntime").open({"model": content}, Build("v").manifest(), BackendOptions(threads=1))
    return next(iter(session.run({name: x}).values()))


def adder(first: str, second: str, inner: str, outer: str, batch: int | str = "N") -> object:
    """outer = (first + second) + first, over a tensor called inner."""
    shape = [batch, 3]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in (first, second)]
    out = helper.make_tensor_value_info(outer, TensorProto.FLOAT, shape)
    nodes = [helper.make_node("Add", [first, second], [inner]), helper.make_node("Add", [inner, first], [outer])]
    graph = helper.make_graph(nodes, "g", ports, [out])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_a_renamed_model_answers_alike() -> None:
    model = conv_classifier()
    x = np.random.default_rng(1).random((1, *describe(model).inputs[0].shape[1:]), dtype=np.float32)

    plain = with_plain_ports(model)

    onnx.checker.check_model(plain)
    assert [port.name for port in describe(plain).inputs] == ["input_0"]
    assert [port.name for port in describe(plain).outputs] == ["output_0"]
    assert np.array_equal(answer(plain, "input_0", x), answer(model, describe(model).inputs[0].name, x))


def test_names_that_are_plain_already_but_mean_something_else_make_way() -> None:
    model = adder("input_1", "x", "output_0", "input_0")

    plain = with_plain_ports(model)

    onnx.checker.check_model(plain)
    session = load_backend("onnxruntime").open(
        {"model": plain.SerializeToString()}, Build("v").manifest(), BackendOptions(threads=1)
    )
    feeds = {"input_0": np.full((1, 3), 2, np.float32), "input_1": np.full((1, 3), 5, np.float32)}
    assert session.run(feeds)["output_0"].tolist() == [[9, 9, 9]]
    assert plain_names(model) == {"input_0": "input_1", "input_1": "x", "output_0": "input_0"}


def test_a_free_batch_becomes_one_and_any_other_free_axis_is_refused_with_the_option() -> None:
    assert describe(with_plain_ports(adder("a", "b", "c", "d"))).inputs[0].shape == (1, 3)

    model = conv_classifier()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(BadModel, match=r"axes \[2\] of input .* have no fixed size; build with --shape"):
        with_plain_ports(model)


def test_the_model_itself_stays_as_it_is() -> None:
    model = conv_classifier()
    before = model.SerializeToString(deterministic=True)

    with_plain_ports(model)

    assert model.SerializeToString(deterministic=True) == before
