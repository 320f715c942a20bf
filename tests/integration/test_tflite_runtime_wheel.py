"""The real tflite-runtime wheel, in the environment that the command makes for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.inference.backend import BackendOptions, load_backend
from edge_runtime.inference.backends.tflite_runtime import TfliteRuntimeBackend
from tests.fakes.litert_models import four_pixel_tflite, int8_four_pixel_tflite
from tests.fakes.models import Build, write_release

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables under which the engine is installed; skips where the wheel cannot be had."""
    variables = {**os.environ, "EDGEFLEET_ENGINES": str(tmp_path_factory.mktemp("engines"))}
    done = command(variables, "engine", "install", "tflite-runtime", "--json")
    if done.returncode:
        pytest.skip(f"the wheel cannot be had: {done.stderr}")
    assert json.loads(done.stdout)["version"] == "2.14.0"
    return {**variables, "PYTHON_OF_IT": json.loads(done.stdout)["python"]}


def command(variables: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "edge_runtime.cli", *words]
    return subprocess.run(program, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("content", [four_pixel_tflite(), int8_four_pixel_tflite()], ids=["float", "int8"])
def test_the_old_library_answers_as_the_new_one(environment: dict[str, str], content: bytes) -> None:
    manifest = Build("v", engine="litert").manifest()
    backends = [TfliteRuntimeBackend(Path(environment["PYTHON_OF_IT"])), load_backend("litert")]
    sessions = [backend.open({"model": content}, manifest, BackendOptions(threads=1)) for backend in backends]
    question = {"x": np.arange(8).reshape(2, 1, 2, 2).astype(sessions[0].inputs[0].dtype)}

    old, new = [session.run(question)["logits"].tolist() for session in sessions]

    assert old == new


def test_a_release_runs_there_by_the_command(environment: dict[str, str], tmp_path: Path) -> None:
    write_release(tmp_path / "release", [Build("lite", engine="litert", content=four_pixel_tflite())])
    np.save(tmp_path / "question.npy", np.array([[[[0], [255]], [[128], [64]]]], np.uint8))
    words = ("run", str(tmp_path / "release"), str(tmp_path / "question.npy"), "--json")

    answers = [json.loads(command(environment, *words, "--backend", name).stdout)["answers"]
               for name in ("tflite_runtime", "litert")]  # fmt: skip

    assert answers[0] == answers[1]
    assert "error" not in answers[0][0]


@pytest.mark.needs_shared
def test_it_loads_every_real_file_and_answers_in_floats_as_the_new_one(
    environment: dict[str, str], shared: Path
) -> None:
    manifest, options = Build("v", engine="litert").manifest(), BackendOptions(threads=1)
    backends = [TfliteRuntimeBackend(Path(environment["PYTHON_OF_IT"])), load_backend("litert")]
    for file in sorted((shared / "models" / "tflite").glob("*.tflite")):
        if "edgetpu" in file.name:
            continue
        old, new = (backend.open({"model": file}, manifest, options) for backend in backends)
        question = {
            info.name: np.full([size or 1 for size in info.shape], 0.5 if info.dtype == "float32" else 100, info.dtype)
            for info in old.inputs
        }

        answers = [session.run(question) for session in (old, new)]

        assert (old.inputs, old.outputs) == (new.inputs, new.outputs), file.name
        for name, array in answers[1].items():
            assert (answers[0][name].dtype, answers[0][name].shape) == (array.dtype, array.shape), file.name
            # Quantised layers round differently in the two libraries, and one of these files has 8-bit weights.
            if all(info.dtype == "float32" for info in old.inputs):
                assert np.allclose(answers[0][name], array, atol=0.05 * np.abs(array).max()), file.name
        old.close()
        new.close()


def test_it_is_listed_among_the_engines_that_work(environment: dict[str, str]) -> None:
    listed = json.loads(command(environment, "engine", "list", "--json").stdout)

    assert listed["tflite_runtime"] == {
        "library": "tflite-runtime", "version": "2.14.0", "providers": ["cpu", "xnnpack"],
    }  # fmt: skip
