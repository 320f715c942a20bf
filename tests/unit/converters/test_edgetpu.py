from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from converters.model.tflite_file import TfliteFile, parse_tflite
from converters.preflight.edgetpu import find_edgetpu, map_to_edgetpu, parameters_fit
from converters.preflight.findings import Finding
from converters.preflight.tflite_graph import find_in_tflite
from tests.fakes.tflite_models import Model, Operator, Tensor, int8_classifier

CLASSIFIER = int8_classifier()


def followed_by(*operators: Operator, tensors: tuple[Tensor, ...] = (), **changes: Any) -> TfliteFile:
    """The int8 classifier with more operators behind it; the last one writes the model's output."""
    model = int8_classifier(
        tensors=[*CLASSIFIER.tensors, *tensors],
        operators=[*CLASSIFIER.operators, *operators],
        outputs=(operators[-1].outputs[0],),
        **changes,
    )
    return read(model)


def read(model: Model) -> TfliteFile:
    return parse_tflite(model.content(), "m.tflite")


def found_in(model: TfliteFile) -> Mapping[str, Finding]:
    return {finding.code: finding for finding in find_edgetpu(model)}


def whole(name: str, *values: int) -> Tensor:
    array = np.array(values, np.int32)
    return Tensor(name, array.shape, "INT32", scales=(), values=array)


def test_an_int8_classifier_is_mapped_whole_and_fits() -> None:
    found = found_in(read(CLASSIFIER))

    assert found.keys() == {"edgetpu_parameters"}
    assert found["edgetpu_parameters"].severity == "note"


@pytest.mark.parametrize(
    ("operator", "tensors", "code", "says"),
    [
        (Operator("HARD_SWISH", ("out",), ("y",)), (), "edgetpu_operator", "no such operator"),
        (Operator("acme", ("out",), ("y",)), (), "edgetpu_operator", "no such operator"),
        (Operator("RELU", ("out",), ("y",), 3), (), "edgetpu_version", "version 3 is newer"),
        (Operator("DEQUANTIZE", ("out",), ("f",)), (Tensor("f", (1, 8, 8, 4), "FLOAT32"),), "edgetpu_operator", ""),
        (Operator("QUANTIZE", ("out",), ("f",)), (Tensor("f", (1, 8, 8, 4), "FLOAT32"),), "edgetpu_float", "float32"),
        (Operator("ADD", ("out", "out"), ("w16",)), (Tensor("w16", (1, 8, 8, 4), "INT16"),), "edgetpu_type", "int16"),
        (Operator("RESHAPE", ("out",), ("r",)), (Tensor("r", (2, 4, 8, 2, 2)),), "edgetpu_rank", "[2, 4, 8, 2, 2]"),
        (
            Operator("MAX_POOL_2D", ("out",), ("y",), 2, ("Pool2DOptions", {"fusedActivationFunction": 1})),
            (), "edgetpu_limit", "fused activation",
        ),
        (
            Operator("CONV_2D", ("out", "k"), ("y",), 3, ("Conv2DOptions", {"dilationWFactor": 2})),
            (Tensor("k", (4, 1, 1, 4), values=np.ones((4, 1, 1, 4), np.int8)),), "edgetpu_limit", "unequal dilation",
        ),
        (Operator("CONV_2D", ("out", "out"), ("y",), 3), (), "edgetpu_limit", "not constant"),
        (Operator("SOFTMAX", ("out",), ("y",), 2), (), "edgetpu_limit", "more than one row"),
        (
            Operator("CONCATENATION", ("out", "c"), ("y",), 2),
            (Tensor("c", (1, 8, 8, 4), values=np.ones((1, 8, 8, 4), np.int8)),), "edgetpu_limit", "not zero padding",
        ),
        (Operator("MEAN", ("out", "axes"), ("y",), 2), (whole("axes", 0),), "edgetpu_limit", "batch axis"),
        (Operator("SUM", ("out", "axes"), ("y",)), (whole("axes", -4),), "edgetpu_limit", "batch axis"),
        (Operator("STRIDED_SLICE", ("out", "b", "e", "s"), ("y",), 2),
         (whole("b", 0, 0, 0, 0), whole("e", 1, 8, 8, 4), whole("s", 1, 2, 1, 1)), "edgetpu_limit", "strides"),
        (Operator("SPLIT", ("axis", "out"), ("y",), 2), (whole("axis", 0),), "edgetpu_limit", "batch axis"),
        (Operator("SQUEEZE", ("s511",), ("y",)), (Tensor("s511", (5, 1, 10)),), "edgetpu_limit", "not leading"),
        (Operator("PRELU", ("out", "alpha"), ("y",)),
         (Tensor("alpha", (8, 8, 4), values=np.ones((8, 8, 4), np.int8)),), "edgetpu_limit", "alpha"),
    ],
)  # fmt: skip
def test_what_the_table_forbids_is_found_with_its_node(operator, tensors, code, says) -> None:
    named = {tensor.name for tensor in tensors}
    more = () if "y" in named or operator.outputs[0] in named else (Tensor(operator.outputs[0], (1, 8, 8, 4)),)

    finding = found_in(followed_by(operator, tensors=(*tensors, *more)))[code]

    assert says in finding.message
    assert finding.families == ("coral",)
    assert finding.nodes[0].startswith(f"{operator.kind} 1")
    assert finding.advice


@pytest.mark.parametrize(
    ("operator", "tensors"),
    [
        (Operator("MEAN", ("out", "axes"), ("y",), 2), (whole("axes", 1, 2), Tensor("y", (1, 4)))),
        (Operator("SOFTMAX", ("flat",), ("y",), 2), (Tensor("flat", (1, 10)), Tensor("y", (1, 10)))),
        (Operator("PAD", ("out", "amounts"), ("y",), 2),
         (Tensor("amounts", (4, 2), "INT32", scales=(), values=np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)),
          Tensor("y", (1, 10, 10, 4)))),
        (Operator("SQUEEZE", ("s1110",), ("y",)), (Tensor("s1110", (1, 1, 10)), Tensor("y", (10,)))),
        (Operator("CONCATENATION", ("out", "c"), ("y",), 2),
         (Tensor("c", (1, 8, 8, 4), zero_points=(-128,), values=np.full((1, 8, 8, 4), -128, np.int8)),
          Tensor("y", (1, 8, 8, 8)))),
    ],
)  # fmt: skip
def test_what_the_table_allows_is_mapped(operator, tensors) -> None:
    mapping = map_to_edgetpu(followed_by(operator, tensors=tensors).main)

    assert [one.kind for one in mapping.mapped] == ["CONV_2D", operator.kind]


def test_whatever_comes_after_a_refused_operator_stays_on_the_cpu() -> None:
    model = followed_by(
        Operator("LEAKY_RELU", ("out",), ("l",)),
        Operator("RELU", ("l",), ("r",)),
        Operator("ADD", ("r", "out"), ("y",)),
        tensors=tuple(Tensor(name, (1, 8, 8, 4)) for name in ("l", "r", "y")),
    )

    found = found_in(model)

    assert "PReLU" in found["edgetpu_operator"].advice
    assert "1 of 4 operators run on the Edge TPU" in found["edgetpu_share"].message
    assert found["edgetpu_share"].nodes == ("RELU 2 (r)", "ADD 3 (y)")


def test_converting_a_float_input_cuts_nothing_off() -> None:
    model = int8_classifier(
        tensors=[Tensor("camera", (1, 8, 8, 3), "FLOAT32"), *CLASSIFIER.tensors],
        operators=[Operator("QUANTIZE", ("camera",), ("image",)), *CLASSIFIER.operators],
        inputs=("camera",),
    )

    mapping = map_to_edgetpu(read(model).main)

    assert [operator.kind for operator in mapping.mapped] == ["CONV_2D"]


def fully_connected(scales: tuple[float, ...], dtype: str = "INT8") -> TfliteFile:
    is_float = dtype == "FLOAT32"
    weights = np.ones((4, 12), np.float32 if is_float else np.int8)
    return read(
        Model(
            tensors=[
                Tensor("x", (1, 12), dtype),
                Tensor("w", (4, 12), dtype, scales=scales, values=weights),
                Tensor("y", (1, 4), dtype),
            ],
            operators=[Operator("FULLY_CONNECTED", ("x", "w", ""), ("y",), 4)],
            inputs=("x",),
            outputs=("y",),
        )
    )


def test_a_fully_connected_layer_with_a_scale_per_channel_stops_the_compiler() -> None:
    finding = found_in(fully_connected((0.1, 0.2, 0.3, 0.4)))["edgetpu_per_channel"]

    assert finding.severity == "error"
    assert "per tensor" in finding.advice
    assert "edgetpu_per_channel" not in found_in(fully_connected((0.1,)))


def test_a_float_file_is_judged_as_the_int8_file_it_will_become() -> None:
    model = fully_connected((), "FLOAT32")

    found = found_in(model)

    assert "edgetpu_float" not in found
    assert "quantised to int8 first" in found["edgetpu_route"].message
    # 48 weights of one byte: what is float now takes a quarter.
    assert "0.00 MiB" in found["edgetpu_parameters"].message


def test_free_sizes_inside_the_graph_are_an_error() -> None:
    tensors = [*CLASSIFIER.tensors[:3], Tensor("out", (1, 1, 1, 4), signature=(1, -1, -1, 4))]

    assert found_in(read(int8_classifier(tensors=tensors)))["edgetpu_dynamic"].nodes == ("out",)


def test_parameters_beyond_the_chip_are_a_warning_with_their_size() -> None:
    finding = parameters_fit(12 * 1024**2)

    assert finding.severity == "warning"
    assert "12.00 MiB" in finding.message
    assert parameters_fit(7 * 1024**2).severity == "note"


def test_a_graph_without_anything_to_map_is_an_error() -> None:
    model = Model(
        tensors=[Tensor("x", (1, 8, 8, 4)), Tensor("y", (1, 8, 8, 4))],
        operators=[Operator("ELU", ("x",), ("y",))],
        inputs=("x",),
        outputs=("y",),
    )

    assert found_in(read(model))["edgetpu_nothing"].severity == "error"


def test_a_compiled_file_is_refused_for_every_target() -> None:
    model = read(int8_classifier(operators=[Operator("edgetpu-custom-op", ("image",), ("out",))]))

    (finding,) = (*find_in_tflite(model), *find_edgetpu(model))

    assert finding.code == "already_compiled"
    assert finding.families == ()


def test_states_custom_operators_and_nan_are_found_in_any_tflite_file() -> None:
    broken = np.full((4, 3, 3, 3), np.nan, np.float32)
    model = int8_classifier(
        tensors=[
            Tensor("image", (1, 8, 8, 3), "FLOAT32"),
            Tensor("w", (4, 3, 3, 3), "FLOAT32", values=broken),
            Tensor("b", (4,), "FLOAT32", values=np.zeros(4, np.float32)),
            Tensor("out", (1, 8, 8, 4), "FLOAT32", is_variable=True),
        ],
        operators=[*CLASSIFIER.operators, Operator("FlexErf", ("out",), ("out",))],
    )

    found = {finding.code: finding for finding in find_in_tflite(read(model))}

    assert found["nan_weights"].nodes == ("w",)
    assert found["state"].nodes == ("out",)
    assert "domain tensorflow" in found["unknown_operator"].message
