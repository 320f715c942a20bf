"""Models that remember, from their file through `edge-convert build` to answers about a stream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.pipeline.build import BuildOptions, build
from converters.planning.recipe import Recipe, parse_recipe
from edge_runtime import Model
from edge_runtime.contract.errors import EdgeError
from tests.fakes.streams import CONTEXT, FRAME, RATE_HZ, noise, recording, remembering_model, row_model

HYSTERESIS = {"op": "hysteresis", "on": 0.6, "off": 0.4, "min_on_ms": 16, "min_off_ms": 16, "pad_ms": 4}


def recipe_of(**told: Any) -> Recipe:
    steps = [
        {"op": "amplitude", "mode": "none"},
        {"op": "frame", "length": FRAME, "hop": FRAME, "context": CONTEXT, "tail": "pad_zero"},
    ]
    sound = {"tensor": "input", "kind": "audio", "sample_rate_hz": RATE_HZ, "channels": 1, "dtype": "float32"}
    whole: dict[str, Any] = {
        "model": "vad.onnx", "name": "vad", "version": "1.0.0", "task": "voice_activity", "targets": ["cpu"],
        "precisions": ["float32"], "engines": ["onnxruntime"],
        "inputs": {"audio": {**sound, "steps": steps}},
        "constants": {"sr": RATE_HZ},
        "states": {"rnn": {"in": "state", "out": "stateN"}},
        "outputs": {
            "segments": {"tensor": "output", "kind": "segments", "steps": [HYSTERESIS]},
            "speech": {"tensor": "output", "kind": "score"},
        },
        "evaluation": {"folder": "evaluation"},
        "golden": {"count": 3, "contains_personal_data": False},
        **told,
    }  # fmt: skip
    return parse_recipe(json.dumps(whole).encode(), ".json")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vad")
    (folder / "vad.onnx").write_bytes(remembering_model())
    for name, count, first in (("evaluation", 4, 0), ("calibration", 8, 10)):
        (folder / name).mkdir()
        for seed in range(first, first + count):
            (folder / name / f"{seed}.wav").write_bytes(recording(noise(0.4, seed=seed) / 4))
    return folder


def built(recipe: Recipe, base: Path, out: Path) -> Any:
    return build(recipe, BuildOptions(out=out, base=base, cache=None), lambda *_: None)


def test_a_model_that_remembers_is_judged_over_whole_sequences(base, tmp_path) -> None:
    report = built(recipe_of(), base, tmp_path / "out")

    with Model.open(tmp_path / "out", backends=["onnxruntime"]) as model:
        manifest, golden = model.release.manifest, model.golden_set()
        checks = model.golden_check()
    assert [(row.variant, row.verdict) for row in report.rows] == [("ort-float32", "shipped")]
    assert [row.evidence.accuracy.agreement for row in report.rows] == [1.0]
    assert manifest.requires == ["states", "stream"]
    assert [(state.in_, state.shape, state.of_step) for state in manifest.states] == [
        ("state", [1, "N", 3], None),
        (None, [], "frame"),
    ]
    assert manifest.tensors["sr"].constant == RATE_HZ
    assert manifest.golden is not None
    assert manifest.golden.stored == "sequence"
    assert golden is not None
    assert [sample.float_outputs["output"].shape for sample in golden.samples] == [(50, 1)] * 3
    assert all(check.passed for check in checks)
    assert {check.metric for check in checks} == {"snr_db", "segment_iou"}


def test_ranges_of_a_model_that_remembers_are_taken_from_its_own_states(base, tmp_path) -> None:
    recipe = recipe_of(
        precisions=["float32", "int8"], calibration={"folder": "calibration"}, limits={"min_snr_db": {"*": 15.0}},
        methods=["int8"],
    )  # fmt: skip

    report = built(recipe, base, tmp_path / "out")

    with Model.open(tmp_path / "out", backends=["onnxruntime"], variant="ort-int8") as model:
        checks = model.golden_check()
    rows = {row.variant: row for row in report.rows}
    assert {name: row.verdict for name, row in rows.items()} == {"ort-float32": "shipped", "ort-int8": "shipped"}
    assert 15 < rows["ort-int8"].evidence.accuracy.float_snr_db < 60
    assert all(check.passed for check in checks)


def test_rows_of_a_table_may_follow_one_another_and_the_last_answer_is_what_is_judged(tmp_path) -> None:
    (tmp_path / "gesture.onnx").write_bytes(row_model())
    (tmp_path / "evaluation").mkdir()
    rng = np.random.default_rng(2)
    for number in range(5):
        np.save(tmp_path / "evaluation" / f"{number}.npy", rng.standard_normal((20 + number, 4)).astype(np.float32))
    recipe = recipe_of(
        model="gesture.onnx", task="gesture", inputs={"row": {"tensor": "x", "kind": "tensor"}}, constants={},
        states={"h": {"in": "h", "out": "h_out"}},
        outputs={"kind": {"tensor": "y", "kind": "classes", "activation": "softmax"}},
    )  # fmt: skip

    report = built(recipe, tmp_path, tmp_path / "out")

    rows = np.load(tmp_path / "evaluation" / "3.npy")
    with Model.open(tmp_path / "out", backends=["onnxruntime"]) as model, model.start_session() as session:
        manifest, checks = model.release.manifest, model.golden_check()
        whole = model.infer_tensors({"row": rows})["y"]
        apart = [session.infer_tensors({"x": rows[:9]}), session.infer_tensors({"row": rows[9:]}, last=True)]
        alone = model.infer_tensors({"row": rows[9:]})["y"]
        answers = model.infer_batch({"row": rows})
    assert report.rows[0].verdict == "shipped"
    assert report.count == 5
    assert manifest.stream is not None
    assert manifest.stream.unit == "row"
    assert all(check.passed for check in checks)
    assert np.array_equal(np.concatenate([one["y"] for one in apart]), whole)
    assert not np.array_equal(alone, whole[9:])
    assert len(answers) == len(rows)


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"states": {}}, "nothing feeds the model's input state"),
        ({"constants": {}}, "nothing feeds the model's input sr"),
        ({"states": {"rnn": {"in": "state", "out": "output"}}}, "no answer is made from it"),
        ({"states": {"rnn": {"in": "input", "out": "stateN"}}}, "input input is fed twice"),
        ({"stream": {"idle_ms": 0}}, "stream.idle_ms must be above 0"),
        ({"stream": {"unit": "chunk"}}, "unit"),
    ],
)
def test_a_recipe_whose_states_make_no_sense_is_refused(base, tmp_path, told, reason) -> None:
    with pytest.raises(EdgeError) as caught:
        built(recipe_of(**told), base, tmp_path / "out")

    assert reason in str(caught.value)
    assert not (tmp_path / "out").exists()


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.needs_shared
def test_silero_goes_from_its_starter_recipe_to_the_speech_that_its_authors_hear(shared, tmp_path) -> None:
    (tmp_path / "evaluation").mkdir()
    for name in ("librispeech_1272-141231-0002.wav", "silence_1000ms.wav", "yes_1000ms.wav"):
        (tmp_path / "evaluation" / name).write_bytes((shared / "models/data/audio" / name).read_bytes())
    model = tmp_path / "silero_vad.onnx"
    model.write_bytes((shared / "models/onnx/silero_vad.onnx").read_bytes())

    recipe = command("converters.cli", "recipe", model)
    text = recipe.stdout.replace("my-model", "vad")
    text = text[: text.index("[calibration]")] + text[text.index("[evaluation]") :]
    (tmp_path / "recipe.toml").write_text('engines = ["onnxruntime", "openvino"]\nprecisions = ["float32"]\n' + text)
    made = command(
        "converters.cli", "build", "--recipe", tmp_path / "recipe.toml", "-o", tmp_path / "out", "--no-cache", "--json",
    )  # fmt: skip
    speech = shared / "models/data/audio/speech_test.wav"
    said = command("edge_runtime.cli", "run", tmp_path / "out", speech, "--json")

    assert "CHANGE" in recipe.stdout
    assert made.returncode == 0, made.stderr
    rows = {row["variant"]: row for row in json.loads(made.stdout)["rows"]}
    assert {name: row["verdict"] for name, row in rows.items() if name.endswith("float32")} == {
        "ort-float32": "shipped", "openvino-float32": "shipped",
    }  # fmt: skip
    assert not [note for note in json.loads(made.stdout)["notes"] if "--shape" in note or "int8" in note]
    # The branch for another sample rate is gone, and most of its conditions.
    assert rows["ort-float32"]["size_bytes"] < 0.6 * model.stat().st_size
    answer = json.loads(said.stdout)["answers"][0]["answer"]
    scores = np.asarray(answer["score"]["scores"])
    assert scores.size == 1875
    assert np.mean(scores > 0.5) == pytest.approx(0.77, abs=0.01)
    first = answer["segments"]["segments"][0]
    assert (first["start_s"], first["end_s"]) == (pytest.approx(0.0, abs=0.05), pytest.approx(2.05, abs=0.05))
