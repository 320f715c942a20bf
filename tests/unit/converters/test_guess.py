"""What shapes alone say about a model, and that a guess never looks like knowledge."""

from __future__ import annotations

import tomllib
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from converters.errors import BadDataset, BadRecipe
from converters.importers.onnx import describe
from converters.model.ending import activation_in
from converters.model.source import Imported, Port, Stored
from converters.planning.answers import check_answers, unlabelled
from converters.planning.recipe import parse_recipe
from converters.planning.recipe_outputs import OutputRecipe
from converters.starter.from_model import starter_text
from converters.starter.guess import guess_answer, looks_like_image
from tests.fakes.onnx_models import conv_classifier
from tests.fakes.streams import remembering_model

PICTURE = Port("image", "float32", (1, 3, 240, 320))


def imported(entry: Port, *outputs: Port) -> Imported:
    graph = helper.make_graph([], "g", [], [])
    return Imported(helper.make_model(graph), (entry,), outputs, opset=13, ir=8)


def answer(*shape: int | None, name: str = "out") -> Port:
    return Port(name, "float32", shape)


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


@pytest.mark.parametrize(
    ("shape", "is_picture"),
    [
        ((1, 3, 224, 224), True), ((None, 96, 96, 1), True), ((1, 1, 28, 28), True), ((1, 3, 8, 8), True),
        ((1, 3, None, None), True), ((1, 49, 10, 1), False), ((1, 1, 64, 12), False), ((1, 1, 96, 64), False),
        ((1, 96, 64, 1), False), ((1, 3, 96, 64), True), ((1, 1, None, 64), False), ((1, 8, 32, 32), False),
        ((1, 640), False),
    ],
)  # fmt: skip
def test_pictures_are_told_from_features_of_sounds(shape: tuple[int | None, ...], is_picture: bool) -> None:
    assert looks_like_image(Port("x", "float32", shape)) is is_picture


def test_boxes_beside_scores_are_suggested_as_a_detector_and_every_doubt_is_marked() -> None:
    model = imported(PICTURE, answer(1, 4420, 2, name="scores"), answer(1, 4420, 4, name="boxes"))

    text = starter_text("faces.onnx", model)

    output = parse_recipe(text.encode(), ".toml").outputs["objects"]
    assert (output.kind, output.tensor) == ("detections", "boxes")
    assert output.steps
    assert [output.steps[0][key] for key in ("family", "scores")] == ["ultraface", "scores"]
    for start in ('kind = "detections"', "task", "family", "box_format", "box_units", "activation", "min_score"):
        assert "CHANGE" in line_of(text, start), start
    assert "one of normalized, input_px, grid" in line_of(text, "box_units")
    assert "the background first" in line_of(text, "labels")


def test_a_model_that_gives_its_input_back_is_suggested_as_an_anomaly_detector() -> None:
    text = starter_text("ad.onnx", imported(Port("in", "float32", (None, 640)), answer(None, 640)))

    output = parse_recipe(text.encode(), ".toml").outputs["anomaly"]
    assert output.steps
    assert output.steps[0]["over"] == "in"


@pytest.mark.parametrize(
    ("entry", "given", "kind"),
    [
        (PICTURE, answer(1, 10), "classes"),
        (PICTURE, answer(None, 10, 1, 1), "classes"),
        (PICTURE, answer(1, 240, 320), "segmentation"),
        (PICTURE, answer(1, 21, 240, 320), "segmentation"),
        (PICTURE, answer(1, 85, 22, 22), "tensor"),
        (PICTURE, answer(1, 4420, 2), "tensor"),
        (Port("x", "float32", (None, 1)), answer(None, 1), "score"),
    ],
)
def test_an_answer_is_guessed_from_its_shape(entry: Port, given: Port, kind: str) -> None:
    model = imported(entry, given)

    text = starter_text("m.onnx", model)

    assert guess_answer(model).kind == kind
    (output,) = parse_recipe(text.encode(), ".toml").outputs.values()
    assert output.kind == kind
    assert " # CHANGE: guessed" in line_of(text, f'kind = "{kind}"')
    assert " # CHANGE: guessed" in line_of(text, "task")


def test_a_quantised_file_needs_no_calibration_examples() -> None:
    entry = Port("x", "float32", (1, 3, 32, 32), Stored("uint8", 1 / 255, 0))

    written = tomllib.loads(starter_text("m.tflite", imported(entry, answer(1, 10))))

    assert "calibration" not in written
    assert "calibration" in tomllib.loads(starter_text("m.onnx", imported(PICTURE, answer(1, 10))))


def test_memory_from_call_to_call_becomes_a_state_and_is_no_input_or_output() -> None:
    model = conv_classifier()
    for ports, name in ((model.graph.input, "state"), (model.graph.output, "stateN")):
        ports.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, "B", 8]))

    text = starter_text("vad.onnx", describe(model))
    recipe = parse_recipe(text.encode(), ".toml")

    assert {name: (state.in_, state.out) for name, state in recipe.states.items()} == {"state": ("state", "stateN")}
    assert "CHANGE" in line_of(text, "in = ")
    assert [entry.tensor for entry in recipe.inputs.values()] == ["input"]
    assert [entry.tensor for entry in recipe.outputs.values()] == ["logits"]


def test_a_model_that_remembers_and_is_told_a_sample_rate_hears_sound() -> None:
    text = starter_text("vad.onnx", describe(onnx.load_from_string(remembering_model())))
    recipe = parse_recipe(text.encode(), ".toml")

    assert recipe.constants == {"sr": 16000}
    assert recipe.inputs["audio"].kind == "audio"
    assert recipe.inputs["audio"].steps[1]["length"] == 12
    assert [entry.kind for entry in recipe.outputs.values()] == ["segments", "score"]
    assert recipe.stream is not None
    assert recipe.stream.gap_ms == 1000


def ending_in(*kinds: str) -> Any:
    model = conv_classifier()
    last = "logits"
    for kind in kinds:
        model.graph.node.append(helper.make_node(kind, [last], [kind.lower()]))
        last = kind.lower()
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(last, TensorProto.FLOAT, ["N", 4, 1, 1]))
    return describe(model)


@pytest.mark.parametrize(
    ("kinds", "activation", "written"),
    [((), "none", "softmax"), (("Softmax", "Identity"), "softmax", "none"), (("Sigmoid",), "sigmoid", "none"),
     (("Softmax", "Relu"), "none", "softmax")],
)  # fmt: skip
def test_scores_that_went_through_an_activation_are_not_sent_through_another(
    kinds: tuple[str, ...], activation: str, written: str
) -> None:
    model = ending_in(*kinds)

    text = starter_text("m.onnx", model)

    assert activation_in(model, model.outputs[0].name) == activation
    assert tomllib.loads(text)["outputs"]["classes"]["activation"] == written
    assert ("CHANGE" in line_of(text, "activation")) is (written == "softmax")


CLASSES = OutputRecipe(tensor="out", kind="classes", activation="none", labels="labels.txt")
FACES = OutputRecipe(
    tensor="boxes", kind="detections", labels="labels.txt",
    steps=[{"op": "detect", "family": "ultraface", "scores": "scores"}],
)  # fmt: skip


def test_classes_are_not_read_from_the_scores_of_boxes() -> None:
    model = imported(PICTURE, answer(1, 4420, 2))

    with pytest.raises(BadRecipe, match=r"out: it is float32 \[1, 4420, 2\].*write another kind .*detections"):
        check_answers({"answer": CLASSES}, model, {})


def test_labels_are_counted_against_classes_the_background_included() -> None:
    model = imported(PICTURE, answer(1, 4420, 2, name="scores"), answer(1, 4420, 4, name="boxes"))

    with pytest.raises(BadDataset, match=r"1 labels, the model's output boxes has 2 .*background in the first line"):
        check_answers({"faces": FACES}, model, {"faces": ("face",)})
    check_answers({"faces": FACES}, model, {"faces": ("background", "face")})


@pytest.mark.parametrize("shape", [(1, 10), (None, 10, 1, 1)])
def test_labels_of_a_classifier_are_counted_whatever_axes_of_one_it_has(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(BadDataset, match="2 labels, the model's output out has 10 classes"):
        check_answers({"answer": CLASSES}, imported(PICTURE, answer(*shape)), {"answer": ("a", "b")})


def test_objects_without_labels_are_noted() -> None:
    bare = OutputRecipe(tensor="boxes", kind="detections", steps=FACES.steps)

    assert list(unlabelled({"faces": FACES})) == []
    (note,) = unlabelled({"faces": bare})
    assert note.startswith("outputs.faces has no labels")


def test_features_that_look_like_a_grey_picture_ask_which_of_the_two_they_are() -> None:
    text = starter_text("m.onnx", imported(Port("mel", "float32", (1, 1, 96, 64)), answer(1, 10)), ())

    asked = line_of(text, 'kind = "tensor"')
    assert "CHANGE: grey pictures are image, features of sounds audio" in asked
    assert "[inputs.image]" not in text
