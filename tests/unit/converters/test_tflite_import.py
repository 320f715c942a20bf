"""A TensorFlow Lite source: ports in real numbers, a plan of its own, pictures that go in as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from converters.building.tflite_binding import find_raw_inputs
from converters.errors import BadModel, BadRecipe
from converters.importers.tflite import activation_bytes, import_tflite
from converters.model.source import SourceFacts, Stored
from converters.planning.planner import plan_build
from converters.reading import facts_of, read_source
from converters.release.draft import Draft, draft_release
from converters.starter.from_model import starter_text
from devices.catalogue import resolve_targets
from edge_runtime.contract.digest import digest_of
from tests.fakes.litert_models import adder_of_namesakes, four_pixel_tflite, int8_four_pixel_tflite
from tests.fakes.onnx_models import conv_classifier
from tests.fakes.tflite_models import Tensor, int8_classifier
from tests.unit.converters.test_recipe import GOOD, parsed

CPU = resolve_targets(("cpu",))
ALL = {"onnxruntime": True, "openvino": True, "nncf": True, "litert": True, "tflite": True, "tflite-quant": True}
QUANTISED, FLOAT = SourceFacts("tflite", is_quantised=True), SourceFacts("tflite")
IMAGE = {**GOOD["inputs"]["image"], "tensor": "x", "layout": "NHWC", "color": "gray",
         "resize": {"mode": "none"}}  # fmt: skip


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "m.tflite"
    path.write_bytes(content)
    return path


def drafted(folder: Path, *, mean: float, std: float, dtype: str = "int8") -> Draft:
    """The four-pixel classifier with scale 1/255, and a recipe whose pictures are normalised like that."""
    image = {**IMAGE, "normalize": {"scale": 1.0, "mean": [mean], "std": [std]}}
    recipe = parsed(model="m.tflite", inputs={"image": image})
    imported = import_tflite(saved(folder, int8_four_pixel_tflite(shape=(1, 2, 2, 1), dtype=dtype)))
    return draft_release(recipe, imported, digest_of(b""), is_labelled=True)


def test_a_quantised_port_is_described_in_real_numbers_with_what_the_file_stores_beside(tmp_path: Path) -> None:
    imported = read_source(saved(tmp_path, int8_four_pixel_tflite()))

    (port,) = imported.inputs
    assert (port.name, port.dtype, port.shape) == ("x", "float32", (None, 1, 2, 2))
    assert port.stored == Stored("int8", pytest.approx(1 / 255), -128)
    assert imported.facts == QUANTISED


def test_a_float_port_stays_what_it_is(tmp_path: Path) -> None:
    imported = read_source(saved(tmp_path, four_pixel_tflite()))

    assert [port.stored for port in (*imported.inputs, *imported.outputs)] == [None, None]
    assert imported.facts == FLOAT


def test_ports_of_one_name_are_told_apart_as_the_engine_tells_them(tmp_path: Path) -> None:
    imported = import_tflite(saved(tmp_path, adder_of_namesakes()))

    assert [port.name for port in imported.inputs] == ["one#0", "one#1"]


def test_a_model_with_hidden_state_is_refused_with_the_remedy(tmp_path: Path) -> None:
    tensors = [*int8_classifier().tensors, Tensor("memory", (4,), is_variable=True)]

    with pytest.raises(BadModel, match=r"state between calls in memory; export it with the state as an input"):
        import_tflite(saved(tmp_path, int8_classifier(tensors=tensors).content()))


def test_activations_are_what_is_neither_weight_nor_bias() -> None:
    assert activation_bytes(int8_classifier().content()) == 8 * 8 * 3 + 8 * 8 * 4


def test_other_files_are_left_to_the_onnx_importer(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(conv_classifier().SerializeToString())

    assert read_source(path).format == "onnx"
    assert facts_of(path) == SourceFacts()
    assert facts_of(tmp_path / "absent") == SourceFacts()


def test_a_quantised_source_ships_as_it_came_on_each_engine_that_reads_it() -> None:
    plan = plan_build(parsed(model="m.tflite"), CPU, ALL, QUANTISED)

    assert [one.id for one in plan.candidates] == ["litert-int8", "openvino-int8"]
    assert {one.method.scheme for one in plan.candidates} == {"source"}
    assert plan.anchor == "litert-int8"


def test_a_float_source_is_quantised_where_tools_and_examples_are_there() -> None:
    recipe = parsed(model="m.tflite", precisions=["float32", "int8"])

    plan = plan_build(recipe, CPU, ALL, FLOAT)

    assert [one.id for one in plan.candidates][:2] == ["litert-float32", "litert-int8"]
    assert plan.candidates[0].id == plan.anchor
    assert "ort-float32" not in {one.id for one in plan.candidates}


def test_a_tflite_source_needs_no_examples_and_says_what_it_does_without_them() -> None:
    recipe = parsed(model="m.tflite", calibration=None)

    plan = plan_build(recipe, CPU, ALL, FLOAT)

    assert not any(one.method.scheme == "static" for one in plan.candidates)
    assert any("no calibration examples" in note for note in plan.notes)


def test_what_keeps_litert_from_an_onnx_source_is_said_with_the_command() -> None:
    plan = plan_build(parsed(), CPU, {**ALL, "tflite": False})

    assert not any(one.engine == "litert" for one in plan.candidates)
    assert any("edge-convert toolchain install tflite" in note for note in plan.notes)
    with pytest.raises(BadRecipe, match="edge-convert toolchain install tflite"):
        plan_build(parsed(engines=["litert"]), CPU, {**ALL, "tflite": False})


def test_an_engine_that_does_not_read_the_format_is_not_planned() -> None:
    plan = plan_build(parsed(model="m.tflite", engines=["onnxruntime"]), CPU, ALL, QUANTISED)

    assert [one.id for one in plan.candidates] == ["litert-int8"]
    assert any("onnxruntime does not read tflite" in note for note in plan.notes)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_pictures_go_in_as_they_are_where_the_quantisation_is_the_normalisation(tmp_path: Path, dtype: str) -> None:
    draft = drafted(tmp_path, mean=0.0, std=255.0, dtype=dtype)

    found = find_raw_inputs(draft)

    assert found["x"].absorbs == ["norm"]
    assert found["x"].exact


@pytest.mark.parametrize(("mean", "std"), [(0.5, 255.0), (0.0, 254.0), (1.0, 255.0), (127.5, 127.5)])
def test_a_normalisation_that_differs_for_one_value_of_a_pixel_is_left_to_the_runtime(
    tmp_path: Path, mean: float, std: float
) -> None:
    draft = drafted(tmp_path, mean=mean, std=std)

    assert find_raw_inputs(draft) == {}


def test_a_starter_recipe_fills_in_what_the_quantisation_says(tmp_path: Path) -> None:
    imported = import_tflite(saved(tmp_path, int8_four_pixel_tflite(shape=(1, 2, 2, 1))))

    text = starter_text("m.tflite", imported)

    assert "mean = [0.0], std = [255.0] }" in text
    assert "as the file is quantised" in text
