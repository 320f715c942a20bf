"""From a file that describes itself to a release: the recipe that metadata write is completed and built."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from converters.cli.main import app
from converters.pipeline.build import BuildOptions, build
from converters.planning.recipe import EngineName, LimitsRecipe, Recipe, parse_recipe
from edge_runtime import Model
from edge_runtime.inference.postprocessing.question_results import Boxes


def exported_yolo(path: Path) -> None:
    """A model of YOLOv8's form that sees one object of class 1 where the picture is bright, whatever its size.

    Its only box is (16, 16, 8, 8) in pixels of a 32 × 32 input; its score is the mean brightness of the input.
    """
    box = numpy_helper.from_array(np.array([[[16.0], [16.0], [8.0], [8.0], [0.0]]], np.float32), "box")
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["bright"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["bright", "shape"], ["score"]),
        helper.make_node("Concat", ["box", "score"], ["output0"], axis=1),
    ]
    shape = numpy_helper.from_array(np.array([1, 1, 1], np.int64), "shape")
    entry = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 32, 32])
    answer = helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 6, 1])
    graph = helper.make_graph(nodes, "g", [entry], [answer], [box, shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    told = {"task": "detect", "stride": "32", "imgsz": "[32, 32]", "batch": "1", "names": "{0: 'cat', 1: 'lamp'}"}
    for key, value in told.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, str(path))


def recipe_text(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["recipe", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def completed(text: str, engine: EngineName) -> Recipe:
    """The recipe with what no metadata say: which engine, and what may be lost without labels."""
    return msgspec.structs.replace(
        parse_recipe(text.encode(), ".toml"),
        engines=[engine],
        precisions=["float32"],
        calibration=None,
        limits=LimitsRecipe(min_agreement={"*": 0.9}),
    )


def test_an_ultralytics_export_becomes_a_release_without_a_word_about_pixels(tmp_path: Path) -> None:
    exported_yolo(tmp_path / "m.onnx")
    (tmp_path / "evaluation").mkdir()
    for shade in (200, 255):
        Image.fromarray(np.full((50, 100, 3), shade, np.uint8)).save(tmp_path / "evaluation" / f"{shade}.png")

    text = recipe_text(str(tmp_path / "m.onnx"), "--labels", str(tmp_path / "labels.txt"))
    build(completed(text, "onnxruntime"), BuildOptions(base=tmp_path, out=tmp_path / "r"), lambda *_: None)

    with Model.open(tmp_path / "r") as model:
        seen = model.infer({"image": np.full((50, 100, 3), 255, np.uint8)})["objects"]
    # Letterboxed: 100 × 50 becomes 32 × 16 with 8 rows above it.
    assert isinstance(seen, Boxes)
    assert seen.labels == ("lamp",)
    assert seen.boxes[0] == pytest.approx([12 / 0.32, 4 / 0.32, 20 / 0.32, 12 / 0.32])


@pytest.mark.needs_shared
def test_a_tflite_file_with_metadata_brings_its_own_labels_and_boxes(shared: Path, tmp_path: Path) -> None:
    source = shared / "models/tflite/ssd_mobilenet_v1_coco_quant.tflite"
    (tmp_path / source.name).symlink_to(source)
    (tmp_path / "evaluation").mkdir()
    for name in ("pets.jpg", "cat_720p.jpg"):
        (tmp_path / "evaluation" / name).write_bytes((shared / "models/data/images" / name).read_bytes())

    text = recipe_text(str(tmp_path / source.name), "--labels", str(tmp_path / "labels.txt"))
    build(completed(text, "litert"), BuildOptions(base=tmp_path, out=tmp_path / "r"), lambda *_: None)

    with Model.open(tmp_path / "r") as model:
        seen = model.infer({"image": (tmp_path / "evaluation/cat_720p.jpg").read_bytes()})["objects"]
    assert seen.labels == ("cat",)
