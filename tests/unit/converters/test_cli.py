import json
import sys

import pytest
from onnx import TensorProto, helper
from PIL import Image

from converters.cli import main as cli
from converters.commands import build as commands
from converters.pipeline.finishing import BuildOptions
from converters.planning.recipe import parse_recipe
from tests.fakes.onnx_models import conv_classifier, saved


def run(monkeypatch, capsys, *arguments) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["edge-convert", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_a_folder_without_a_name_is_called_as_it_was_given(monkeypatch, capsys) -> None:
    status, out, _ = run(monkeypatch, capsys, "check", ".")

    assert status == 1
    assert ". is a folder" in out
    assert "\n. cannot be built for cpu" in out


def test_check_says_that_a_sound_model_can_be_built(monkeypatch, capsys, tmp_path) -> None:
    status, out, _ = run(monkeypatch, capsys, "check", saved(conv_classifier(), tmp_path / "m.onnx"))

    assert status == 0
    assert "m.onnx can be built" in out


def test_check_fails_with_findings_as_json(monkeypatch, capsys, tmp_path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"PK\x03\x04")

    status, out, _ = run(monkeypatch, capsys, "check", tmp_path / "m.onnx", "--json")

    assert status == 1
    checked = json.loads(out)
    assert checked["findings"][0]["code"] == "not_onnx"
    assert checked["verdicts"] == {"cpu": False}


def test_check_says_for_each_family_whether_a_model_can_be_built(monkeypatch, capsys, tmp_path) -> None:
    model = conv_classifier()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    path = saved(model, tmp_path / "m.onnx")

    status, out, _ = run(monkeypatch, capsys, "check", path, "--target", "cpu", "--target", "coral")
    fixed, after, _ = run(
        monkeypatch, capsys, "check", path, "--target", "cpu", "--target", "coral", "--shape", "input=1,3,8,8"
    )

    assert status == 1
    assert "[coral] axes [2] of input input have no fixed size" in out
    assert "m.onnx cannot be built for coral; it can be for cpu" in out
    assert fixed == 0
    assert "m.onnx can be built for coral, cpu" in after


def test_brackets_and_colons_in_a_model_are_printed_as_they_are(monkeypatch, capsys, tmp_path) -> None:
    status, out, _ = run(monkeypatch, capsys, "check", saved(conv_classifier(), tmp_path / "m[bold]:cat:.onnx"))

    assert status == 0
    assert "m[bold]:cat:.onnx can be built" in out


def test_an_error_is_one_line_without_a_traceback(monkeypatch, capsys, tmp_path) -> None:
    status, out, err = run(monkeypatch, capsys, "build", tmp_path / "no.onnx", "-o", tmp_path / "out")

    assert status == 1
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("cannot use no.onnx: ")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a Git LFS pointer, not the model"),
        (b"no model at all", "is not a model but text"),
        (b"\x08\x07", "holds no ONNX graph"),
    ],
)
@pytest.mark.parametrize("command", [["recipe"], ["check"], ["build", "-o", "out"]])
def test_every_command_says_the_same_about_a_file_that_is_no_model(
    monkeypatch, capsys, tmp_path, command, content, says
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(content)

    status, out, err = run(monkeypatch, capsys, *command, "m.onnx")

    assert status == 1
    assert says in " ".join((out + err).split())


def test_an_unknown_target_is_answered_with_the_known_ones(monkeypatch, capsys, tmp_path) -> None:
    model = saved(conv_classifier(), tmp_path / "m.onnx")

    status, _, err = run(monkeypatch, capsys, "check", model, "--target", "toaster")

    assert status == 1
    assert "raspberry-pi-5" in err


def test_a_dry_run_shows_the_plan_and_writes_nothing(monkeypatch, capsys, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    model = saved(conv_classifier(), tmp_path / "m.onnx")
    options = ["--name", "cats", "--version", "1", "--target", "cpu", "--evaluate", "e", "--precision", "float32",
               "--activation", "none", "--color", "rgb", "--resize", "stretch", "--filter", "bilinear", "--antialias",
               "--scale", "1", "--mean", "0", "--std", "255"]  # fmt: skip

    status, out, _ = run(monkeypatch, capsys, "build", model, "-o", tmp_path / "out", *options, "--dry-run", "--json")

    assert status == 0
    assert json.loads(out)["candidates"][0]["variant"] == "ort-float32"
    assert not (tmp_path / "out").exists()


DETECTOR = """
model = "m.onnx"
name = "cats"
version = "1"
task = "object_detection"
targets = ["cpu"]
precisions = ["float32"]
[inputs.image]
tensor = "input"                        # {change}
kind = "image"
color = "rgb"
exif = "apply"
# {change}: as in training
resize = {{ mode = "stretch", size = {size}, filter = "bilinear", antialias = true }}
normalize = {{ scale = 1.0, mean = [0.0], std = [255.0] }}
layout = "NCHW"
[outputs.cats]
tensor = "{tensor}"
kind = "detections"
steps = [{{ op = "detect", family = "{family}", score = "cls", activation = "none", box_format = "xyxy", \
box_units = "normalized", min_score = 0.5, max = 9 }}, \
{{ op = "nms", iou = 0.5, per_class = true, kind = "hard", in_graph = false }}]
[evaluation]
folder = "nowhere"
{metric}
[limits]
{limits}
"""


def dry_run(monkeypatch, capsys, folder, **changes) -> tuple[int, str, str]:
    pytest.importorskip("onnxruntime")
    usual = {"tensor": "logits", "size": "[8, 8]", "family": "raw", "change": "note", "metric": "", "limits": ""}
    told = {**usual, **changes}
    saved(conv_classifier(), folder / "m.onnx")
    (folder / "r.toml").write_text(DETECTOR.replace("\\\n", "").format(**told))
    arguments = ("build", "--recipe", folder / "r.toml", "-o", folder / "out", "--dry-run")
    return run(monkeypatch, capsys, *arguments)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tensor": "nobody"}, "use output 'nobody': the model has logits"),
        ({"size": "[9, 8]"}, "correct resize.size, color or layout"),
        ({"family": "ultraface"}, "its family needs scores"),
    ],
)
def test_a_dry_run_refuses_what_recipe_and_model_alone_show_to_be_wrong(
    monkeypatch, capsys, tmp_path, changes, says
) -> None:
    status, out, err = dry_run(monkeypatch, capsys, tmp_path, **changes)

    assert (status, out) == (1, "")
    assert says in err


def test_a_metric_beside_the_recipe_runs_nothing_until_somebody_trusts_it(monkeypatch, capsys, tmp_path) -> None:
    (tmp_path / "theirs.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    dry_run(monkeypatch, capsys, tmp_path, metric='metric = "theirs:score"')
    arguments = ("build", "--recipe", tmp_path / "r.toml", "-o", tmp_path / "out")

    refused = run(monkeypatch, capsys, *arguments)
    trusted = run(monkeypatch, capsys, *arguments, "--dry-run", "--trust-code")

    assert refused[0] == 1
    assert "use metric 'theirs:score': importing 'theirs' runs whatever code it holds; add --trust-code" in refused[2]
    assert not (tmp_path / "ran").exists()
    assert trusted[0] == 0


def test_a_dry_run_needs_no_examples_and_notes_a_detector_without_labels(monkeypatch, capsys, tmp_path) -> None:
    status, out, err = dry_run(monkeypatch, capsys, tmp_path)

    assert (status, err) == (0, "")
    assert "note: outputs.cats has no labels" in out


def test_a_dry_run_refuses_a_loss_that_an_unlabelled_evaluation_set_cannot_tell(monkeypatch, capsys, tmp_path) -> None:
    (tmp_path / "nowhere").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "nowhere" / "a.png")

    status, out, err = dry_run(monkeypatch, capsys, tmp_path, limits='max_drop = { "*" = 0.01 }')
    agreed, _, _ = dry_run(monkeypatch, capsys, tmp_path, limits='min_agreement = { "*" = 0.9 }')

    assert (status, out, agreed) == (1, "", 0)
    assert "cannot use max_drop: " in err
    assert "has no labels; name annotations (COCO's JSON), or use min_agreement" in err


def test_a_starter_recipe_finds_the_model_from_where_it_was_made(monkeypatch, capsys, tmp_path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "work").mkdir()
    saved(conv_classifier(), tmp_path / "models" / "m.onnx")
    monkeypatch.chdir(tmp_path / "work")

    _, text, _ = run(monkeypatch, capsys, "recipe", "../models/m.onnx")

    assert parse_recipe(text.encode(), ".toml").model == "../models/m.onnx"


@pytest.mark.parametrize(("options", "emulates"), [([], True), (["--no-emulate"], False)])
def test_emulation_is_left_out_on_request(monkeypatch, capsys, tmp_path, options, emulates) -> None:
    asked: list[BuildOptions] = []
    monkeypatch.setattr(commands, "build_release", lambda _, given, **__: asked.append(given) or True)
    dry_run(monkeypatch, capsys, tmp_path)

    run(monkeypatch, capsys, "build", "--recipe", tmp_path / "r.toml", "-o", tmp_path / "out", *options)

    assert [one.emulates for one in asked] == [emulates]


def test_lines_that_still_ask_for_a_change_are_named(monkeypatch, capsys, tmp_path) -> None:
    _, _, err = dry_run(monkeypatch, capsys, tmp_path, change="CHANGE")

    assert "note: r.toml still says CHANGE at tensor, resize: take the word away where it is right" in err


def test_keys_are_made_once(monkeypatch, capsys, tmp_path) -> None:
    status, out, _ = run(monkeypatch, capsys, "keygen", tmp_path / "model.key")

    assert status == 0
    assert "key id" in out
    assert (tmp_path / "model.key").stat().st_mode & 0o077 == 0

    status, _, err = run(monkeypatch, capsys, "keygen", tmp_path / "model.key")

    assert status == 1
    assert "exists" in err


@pytest.mark.parametrize("name", ["x\x1b]0;pwned\x07", "x\x9b31m", "x\x7f", "x\u202e"])
def test_the_name_of_a_tensor_steers_no_terminal(monkeypatch, capsys, tmp_path, name) -> None:
    port = helper.make_tensor_value_info(name, TensorProto.STRING, [1])
    made = helper.make_tensor_value_info("y", TensorProto.STRING, [1])
    graph = helper.make_graph([helper.make_node("Identity", [name], ["y"])], "g", [port], [made])
    path = saved(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx"
    )

    told = [text for command in (["check"], ["check", "--json"], ["recipe"])
            for text in run(monkeypatch, capsys, *command, path)[1:]]  # fmt: skip

    assert "STRING" in "".join(told).upper()
    # By line ends alone: splitlines would take other separators away as well.
    assert all(line.isprintable() for text in told for line in text.split("\n"))
