"""What a person is told of OpenVINO's exceptions."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from edge_runtime.inference.libraries.openvino_errors import complaint_of


def test_an_operation_that_openvino_does_not_have_is_named_without_places_in_its_source() -> None:
    openvino = pytest.importorskip("openvino")
    nodes = [helper.make_node("FusedThing", ["x"], ["y"], domain="com.microsoft")]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:])
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets)

    with pytest.raises(RuntimeError) as refused:
        openvino.Core().read_model(model.SerializeToString(), b"")

    assert complaint_of(refused.value) == "it has no operation com.microsoft.FusedThing"


def test_what_is_nothing_but_places_is_told_as_it_is() -> None:
    assert complaint_of(RuntimeError("Exception from src/core.cpp:84:")) == "Exception from src/core.cpp:84:"
    assert complaint_of(RuntimeError()) == "RuntimeError"
