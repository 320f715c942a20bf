import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters.preflight.findings import Finding, has_errors
from converters.preflight.onnx_file import inspect
from tests.fakes.onnx_models import conv_classifier, saved


def look(path) -> dict[str, Finding]:
    return {finding.code: finding for finding in inspect(path, max_opset=21)}


def test_a_sound_model_has_no_errors(tmp_path) -> None:
    findings = inspect(saved(conv_classifier(), tmp_path / "m.onnx"), max_opset=21)

    assert not has_errors(findings)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x00\x00\x00\x00TFL3rest", "TensorFlow Lite"),
        (b"<!DOCTYPE html>", "web page"),
        (b"this is no model at all", "is not a whole ONNX file"),
    ],
)
def test_a_file_of_another_kind_is_told_from_its_bytes(tmp_path, content, says) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)

    (finding,) = inspect(path, max_opset=21)

    assert finding.severity == "error"
    assert says in finding.message
    assert finding.advice


def test_a_truncated_model_is_an_error(tmp_path) -> None:
    whole = conv_classifier().SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(whole[: len(whole) // 2])

    assert inspect(path, max_opset=21)[0].code == "truncated"


def test_a_folder_and_a_missing_file_are_named(tmp_path) -> None:
    assert look(tmp_path).keys() == {"not_a_file"}
    assert look(tmp_path / "nothing.onnx").keys() == {"not_found"}


def test_an_unknown_operator_is_named_with_its_domain_and_node(tmp_path) -> None:
    model = conv_classifier()
    model.graph.node[1].op_type, model.graph.node[1].domain = "Sparkle", "acme"

    finding = look(saved(model, tmp_path / "m.onnx"))["unknown_operator"]

    assert finding.severity == "error"
    assert finding.nodes == ("relu",)
    assert "Sparkle (domain acme)" in finding.message


def test_everything_is_found_at_once(tmp_path) -> None:
    model = conv_classifier(opset=9)
    model.graph.node[1].op_type = "Sparkle"
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, weights.shape))

    found = look(saved(model, tmp_path / "m.onnx"))

    assert {"unknown_operator", "nan_weights", "opset", "initialiser_inputs", "dynamic_batch"} <= found.keys()


def test_weights_that_did_not_come_along_are_named(tmp_path) -> None:
    model = conv_classifier()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())

    assert "weights.bin" in look(path)["external_data"].message


def test_weights_outside_the_models_folder_are_refused(tmp_path) -> None:
    model = conv_classifier()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())

    assert "outside" in look(path)["external_data"].message


def test_a_model_without_quantisable_weights_is_a_warning(tmp_path) -> None:
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [entry], [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)

    assert look(saved(model, tmp_path / "m.onnx"))["nothing_to_quantise"].severity == "warning"
