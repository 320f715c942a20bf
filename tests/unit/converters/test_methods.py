"""What a method says of itself: whether it can saturate, what it is called, what the engine must be told."""

import msgspec
import pytest

from converters.planning.methods import METHODS, Method, chosen, describe_method, is_known, variant_name
from converters.planning.recipe import EngineName

EVERY = [method for methods in METHODS.values() for method in methods]


def method(engine: EngineName, name: str) -> Method:
    return next(one for one in METHODS[engine] if one.name == name)


@pytest.mark.parametrize(
    ("engine", "name", "is_safe"),
    [
        ("onnxruntime", "float32", True),
        ("onnxruntime", "int8", True),
        ("onnxruntime", "int8-full", False),
        ("onnxruntime", "int8-full-tensor", False),
        ("onnxruntime", "int8-exact", True),
        ("onnxruntime", "int8-wide", True),
        ("openvino", "int8", True),
        ("openvino", "int8-full", False),
    ],
)
def test_only_eight_bits_in_plain_sums_may_overflow(engine: EngineName, name: str, is_safe: bool) -> None:
    assert method(engine, name).is_overflow_safe is is_safe


def test_exact_sums_are_an_option_that_the_variant_carries() -> None:
    assert method("onnxruntime", "int8-exact").options == {"session.x64quantprecision": "1"}


def test_every_method_is_known_by_name_and_by_variant_and_survives_the_way_to_its_worker() -> None:
    for one in EVERY:
        assert is_known(one.name)
        assert is_known(variant_name(one))
        assert msgspec.json.decode(msgspec.json.encode(one), type=Method) == one
    assert len({variant_name(one) for one in EVERY}) == len(EVERY)
    assert not is_known("int4")


def test_a_method_is_described_by_what_changes_numbers() -> None:
    text = describe_method(method("onnxruntime", "int8-exact"))

    assert text == ("static, activations uint8, weights int8, per channel, minmax, session.x64quantprecision=1")
    assert describe_method(method("openvino", "float32")) == ""


def test_where_no_kernel_saturates_every_method_keeps_eight_bits_and_is_there_once() -> None:
    for prefer in ("latency", "accuracy", "size"):
        planned = chosen("onnxruntime", prefer, None, narrow=False)

        assert not any(one.reduce_range or one.options for one in planned)
        nameless = [msgspec.structs.replace(one, name="") for one in planned]
        assert all(nameless.count(one) == 1 for one in nameless)
