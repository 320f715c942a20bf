import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from converters.errors import BadRecipe
from converters.model.fixed_shapes import parse_shapes
from converters.preflight.findings import Finding, has_errors, stops
from converters.preflight.inspect import inspect, kind_of
from tests.fakes.onnx_models import conv_classifier, saved
from tests.fakes.tflite_models import int8_classifier


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
        (b"PK\x03\x04rest", "zip archive of something, cut off"),
        (b"\x00\x00\x00\x00ftrtrest", "TensorRT engine"),
        (b"\x00\x00\x00\x00TFL3rest", "not a whole TensorFlow Lite file"),
        (b"<!DOCTYPE html>", "web page"),
        (b"this is no model at all", "is not a model but text"),
        ("für\n".encode() * 200, "is not a model but text"),
        (b"\x08\x00this is no model at all", "is not a whole ONNX file"),
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


def test_weights_that_are_shorter_than_the_model_says_are_named(tmp_path) -> None:
    model = conv_classifier()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", "432")):
        tensor.external_data.add(key=key, value=value)
    (tmp_path / "weights.bin").write_bytes(b"version https://git-lfs")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())

    assert "has 23 bytes, the model needs 432" in look(path)["external_data"].message


@pytest.mark.parametrize(
    ("member", "says"),
    [
        ("archive/data.pkl", "weights saved by PyTorch"),
        ("model/archive_format", "exported by PyTorch"),
        ("model.weights.h5", "saved by Keras"),
        ("folder/model.onnx", "is a zip archive of an ONNX model"),
        ("cat.jpg", "1 other files"),
    ],
)
def test_an_archive_is_told_from_what_it_holds(tmp_path, member, says) -> None:
    with zipfile.ZipFile(tmp_path / "m.onnx", "w") as archive:
        archive.writestr(member, "")

    assert says in look(tmp_path / "m.onnx")["not_onnx"].message


def test_the_name_of_a_file_says_nothing_about_its_kind(tmp_path) -> None:
    (tmp_path / "m.onnx").write_bytes(int8_classifier().content())
    saved(conv_classifier(), tmp_path / "m.tflite")

    assert kind_of(tmp_path / "m.onnx") == "tflite"
    assert kind_of(tmp_path / "m.tflite") == "onnx"
    assert not has_errors([*look(tmp_path / "m.onnx").values(), *look(tmp_path / "m.tflite").values()])


def test_a_model_without_quantisable_weights_is_a_warning(tmp_path) -> None:
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [entry], [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)

    assert look(saved(model, tmp_path / "m.onnx"))["nothing_to_quantise"].severity == "warning"


def test_an_opset_that_cannot_be_raised_is_an_error_with_the_reason(tmp_path) -> None:
    model = conv_classifier(opset=9)
    model.graph.node.append(helper.make_node("Hardmax", ["logits"], ["h"], name="hard"))

    finding = look(saved(model, tmp_path / "m.onnx"))["opset"]

    assert finding.severity == "error"
    assert "opset 9 cannot be raised to 13: Hardmax hard" in finding.message
    assert "opset_version=13" in finding.advice


def test_an_opset_and_an_ir_too_new_for_the_targets_are_lowered(tmp_path) -> None:
    found = look(saved(conv_classifier(opset=23, ir=12), tmp_path / "m.onnx"))

    assert "opset 23 will be lowered to 21" in found["opset"].message
    assert "IR 12 will be lowered to 10" in found["ir_version"].message


def test_scales_per_channel_are_invalid_below_the_opset_that_has_them(tmp_path) -> None:
    model = conv_classifier(opset=11)
    scale = numpy_helper.from_array(np.ones(4, np.float32), "scale")
    zero = numpy_helper.from_array(np.zeros(4, np.int8), "zero")
    weights = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.int8), "q")
    model.graph.initializer.extend([scale, zero, weights])
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], name="dequantise"))

    found = look(saved(model, tmp_path / "m.onnx"))["per_channel_opset"]

    assert found.severity == "error"
    assert found.nodes == ("dequantise",)


def test_whole_numbers_states_and_free_sizes_are_named(tmp_path) -> None:
    model = conv_classifier()
    graph = model.graph
    graph.input.append(helper.make_tensor_value_info("sr", TensorProto.INT64, []))
    graph.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, "B", 8]))
    graph.output.append(helper.make_tensor_value_info("stateN", TensorProto.FLOAT, [2, "B", 8]))
    graph.node.append(helper.make_node("Identity", ["state"], ["stateN"]))
    path = saved(model, tmp_path / "m.onnx")

    found = look(path)

    assert "sr is int64 and stays so" in found["integer_input"].message
    assert found["state"].nodes == ("state", "stateN")
    assert found["dynamic_axes"].advice == "fix them: --shape state=2,1,8"
    fixed = inspect(path, max_opset=21, shapes={"state": [2, 1, 8]})
    assert "dynamic_axes" not in {finding.code for finding in fixed}


@pytest.mark.parametrize(
    ("shapes", "says"),
    [
        ({"nobody": [1]}, "no such input"),
        ({"input": [1, 3, 8]}, "the model says"),
        ({"input": [1, 3, 9, 8]}, "the model says"),
    ],
)
def test_a_shape_that_does_not_fit_is_an_error(tmp_path, shapes, says) -> None:
    path = saved(conv_classifier(), tmp_path / "m.onnx")

    (finding,) = inspect(path, max_opset=21, shapes=shapes)

    assert finding.severity == "error"
    assert says in finding.message


def test_shapes_are_read_from_the_command_line() -> None:
    assert parse_shapes(["x:0=1,3", "a=b=2x4"]) == {"x:0": [1, 3], "a=b": [2, 4]}
    for wrong in ("x", "=1", "x=", "x=1,-1", "x=a"):
        with pytest.raises(BadRecipe, match="--shape"):
            parse_shapes([wrong])


def test_each_family_is_told_only_what_concerns_it(tmp_path) -> None:
    model = conv_classifier()
    model.graph.node[1].domain, model.graph.node[1].op_type = "com.microsoft", "Gelu"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    vendor = saved(model, tmp_path / "v.onnx")

    cpu, coral = (inspect(vendor, max_opset=21, families=(family,)) for family in ("cpu", "coral"))

    assert not stops(cpu, "cpu")
    assert stops(coral, "coral")


def test_what_tensorrt_narrows_or_refuses_is_said_for_a_jetson(tmp_path) -> None:
    model = conv_classifier()
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.ones(1, np.float64), "double"))
    graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "scale"))
    graph.initializer.append(numpy_helper.from_array(np.uint8(3), "zero"))
    graph.node.append(helper.make_node("QuantizeLinear", ["logits", "scale", "zero"], ["q"], name="quantise"))
    graph.node.append(helper.make_node("Unique", ["logits"], ["u"], name="unique"))
    path = saved(model, tmp_path / "m.onnx")

    found = {finding.code: finding for finding in inspect(path, max_opset=21, families=("jetson",))}

    assert found["tensorrt_types"].nodes == ("double",)
    assert found["tensorrt_asymmetric"].nodes == ("quantise",)
    assert found["tensorrt_operator"].severity == "error"
    assert found["tensorrt_operator"].nodes == ("unique",)


def test_a_forecast_for_an_edge_tpu_names_what_it_lacks(tmp_path) -> None:
    model = conv_classifier(opset=14)
    model.graph.node[1].op_type = "HardSwish"
    path = saved(model, tmp_path / "m.onnx")

    found = {finding.code: finding for finding in inspect(path, max_opset=21, families=("coral",))}

    assert found["edgetpu_operator"].nodes == ("relu",)
    assert "ReLU6" in found["edgetpu_operator"].advice
    assert "fit on the chip" in found["edgetpu_parameters"].message
    assert "edgetpu_nothing" not in found


CONTENT = conv_classifier().SerializeToString()


@given(st.lists(st.tuples(st.integers(0, len(CONTENT) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_whatever_bytes_a_file_holds_a_look_ends_in_findings(tmp_path, changes: list[tuple[int, int]]) -> None:
    content = bytearray(CONTENT)
    for position, byte in changes:
        content[position] = byte
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(content))

    # Any exception fails the test.
    findings = inspect(path, max_opset=21, families=("cpu", "coral", "jetson"))

    assert all(finding.message for finding in findings)


def test_weights_of_another_size_than_the_model_says_are_named(tmp_path) -> None:
    model = conv_classifier()
    model.graph.initializer[0].dims[0] = 5

    finding = look(saved(model, tmp_path / "m.onnx"))["invalid"]

    assert finding.nodes == ("w",)
