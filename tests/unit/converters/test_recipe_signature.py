"""What recipes say about inputs and outputs of every kind, and what a manifest makes of it."""

from __future__ import annotations

import wave
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from converters.building.workshop import find_absorptions, open_source
from converters.errors import BadDataset, BadRecipe
from converters.importers.onnx import describe
from converters.pipeline.build import BuildOptions, build, plan_of
from converters.pipeline.calibrating import write_calibration
from converters.pipeline.material import read_material, refer
from converters.planning.recipe import Recipe
from converters.release.draft import draft_release
from converters.release.layers import read_priors
from edge_runtime import Model
from edge_runtime.contract.digest import digest_of
from edge_runtime.inference.postprocessing.question_results import Anomaly, Boxes, Mask
from edge_runtime.inference.postprocessing.results import TensorAnswer, Values
from tests.fakes.shared_recipes import keywords, machine_sound
from tests.unit.converters.test_recipe import GOOD, parsed

PICTURE = GOOD["inputs"]["image"]
IDENTITY = {"tensor": "y", "kind": "tensor"}


def identity(shape, *, name="x", dtype=TensorProto.FLOAT, output="y", copies=1):
    """A model that hands out what it is given, `copies` times."""
    pairs = [(f"{name}{number or ''}", f"{output}{number or ''}") for number in range(copies)]
    nodes = [helper.make_node("Identity", [given], [made]) for given, made in pairs]
    ports = [[helper.make_tensor_value_info(port, dtype, shape) for port in side] for side in zip(*pairs, strict=True)]
    graph = helper.make_graph(nodes, "g", ports[0], ports[1])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def drafted(recipe: Recipe, model):
    return draft_release(recipe, describe(model), digest_of(b""), is_labelled=False)


def answer(recipe: Recipe, model, **inputs):
    source = open_source(drafted(recipe, model), model)
    try:
        decoded = source.preprocess.decode(inputs)
        (found,) = source.interpret(source.run_decoded(decoded), decoded)
        return next(iter(found.values()))
    finally:
        source.close()


def recipe_of(inputs, outputs) -> Recipe:
    return parsed(inputs=inputs, outputs=outputs, limits={})


def test_steps_get_the_names_of_their_operations_and_start_at_the_public_input() -> None:
    steps = [{"op": "amplitude", "mode": "peak"}, {"op": "amplitude", "mode": "rms"}, {"op": "mono", "id": "one"}]
    sound = {"tensor": "x", "kind": "audio", "sample_rate_hz": 8000, "channels": 1, "dtype": "float32", "steps": steps}

    manifest = drafted(recipe_of({"voice": sound}, {"y": IDENTITY}), identity(["N", 40])).manifest

    assert [(step["id"], step.get("from")) for step in manifest.preprocess["x"]] == [
        ("amplitude", "voice"), ("amplitude-2", None), ("one", None),
    ]  # fmt: skip
    (spec,) = manifest.signature.inputs
    assert (spec.kind, spec.shape, spec.sample_rate_hz, spec.accept) == ("audio", ["T"], 8000, ["wav", "tensor"])


def test_a_release_that_needs_mel_bands_says_so() -> None:
    manifest = drafted(parsed(**keywords("x", "y", "none"), limits={}), identity(["N", 49, 10, 1])).manifest

    assert manifest.requires == ["audio.mel"]


@pytest.mark.parametrize(
    ("entry", "because"),
    [
        ({"kind": "audio"}, "inputs.x.sample_rate_hz is missing"),
        ({"kind": "table"}, "inputs.x.steps is missing"),
        ({"kind": "table", "steps": [{"op": "standardize", "mean": [0.0], "std": [1.0]}]}, "must start with columns"),
        ({"kind": "image", "steps": [{"op": "layout", "to": "NCHW"}]}, "must start with decode"),
        ({"kind": "tensor", "color": "rgb"}, "inputs.x: write color as steps"),
        ({**PICTURE, "steps": []}, "write color, exif, resize, normalize as steps"),
        ({"kind": "tensor", "steps": [{"op": "stack", "frames": 5}]}, "missing required field `hop`"),
        ({"kind": "tensor", "steps": [{"op": "polish"}]}, "does not know it"),
        ({**PICTURE, "resize": {**PICTURE["resize"], "mode": "fit_pad"}}, "inputs.x.resize.pad_value is missing"),
    ],
)
def test_an_input_that_lacks_what_its_kind_needs_is_refused(entry, because: str) -> None:
    with pytest.raises(BadRecipe, match=because):
        recipe_of({"x": {"tensor": "x", **entry}}, {"y": IDENTITY})


@pytest.mark.parametrize(
    ("entry", "because"),
    [
        ({"kind": "detections"}, "an answer of kind detections needs step detect"),
        ({"kind": "values", "steps": [{"op": "score"}]}, "must start with regression"),
        ({"kind": "embedding", "steps": [{"op": "embedding", "normalise": "l3"}]}, "outputs.y.steps"),
        ({"kind": "segmentation", "steps": [{"op": "segment", "source": "logits"}]}, "missing required field"),
    ],
)
def test_an_output_that_lacks_what_its_kind_needs_is_refused(entry, because: str) -> None:
    with pytest.raises(BadRecipe, match=because):
        recipe_of({"x": {"tensor": "x", "kind": "tensor"}}, {"y": {"tensor": "y", **entry}})


def test_a_shortest_side_and_a_crop_make_the_models_size() -> None:
    resize = {"mode": "shortest_side", "size": [10, 10], "filter": "bilinear", "antialias": True}
    image = {**PICTURE, "tensor": "x", "crop": [8, 8], "resize": resize}
    picture = np.zeros((30, 50, 3), np.uint8)
    picture[10:20, 20:30] = 255

    seen = answer(recipe_of({"image": image}, {"y": IDENTITY}), identity(["N", 3, 8, 8]), image=picture)

    assert isinstance(seen, TensorAnswer)
    assert seen.array.shape == (3, 8, 8)
    assert seen.array[0, 3:5, 3:5] == pytest.approx(1.0, abs=0.2)


def test_a_crop_of_another_size_than_the_models_is_refused() -> None:
    image = {**PICTURE, "tensor": "x", "crop": [6, 6]}

    with pytest.raises(BadRecipe, match=r"makes NCHW \[3, 6, 6\], the model takes \[3, 8, 8\]"):
        drafted(recipe_of({"image": image}, {"y": IDENTITY}), identity(["N", 3, 8, 8]))


def test_a_detector_answers_in_pixels_of_the_picture_it_was_given() -> None:
    steps = [{"op": "detect", "family": "raw", "score": "cls", "activation": "none", "box_format": "xyxy",
              "box_units": "input_px", "min_score": 0.5, "max": 9},
             {"op": "nms", "iou": 0.5, "per_class": True, "kind": "hard", "in_graph": False}]  # fmt: skip
    rows = np.array([[[1, 2, 3, 4, 0.9, 1], [1, 2, 3, 4, 0.8, 1], [0, 0, 8, 8, 0.2, 0]]], np.float32)
    model = identity(["N", 3, 8, 8])
    model.graph.initializer.append(helper.make_tensor("rows", TensorProto.FLOAT, [1, 3, 6], rows.ravel()))
    model.graph.node.append(helper.make_node("Identity", ["rows"], ["found"]))
    model.graph.output.append(helper.make_tensor_value_info("found", TensorProto.FLOAT, [1, 3, 6]))
    objects = {"tensor": "found", "kind": "detections", "steps": steps}
    recipe = recipe_of({"image": {**PICTURE, "tensor": "x"}}, {"objects": objects})

    seen = answer(recipe, model, image=np.zeros((16, 80, 3), np.uint8))

    assert isinstance(seen, Boxes)
    assert seen.boxes.tolist() == [[10, 4, 30, 8]]
    assert (seen.indices, seen.labels) == ((1,), ("1",))


def test_a_mask_covers_the_picture_and_says_where_a_crop_left_nothing() -> None:
    image = {**PICTURE, "tensor": "x", "normalize": {"scale": 1.0, "mean": [0.0], "std": [1.0]},
             "resize": {"mode": "fit_crop", "size": [8, 8], "filter": "nearest", "antialias": False}}  # fmt: skip
    steps = [{"op": "segment", "source": "logits", "axis": 1, "resize_to": "original"}]
    picture = np.zeros((8, 12, 3), np.uint8)
    picture[:4, :, 2] = 9

    mask = {"mask": {"tensor": "y", "kind": "segmentation", "steps": steps}}

    seen = answer(recipe_of({"image": image}, mask), identity(["N", 3, 8, 8]), image=picture)

    assert isinstance(seen, Mask)
    assert seen.classes[0].tolist() == [-1, -1, 2, 2, 2, 2, 2, 2, 2, 2, -1, -1]
    assert seen.classes[7].tolist() == [-1, -1, 0, 0, 0, 0, 0, 0, 0, 0, -1, -1]
    assert seen.shares() == {0: 32 / 96, 2: 32 / 96}


def test_windows_of_one_sample_are_asked_in_turn_and_answered_together() -> None:
    recipe = parsed(**machine_sound("x", "y"), limits={})
    frames = np.arange(7 * 128, dtype=np.float32).reshape(7, 128)

    seen = answer(recipe, identity([1, 640]), frames=frames)

    assert seen == Anomaly(0.0, None)
    source = open_source(drafted(recipe, identity([1, 640])), identity([1, 640]))
    assert source.run_decoded({"frames": frames})["y"].shape == (3, 640)
    assert len(source.preprocess.windows(source.preprocess({"frames": frames}))) == 3
    source.close()


def test_an_anomaly_is_judged_by_the_threshold_of_the_recipe() -> None:
    step = {"op": "reconstruction", "metric": "mae", "over": "x", "aggregate": "max", "threshold": 1.5}
    doubled = identity(["N", 4])
    doubled.graph.node[0].CopyFrom(helper.make_node("Add", ["x", "x"], ["y"]))
    outputs = {"a": {"tensor": "y", "kind": "anomaly", "steps": [step]}}
    recipe = recipe_of({"x": {"tensor": "x", "kind": "tensor"}}, outputs)

    assert answer(recipe, doubled, x=np.full((1, 4), 2, np.float32)) == Anomaly(2.0, is_anomalous=True)
    assert answer(recipe, doubled, x=np.full((1, 4), -1, np.float32)) == Anomaly(1.0, is_anomalous=False)


def test_several_inputs_of_different_kinds_are_fed_together() -> None:
    steps = [{"op": "columns", "names": ["a", "b"], "dtype": "float32", "missing": "error"}]
    inputs = {"first": {"tensor": "x", "kind": "table", "steps": steps}, "second": {"tensor": "x1", "kind": "tensor"}}
    outputs = {"sum": {"tensor": "y1", "kind": "values", "steps": [{"op": "regression", "unit": "m", "scale": 2.0}]}}

    seen = answer(recipe_of(inputs, outputs), identity(["N", 2], copies=2), first=b'{"b": 2, "a": 1}',
                  second=np.array([[3, 4]], np.float32))  # fmt: skip

    assert seen == Values((6.0, 8.0), "m")


def pictures(color: str, layout: str, copies: int = 1, **changes):
    """Draft and model of `copies` pictures of that colour."""
    channels = 1 if color == "gray" else 3
    shape = ["N", channels, 8, 8] if layout == "NCHW" else ["N", 8, 8, channels]
    model = identity(shape, copies=copies)
    entry = {**PICTURE, "color": color, "layout": layout, **changes}
    inputs = {f"image{number or ''}": {**entry, "tensor": f"x{number or ''}"} for number in range(copies)}
    return drafted(recipe_of(inputs, {"y": IDENTITY}), model), model, channels


@pytest.mark.parametrize(
    ("color", "layout", "copies", "absorbed"),
    [("rgb", "NCHW", 1, ("norm", "layout")), ("gray", "NCHW", 1, ("norm", "layout")), ("bgr", "NHWC", 1, ("norm",)),
     ("rgb", "NCHW", 2, ("norm", "layout"))],
)  # fmt: skip
def test_what_a_graph_computes_bit_for_bit_is_left_to_it(color: str, layout: str, copies: int, absorbed) -> None:
    draft, model, channels = pictures(color, layout, copies)
    every = np.random.default_rng(1).integers(0, 256, (1, 9, 7, channels), np.uint8)
    sample = {spec.name: every for spec in draft.manifest.signature.inputs}

    found = find_absorptions(draft, model, [sample])

    assert [one.steps for one in found.values()] == [absorbed] * copies


def test_steps_written_out_are_absorbed_like_the_short_form() -> None:
    steps = [{"op": "decode", "color": "rgb", "exif": "apply", "reduced": "never"},
             {"op": "resize", "mode": "stretch", "size": [8, 8], "filter": "bilinear", "antialias": True},
             {"op": "layout", "to": "NCHW"}]  # fmt: skip
    model = identity(["N", 3, 8, 8])
    draft = drafted(recipe_of({"image": {"tensor": "x", "kind": "image", "steps": steps}}, {"y": IDENTITY}), model)
    sample = {"image": np.random.default_rng(1).integers(0, 256, (1, 9, 7, 3), np.uint8)}

    found = find_absorptions(draft, model, [sample])

    assert found["x"].steps == ("layout",)


def test_a_picture_that_is_no_longer_bytes_is_left_to_the_runtime() -> None:
    steps = [{"op": "decode", "color": "rgb", "exif": "apply", "reduced": "never"},
             {"op": "normalize", "scale": 1.0, "mean": [0.0], "std": [255.0]},
             {"op": "resize", "mode": "stretch", "size": [8, 8], "filter": "bilinear", "antialias": True},
             {"op": "layout", "to": "NCHW"}]  # fmt: skip
    model = identity(["N", 3, 8, 8])
    draft = drafted(recipe_of({"image": {"tensor": "x", "kind": "image", "steps": steps}}, {"y": IDENTITY}), model)

    assert find_absorptions(draft, model, [{"image": np.zeros((1, 9, 7, 3), np.uint8)}]) == {}


SSD = {
    "op": "detect", "family": "ssd_priors", "scores": "y1", "score": "cls", "activation": "none",
    "box_format": "offsets", "box_units": "normalized", "min_score": 0.5, "max": 9, "variances": [0.1, 0.2],
}  # fmt: skip


def ssd_model():
    """Boxes that are their priors, one of them an object of class 1; pictures are taken and not looked at."""
    model = identity(["N", 3, 8, 8])
    for name, values in {"y0": np.zeros((1, 2, 4)), "y1": [[[0.1, 0.9], [0.9, 0.1]]]}.items():
        array = np.asarray(values, np.float32)
        model.graph.initializer.append(helper.make_tensor(f"{name}_", TensorProto.FLOAT, array.shape, array.ravel()))
        model.graph.node.append(helper.make_node("Identity", [f"{name}_"], [name]))
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape))
    return model


def test_priors_and_labels_of_every_output_travel_with_the_release(tmp_path) -> None:
    for name in ("p", "e", "c"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((16, 80, 3), np.uint8)).save(tmp_path / "e/black.png")
    Image.fromarray(np.full((16, 80, 3), 255, np.uint8)).save(tmp_path / "e/white.png")
    np.save(tmp_path / "p/priors.npy", np.array([[0.5, 0.5, 0.2, 0.5], [0.1, 0.1, 0.1, 0.1]], np.float32))
    (tmp_path / "names.txt").write_text("\ufeffbackground\nship\n", encoding="utf-8")
    onnx.save(ssd_model(), str(tmp_path / "m.onnx"))
    detections = {"tensor": "y0", "kind": "detections", "labels": "names.txt",
                  "steps": [{**SSD, "priors": "p/priors.npy"}]}  # fmt: skip
    recipe = parsed(
        inputs={"image": {**PICTURE, "tensor": "x"}}, outputs={"seen": IDENTITY, "objects": detections},
        calibration=None, precisions=["float32"], engines=["onnxruntime"], evaluation={"folder": "e"},
        limits={"min_agreement": {"*": 0.0}}, golden={"count": 2},
    )  # fmt: skip

    build(recipe, BuildOptions(base=tmp_path, out=tmp_path / "r"), lambda *_: None)

    with Model.open(tmp_path / "r") as model:
        objects = model.infer({"image": np.zeros((16, 80, 3), np.uint8)})["objects"]
    assert isinstance(objects, Boxes)
    assert objects.labels == ("ship",)
    assert objects.boxes[0] == pytest.approx([32, 4, 48, 12])


@pytest.mark.parametrize(
    ("content", "because"),
    [(None, "cannot read priors p.npy: No such file"), (np.zeros((2, 3)), r"its shape is \[2, 3\], not \[boxes, 4\]")],
)
def test_priors_that_are_no_boxes_are_refused(tmp_path, content, because: str) -> None:
    if content is not None:
        np.save(tmp_path / "p.npy", content)
    steps = [{**SSD, "priors": "p.npy"}]
    objects = {"tensor": "y0", "kind": "detections", "steps": steps}
    recipe = recipe_of({"image": {**PICTURE, "tensor": "x"}}, {"objects": objects})

    with pytest.raises(BadRecipe, match=because):
        read_priors(recipe, tmp_path)


def test_a_picture_that_only_becomes_float_is_cast_by_the_graph() -> None:
    steps = [{"op": "decode", "color": "rgb", "exif": "apply", "reduced": "never"},
             {"op": "resize", "mode": "stretch", "size": [8, 8], "filter": "bilinear", "antialias": True}]  # fmt: skip
    model = identity(["N", 8, 8, 3])
    draft = drafted(recipe_of({"image": {"tensor": "x", "kind": "image", "steps": steps}}, {"y": IDENTITY}), model)
    sample = {"image": np.random.default_rng(1).integers(0, 256, (1, 9, 7, 3), np.uint8)}

    found = find_absorptions(draft, model, [sample])

    assert (found["x"].steps, found["x"].binding(exact=True).dtype) == ((), "uint8")


def test_the_unit_of_numbers_is_part_of_the_signature() -> None:
    steps = [{"op": "regression", "unit": "°C", "scale": 0.5}]
    outputs = {"warmth": {"tensor": "y", "kind": "values", "steps": steps}}

    manifest = drafted(recipe_of({"x": {"tensor": "x", "kind": "tensor"}}, outputs), identity(["N", 2])).manifest

    assert manifest.signature.outputs[0].unit == "°C"


def test_two_tensors_that_would_share_a_name_are_refused() -> None:
    inputs = {"x": {"tensor": "x", "kind": "tensor"}}
    model = identity(["N", 2], output="y:0")
    model.graph.node.append(helper.make_node("Identity", ["x"], ["y_0"]))
    model.graph.output.append(helper.make_tensor_value_info("y_0", TensorProto.FLOAT, ["N", 2]))

    with pytest.raises(BadRecipe, match="another is called y_0 as well"):
        drafted(recipe_of(inputs, {"a": {**IDENTITY, "tensor": "y:0"}, "b": {**IDENTITY, "tensor": "y_0"}}), model)


def test_every_window_of_a_sample_is_a_calibration_sample_of_its_own(tmp_path) -> None:
    onnx.save(identity([1, 640]), str(tmp_path / "m.onnx"))
    for part, count in (("c", 8), ("e", 2)):
        (tmp_path / part).mkdir()
        for number in range(count):
            np.save(tmp_path / part / f"{number}.npy", np.full((7, 128), number + count, np.float32))
    recipe = parsed(**machine_sound("x", "y"), limits={"min_agreement": {"*": 0.9}})
    material = read_material(recipe, tmp_path, plan_of(recipe, tmp_path))
    (tmp_path / "written").mkdir()

    write_calibration(material, tmp_path / "written")

    written = sorted((tmp_path / "written").iterdir())
    assert len(written) == 8 * 3
    with np.load(written[0]) as first:
        assert first["x"].shape == (1, 640)


def test_frames_of_a_centred_transform_begin_before_the_sound() -> None:
    steps = [{"op": "frame", "length": 8, "hop": 4, "tail": "pad_zero"},
             {"op": "stft", "fft": 8, "window": "hann_periodic", "center": True, "power": 1}]  # fmt: skip
    sound = {"tensor": "x", "kind": "audio", "sample_rate_hz": 8000, "channels": 1, "dtype": "float32", "steps": steps}

    click = np.eye(1, 16, dtype=np.float32)[0]

    seen = answer(recipe_of({"voice": sound}, {"y": IDENTITY}), identity(["N", 5, 5]), voice=click)

    assert isinstance(seen, TensorAnswer)
    assert seen.array[0] == pytest.approx(np.ones(5), abs=1e-6)


def test_steps_that_make_another_shape_are_named_with_the_models_own_tensor(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    steps = [{"op": "frame", "length": 8, "hop": 4, "tail": "pad_zero"},
             {"op": "stft", "fft": 8, "window": "hann_periodic", "center": False, "power": 1}]  # fmt: skip
    told = {"kind": "audio", "sample_rate_hz": 8000, "channels": 1, "dtype": "float32", "steps": steps}
    sound = {"tensor": "x:0", **told}
    model = identity(["N", 5, 6])
    model.graph.input[0].name = model.graph.node[0].input[0] = "x:0"
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / "e").mkdir()
    with wave.open(str(tmp_path / "e" / "click.wav"), "wb") as sound_file:
        sound_file.setparams((1, 2, 8000, 16, "NONE", ""))
        sound_file.writeframes(bytes(range(32)))
    recipe = msgspec.structs.replace(recipe_of({"voice": sound}, {"y": IDENTITY}), precisions=["float32"])
    material = read_material(recipe, tmp_path, plan_of(recipe, tmp_path))

    with pytest.raises(BadDataset) as refused:
        refer(material, tmp_path / "answers", golden_from=None, allow_failed=False)

    assert "tensor x:0 has shape" in str(refused.value)
    assert "the recipe makes it by frame, stft; correct these steps" in str(refused.value)
