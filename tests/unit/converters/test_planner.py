import msgspec
import pytest

from converters.errors import BadRecipe
from converters.planning.planner import plan_build
from converters.planning.recipe import Recipe
from converters.planning.search import Tried, find_better
from devices.catalogue import resolve_targets
from tests.unit.converters.test_recipe import parsed

ALL = {"onnxruntime": True, "openvino": True, "nncf": True}
CPU = resolve_targets(("cpu",))


def candidates(recipe: Recipe, installed: dict[str, bool] = ALL) -> list[str]:
    return [one.id for one in plan_build(recipe, CPU, installed).candidates]


def test_the_plain_float_variant_comes_first() -> None:
    assert candidates(parsed(methods=["int8"])) == ["ort-float32", "ort-int8", "openvino-float32", "openvino-int8"]


def test_half_weights_are_tried_before_whole_ones_and_only_where_nothing_was_asked() -> None:
    planned = candidates(parsed())

    assert planned.index("openvino-float16-weights") < planned.index("openvino-float32")
    assert "openvino-float16-weights" not in candidates(parsed(methods=["int8"]))


def test_what_is_not_installed_is_left_out_and_said() -> None:
    plan = plan_build(parsed(methods=["int8"]), CPU, {"onnxruntime": True, "openvino": True, "nncf": False})

    assert [one.id for one in plan.candidates] == ["ort-float32", "ort-int8", "openvino-float32"]
    assert any("nncf" in note for note in plan.notes)


def test_an_engine_that_was_asked_for_must_be_there() -> None:
    with pytest.raises(BadRecipe, match="openvino is not installed"):
        candidates(parsed(engines=["openvino"]), {"onnxruntime": True})


def test_without_onnx_runtime_the_extra_is_named() -> None:
    with pytest.raises(BadRecipe, match=r"edgefleet\[convert,ort\]"):
        candidates(parsed(), {})


def test_every_release_carries_a_plain_cpu_variant() -> None:
    assert "ort-float32" in candidates(parsed(engines=["openvino"]))


def test_the_oldest_engine_of_all_targets_sets_the_ceiling() -> None:
    old = msgspec.structs.replace(CPU[0], engines={"onnxruntime": "1.17"})

    ceiling = plan_build(parsed(), (old, *CPU), ALL).ceiling

    assert (ceiling.opset, ceiling.ir) == (20, 9)


def test_a_method_can_be_asked_for_on_one_engine_or_on_all() -> None:
    assert candidates(parsed(methods=["ort-int8-full"])) == ["ort-float32", "ort-int8-full", "openvino-float32"]
    assert "openvino-int8-full" in candidates(parsed(methods=["int8-full"]))


def test_a_method_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(BadRecipe, match=r"use .*int8-entropy"):
        candidates(parsed(methods=["int4"]))


def test_who_prefers_size_tries_all_eight_bits_before_seven_and_speed_the_other_way() -> None:
    by_size = candidates(parsed(prefer="size"))

    assert by_size.index("ort-int8-full") < by_size.index("ort-int8")
    assert "ort-int8-full" not in candidates(parsed(prefer="latency"))


def test_seven_bit_weights_are_for_targets_whose_kernels_may_saturate() -> None:
    arm = resolve_targets(("raspberry-pi-5",))

    mixed = {one.id: one.method for one in plan_build(parsed(), CPU, ALL).candidates}
    plain = {one.id: one.method for one in plan_build(parsed(), arm, ALL).candidates}

    assert mixed["ort-int8"].reduce_range
    assert mixed["openvino-int8"].overflow_fix == "enable"
    assert not plain["ort-int8"].reduce_range
    assert "ort-int8-exact" not in plain


def test_a_jetson_gets_a_weak_and_a_strong_file_for_the_boards_that_take_each() -> None:
    plan = plan_build(parsed(), resolve_targets(("jetson",)), ALL)

    by_id = {str(one.id): one for one in plan.candidates}

    assert plan.anchor == "ort-float32"
    assert by_id["jetson-weak"].profiles == ("jetson-orin", "jetson-thor", "jetson-xavier")
    assert by_id["jetson-strong"].profiles == ("jetson-orin", "jetson-thor")
    assert by_id["jetson-weak"].requirement == ">=8.5,<11"
    assert by_id["jetson-strong-float16"].requirement == ">=10.0"


def test_a_method_of_every_engine_means_both_files_of_a_jetson_too() -> None:
    plan = plan_build(parsed(methods=["int8"]), resolve_targets(("jetson",)), ALL)

    assert [one.id for one in plan.candidates if one.engine == "tensorrt"] == [
        "jetson-weak-float16", "jetson-strong-float16", "jetson-weak", "jetson-strong",
    ]  # fmt: skip


def test_other_boards_do_not_hear_of_tensorrt() -> None:
    plan = plan_build(parsed(), CPU, ALL)

    assert not any(one.engine == "tensorrt" for one in plan.candidates)
    assert not any("tensorrt" in note for note in plan.notes)


def test_both_files_are_tried_although_one_passed() -> None:
    plan = plan_build(parsed(), resolve_targets(("jetson",)), ALL)
    by_id = {str(one.id): one for one in plan.candidates}
    passed = [Tried(by_id["jetson-weak"], by_id["jetson-weak"].arch, lost=0.0)]

    assert not find_better(by_id["jetson-strong"], passed, "latency")
    assert "jetson-weak passed" in find_better(by_id["jetson-weak-minmax"], passed, "latency")
