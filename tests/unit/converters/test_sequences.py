"""What becomes of states, constants and streams in a recipe: manifest, golden questions, agreement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converters.building.workshop import open_source
from converters.data.sets import open_sets
from converters.errors import BadRecipe
from converters.evaluation.golden import ask_from, reference_bytes
from converters.evaluation.metrics.choose import agreement_of, task_of
from converters.evaluation.metrics.metric import Reply
from converters.importers.onnx import describe
from converters.planning.recipe import Recipe, parse_recipe
from converters.release.draft import Draft, draft_release
from converters.starter.from_model import starter_text
from edge_runtime.contract.digest import digest_of
from edge_runtime.inference.postprocessing.stream_results import Segment, Segments
from edge_runtime.inference.preprocessing.preprocess import compile_preprocess
from tests.fakes.streams import CONTEXT, FRAME, RATE_HZ, noise, recording, remembering_model

FRAMES = {"op": "frame", "length": FRAME, "hop": FRAME, "context": CONTEXT, "tail": "pad_zero"}
PIECES = {"op": "hysteresis", "on": 0.6, "off": 0.4, "min_on_ms": 16, "min_off_ms": 16, "pad_ms": 4}


def recipe_of(**told: Any) -> Recipe:
    sound = {"tensor": "input", "kind": "audio", "sample_rate_hz": RATE_HZ, "channels": 1, "dtype": "float32"}
    whole = {
        "model": "vad.onnx", "name": "vad", "version": "1", "task": "voice_activity", "targets": ["cpu"],
        "precisions": ["float32"], "inputs": {"audio": {**sound, "steps": [FRAMES]}}, "constants": {"sr": RATE_HZ},
        "states": {"rnn": {"in": "state", "out": "stateN"}},
        "outputs": {"speech": {"tensor": "output", "kind": "segments", "steps": [PIECES]}},
        "evaluation": {"folder": "evaluation"}, **told,
    }  # fmt: skip
    return parse_recipe(json.dumps(whole).encode(), ".json")


def opened(**free: list[int | str]) -> Any:
    """The small model, with other sizes of the named ports."""
    model = onnx.load_from_string(remembering_model())
    for entry in (*model.graph.input, *model.graph.output):
        if entry.name in free:
            kind = entry.type.tensor_type.elem_type
            entry.CopyFrom(helper.make_tensor_value_info(entry.name, kind, free[entry.name]))
    return model


def drafted(recipe: Recipe, model: Any = None) -> Draft:
    return draft_release(recipe, describe(model or opened()), digest_of(b""), is_labelled=False)


def test_sizes_that_the_model_leaves_open_come_from_steps_and_states() -> None:
    free = opened(input=["a", "b"], output=["c", "d"], stateN=["e", "f", "g"])

    draft = drafted(recipe_of(), free)

    assert draft.manifest.tensors["input"].shape == ["N", CONTEXT + FRAME]
    assert draft.manifest.tensors["output"].shape == ["N", 1]
    assert draft.manifest.states[0].shape == [1, "N", 3]
    assert draft.tensor("stateN").shape == [1, "N", 3]
    assert draft.constants == {"sr": RATE_HZ}
    assert set(draft.without_constants().inputs) == {"input", "state"}


def test_a_state_with_more_than_one_open_size_is_asked_for_its_shape() -> None:
    free = opened(state=["a", "b", "c"], stateN=["a", "b", "c"])
    told = {"rnn": {"in": "state", "out": "stateN", "shape": [1, "N", 3]}}

    with pytest.raises(BadRecipe, match=r"leaves the sizes \[None, None, None\] of state open; write states.rnn.shape"):
        drafted(recipe_of(), free)
    assert drafted(recipe_of(states=told), free).manifest.states[0].shape == [1, "N", 3]


def test_a_state_that_comes_back_as_another_type_is_refused() -> None:
    model = opened()
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.DOUBLE

    with pytest.raises(BadRecipe, match="state takes float32 and stateN gives float64"):
        drafted(recipe_of(), model)


def test_a_constant_of_no_fixed_size_is_refused() -> None:
    with pytest.raises(BadRecipe, match=r"leaves a size of sr open; write shapes\.sr"):
        drafted(recipe_of(), opened(sr=["k"]))


def test_the_rules_of_sessions_are_the_recipes() -> None:
    stream = {"gap_ms": 500, "idle_ms": 9000, "max_sessions": 3, "on_swap": "reset"}

    plain, told = drafted(recipe_of()).manifest.stream, drafted(recipe_of(stream=stream)).manifest.stream

    assert plain is not None
    assert told is not None
    assert (plain.unit, plain.reset, plain.on_swap) == ("frame", ["session_start"], "drain")
    assert (told.reset, told.gap_ms, told.idle_ms, told.max_sessions, told.on_swap) == (
        ["session_start", "gap"], 500, 9000, 3, "reset",
    )  # fmt: skip


def test_a_starter_recipe_asks_for_a_shape_that_no_port_tells() -> None:
    text = starter_text("vad.onnx", describe(opened(state=["a", "b", 3], stateN=["a", "b", "c"])))

    (state,) = parse_recipe(text.replace('"SIZE"', "1").encode(), ".toml").states.values()
    assert state.shape == ["N", 1, 3]


def test_a_question_is_the_beginning_of_a_recording_that_would_not_fit(tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    for number in range(2):
        (tmp_path / "evaluation" / f"{number}.wav").write_bytes(recording(noise(1000, seed=number) / 4))
    recipe = recipe_of()
    draft, dataset = drafted(recipe), open_sets(recipe, tmp_path, None).evaluation
    preprocessor = compile_preprocess(draft.manifest)

    source = open_source(draft, opened())
    try:
        taken = reference_bytes(dataset, source)
        asked = ask_from(dataset, preprocessor, count=16, output="speech", reference_bytes=taken)
    finally:
        source.close()

    sizes = [question["audio"].nbytes for question in asked.inputs]
    assert len(sizes) == 2
    assert all(size < 1000 * RATE_HZ * 4 for size in sizes)
    assert 2_500_000 < sum(sizes) < 4 * 1024 * 1024


def test_streams_agree_on_the_share_of_the_time_in_which_both_find_segments() -> None:
    draft = drafted(recipe_of())
    task = task_of(draft.manifest, metric=None, is_labelled=False, folder=Path())
    agreement = agreement_of(task)

    def reply(*pieces: tuple[float, float]) -> Reply:
        found = tuple(Segment(*piece) for piece in pieces)
        return Reply({"output": np.zeros((1, 1))}, {"speech": Segments(found, None)})

    agreement.add(reply((0, 2)), reply((1, 2)))
    agreement.add(reply(), reply())

    assert agreement.score().metric == "segment_iou"
    assert agreement.score().value == pytest.approx((0.5 + 1) / 2)
    assert task.metric is None
