import dataclasses
import json
import re

import msgspec
import pytest

from converters.errors import BadRecipe
from converters.importers.onnx import describe
from converters.planning.recipe import Recipe, parse_recipe
from converters.planning.recipe_inputs import preprocess_of
from converters.release.draft import draft_release
from edge_runtime.contract.digest import digest_of
from tests.fakes.onnx_models import conv_classifier

MODEL = describe(conv_classifier())

GOOD = {
    "model": "m.onnx", "name": "cats", "version": "1", "task": "image_classification", "targets": ["cpu"],
    "inputs": {"image": {
        "tensor": "input", "kind": "image", "color": "rgb", "exif": "apply", "layout": "NCHW",
        "resize": {"mode": "stretch", "size": [8, 8], "filter": "bilinear", "antialias": True},
        "normalize": {"scale": 1.0, "mean": [0.0], "std": [255.0]},
    }},
    "outputs": {"classes": {"tensor": "logits", "kind": "classes", "activation": "softmax"}},
    "calibration": {"folder": "c"},
    "evaluation": {"folder": "e"},
    "limits": {"max_drop": {"*": 0.01}},
}  # fmt: skip


def parsed(**changes: object) -> Recipe:
    return parse_recipe(json.dumps({**GOOD, **changes}).encode(), ".json")


def test_yaml_and_json_mean_the_same() -> None:
    assert parse_recipe(msgspec.yaml.encode(GOOD), ".yaml") == parsed()


def test_another_ending_and_broken_text_are_refused() -> None:
    with pytest.raises(BadRecipe, match=r"name it \.toml"):
        parse_recipe(b"{}", ".ini")
    with pytest.raises(BadRecipe, match="read the recipe"):
        parse_recipe(b"model = ", ".toml")


@pytest.mark.parametrize(
    ("content", "suffix"),
    [(b"model = " + b"[" * 5000, ".toml"), (b"model: !!int ''", ".yaml"), (b"model: !!bool zz", ".yaml"),
     (b"model: !!timestamp zz", ".yaml"), (b"model: " + b"[" * 5000, ".yaml"), (b"[" * 100_000, ".json"),
     (b'{"zz":' + b"[" * 100_000, ".json"), (b"\xff", ".toml")],
)  # fmt: skip
def test_a_recipe_that_no_reader_gets_through_is_one_clear_error(content: bytes, suffix: str) -> None:
    with pytest.raises(BadRecipe, match="cannot read the recipe"):
        parse_recipe(content, suffix)


def test_an_unknown_key_is_refused_by_name() -> None:
    with pytest.raises(BadRecipe, match="calibraton"):
        parsed(calibraton={"folder": "x"})


TOML = """
model = "m.onnx"
name = "cats"
version = "1"
task = "image_classification"
targets = ["cpu"]
precisions = ["float32"]
[inputs.x]
tensor = "x"
kind = "tensor"
[outputs.first]
tensor = "a"
kind = "tensor"
[outputs.second]
tensor = "b"
kind = "tensor"
[evaluation]
folder = "e"
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "cats"\n', "", "cannot read r.toml: name: it is missing; write it"),
        ('"b"\nkind = "tensor"', '"b"\nkind = "tensr"',
         "line 16, outputs.second.kind: Invalid enum value 'tensr'; write one of "),
        ('"b"\nkind = "tensor"', '"b"', "line 14, outputs.second.kind: it is missing; write it"),
        ('precisions = ["float32"]', "", "cannot use r.toml: write calibration.folder"),
        ('folder = "e"', 'foldr = "e"', "line 18, evaluation.foldr: unknown key; write folder"),
        ('["float32"]', '["float32", "int4"]', "line 7, precisions.1: Invalid enum value 'int4'; write one of float32"),
        ('version = "1"', "version = = 1", r"it is no TOML \(.*line 4"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_line_and_key(old: str, new: str, says: str) -> None:
    assert old in TOML

    with pytest.raises(BadRecipe) as refused:
        parse_recipe(TOML.replace(old, new).encode(), ".toml", "r.toml")

    assert re.search(says.replace("[", r"\[") if "(" not in says else says, str(refused.value)), str(refused.value)


STEPS = """
[[inputs.picture.steps]]
op = "decode"
color = "rgb"
exif = "apply"
reduced = "never"

[[inputs.picture.steps]]
op = "resize"
mode = "stretch"
size = [2, 2]
filter = "bilinear"
antialias = true

[[inputs.picture.steps]]
op = "layout"
to = "NCHW"

[[outputs.lines.steps]]
op = "raw"
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('op = "layout"', 'op = "layuot"', "line 21, inputs.picture.steps.2: 'layuot': this runtime does not know it"),
        ('filter = "bilinear"', 'filter = "bilnear"',
         "line 14, inputs.picture.steps.1: 'resize': \"Invalid enum value"),
        ('filter = "bilinear"', 'fliter = "bilinear"', "line 14, inputs.picture.steps.1: 'resize': 'Object missing"),
        ('op = "decode"\n', "", "line 8, inputs.picture.steps.0: it has no op"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_step_is_named_with_the_line_of_its_table(old: str, new: str, says: str) -> None:
    head = 'model = "m.onnx"\nname = "n"\nversion = "1"\ntask = "any"\ntargets = ["cpu"]\nprecisions = ["float32"]\n'
    tables = '[inputs.picture]\ntensor = "x"\nkind = "image"\n[outputs.lines]\ntensor = "y"\nkind = "tensor"\n'
    text = head + STEPS + tables + '[evaluation]\nfolder = "e"\n[licence]\nspdx = "MIT"\n'
    assert old in text

    with pytest.raises(BadRecipe) as refused:
        parse_recipe(text.replace(old, new, 1).encode(), ".toml", "r.toml")

    assert says in str(refused.value)


def test_everything_that_changes_numbers_and_is_missing_is_listed_at_once() -> None:
    image = {"tensor": "input", "kind": "image"}

    with pytest.raises(BadRecipe) as refused:
        parsed(inputs={"image": image}, outputs={"c": {"tensor": "logits", "kind": "classes"}})

    for what in ("color", "exif", "resize", "normalize", "layout"):
        assert f"inputs.image.{what}" in str(refused.value)
    assert "outputs.c.activation" in str(refused.value)


@pytest.mark.parametrize("left_out", ["size", "filter", "antialias"])
def test_a_resize_that_lacks_what_changes_numbers_is_refused(left_out: str) -> None:
    image = json.loads(json.dumps(GOOD["inputs"]))
    del image["image"]["resize"][left_out]

    with pytest.raises(BadRecipe, match=rf"inputs\.image\.resize\.{left_out}"):
        parsed(inputs=image)


def test_what_resizes_nothing_needs_no_size_and_no_filter_and_the_manifest_still_has_them() -> None:
    image = json.loads(json.dumps(GOOD["inputs"]))
    image["image"]["resize"] = {"mode": "none"}

    draft = draft_release(parsed(inputs=image), MODEL, digest_of(b""), is_labelled=True)

    (resize,) = [step for step in draft.manifest.preprocess["input"] if step["op"] == "resize"]
    assert (resize["size"], resize["filter"], resize["antialias"]) == ([8, 8], "nearest", False)


def test_what_resizes_nothing_needs_a_size_where_the_model_leaves_it_open() -> None:
    image = json.loads(json.dumps(GOOD["inputs"]))
    image["image"]["resize"] = {"mode": "none"}
    port = dataclasses.replace(MODEL.inputs[0], shape=(1, 3, None, None))

    with pytest.raises(BadRecipe, match=r"write inputs\.image\.resize\.size"):
        draft_release(
            parsed(inputs=image), dataclasses.replace(MODEL, inputs=(port,)), digest_of(b""), is_labelled=True
        )


def test_a_resize_without_antialias_is_refused() -> None:
    image = json.loads(json.dumps(GOOD["inputs"]))
    del image["image"]["resize"]["antialias"]

    with pytest.raises(BadRecipe, match="antialias"):
        parsed(inputs=image)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"evaluation": {"folder": "c"}}, "must be different examples"),
        ({"precisions": ["int8"]}, "keep float32"),
        ({"calibration": None}, "calibration.folder"),
        ({"name": "Not A Name"}, "model name"),
        ({"version": "a b"}, "version"),
        ({"targets": []}, "at least one target"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(BadRecipe, match=says):
        parsed(**changes)


def test_the_steps_come_in_the_contracts_vocabulary() -> None:
    steps = preprocess_of("image", parsed().inputs["image"])

    assert [step["op"] for step in steps] == ["decode", "resize", "normalize", "layout"]
    assert steps[0]["from"] == "image"
