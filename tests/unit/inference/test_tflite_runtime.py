"""The worker of tflite-runtime: named by the device's owner, replaced when it dies, given up when it hangs.

Here a library that misbehaves runs in it; in tests/contract it is this environment's LiteRT, and the lab has the wheel.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from edge_runtime.cli.main import assemble
from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.variant_choice import find_misfit
from edge_runtime.inference.backend import BACKENDS, BackendOptions, allowed
from edge_runtime.inference.backends.tflite_runtime import TfliteRuntimeBackend
from edge_runtime.inference.environments.named import TFLITE_RUNTIME, name_python, named_python
from edge_runtime.inference.facts import engines, machine_facts
from edge_runtime.inference.model import Model
from edge_runtime.serving.host import ModelHost
from tests.fakes.litert_models import four_pixel_tflite
from tests.fakes.models import Build, write_release
from tests.fakes.old_tflite import write_old_tflite
from tests.fakes.open_files import open_files

LIBRARY = """
import enum
import os
import signal
import sys

import numpy as np

OpResolverType = enum.Enum("OpResolverType", "AUTO BUILTIN_REF BUILTIN_WITHOUT_DEFAULT_DELEGATES")


class Interpreter:
    def __init__(self, **wishes):
        self.x = np.zeros((1, 1, 2, 2), np.float32)

    def get_input_details(self):
        return [dict(name="x", index=0, dtype=np.float32, shape=self.x.shape, shape_signature=(-1, 1, 2, 2))]

    def get_output_details(self):
        return [dict(name="logits", index=1, dtype=np.float32, shape=(len(self.x), 4), shape_signature=(-1, 4))]

    def _get_ops_details(self):
        return [dict(op_name="MUL")]

    def allocate_tensors(self):
        pass

    def resize_tensor_input(self, index, shape, strict):
        pass

    def set_tensor(self, index, array):
        self.x = array

    def invoke(self):
        said = self.x.flat[0]
        if said == 1:
            os._exit(3)
        if said == 2:
            signal.pause()
        if said == 3:
            os.write(int(sys.argv[1]), bytes([2, 0, 0, 0]) + b"{}")
        if said == 4:
            raise RuntimeError("the delegate failed")

    def get_tensor(self, index):
        return self.x.reshape(-1, 4) * 2
"""
MANIFEST = Build("v", engine="litert").manifest()
FILES = {"model": four_pixel_tflite()}


def pixels(first: float) -> dict[str, Any]:
    return {"x": np.float32([[[[first, 1], [0.5, 0.25]]]])}


def answer(first: float) -> list[list[float]]:
    return [[first * 2, 2.0, 1.0, 0.5]]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An environment whose library doubles four pixels, dies of 1, hangs at 2, talks nonsense at 3 and fails at 4."""
    return write_old_tflite(tmp_path, LIBRARY)


@pytest.fixture
def moody(python: Path) -> TfliteRuntimeBackend:
    return TfliteRuntimeBackend(python, answer_within_s=30.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEFLEET_ENGINES", str(tmp_path / "engines"))
    return tmp_path / "engines"


def process_of(session: Any) -> int:
    return int(session._all[0]._worker._child.pid)


def test_a_worker_that_was_killed_costs_no_call(moody: TfliteRuntimeBackend) -> None:
    session = moody.open(FILES, MANIFEST, BackendOptions())
    first = process_of(session)

    os.kill(first, signal.SIGKILL)
    given = session.run(pixels(0.0))["logits"].tolist()

    assert given == answer(0.0)
    assert process_of(session) != first


def test_a_question_that_kills_every_worker_is_the_engines_failure_and_the_next_one_is_answered(
    moody: TfliteRuntimeBackend,
) -> None:
    session = moody.open(FILES, MANIFEST, BackendOptions())

    with pytest.raises(InferenceError, match="its worker ended with status 3") as failed:
        session.run(pixels(1.0))

    assert failed.value.code == "engine_failed"
    assert session.run(pixels(0.0))["logits"].tolist() == answer(0.0)


def test_a_worker_that_hangs_is_ended_and_the_question_is_not_asked_again(python: Path) -> None:
    hasty = TfliteRuntimeBackend(python, answer_within_s=0.2)
    session = hasty.open(FILES, MANIFEST, BackendOptions())
    first = process_of(session)

    with pytest.raises(InferenceError, match=r"did not answer within 0\.2 s") as failed:
        session.run(pixels(2.0))

    assert failed.value.code == "engine_failed"
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_worker_that_says_what_it_should_not_is_not_believed(moody: TfliteRuntimeBackend) -> None:
    session = moody.open(FILES, MANIFEST, BackendOptions())

    with pytest.raises(InferenceError, match="said what it should not"):
        session.run(pixels(3.0))

    assert session.run(pixels(0.0))["logits"].tolist() == answer(0.0)


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next_one(
    moody: TfliteRuntimeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    session: Any = moody.open(FILES, MANIFEST, BackendOptions())
    worker = session._all[0]._worker

    def interrupted(within_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, "_heard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.run(pixels(0.5))

    assert session.run(pixels(0.0))["logits"].tolist() == answer(0.0)


def test_a_call_that_was_under_way_when_the_model_was_closed_leaves_no_worker_behind(
    moody: TfliteRuntimeBackend,
) -> None:
    session: Any = moody.open(FILES, MANIFEST, BackendOptions())
    [borrowed] = session._all

    session.close()

    with pytest.raises(Exception, match="the model was closed meanwhile"):
        borrowed.run(pixels(0.0))
    assert borrowed._worker.is_gone


def test_a_python_that_does_not_start_leaves_no_socket_open(tmp_path: Path) -> None:
    before = open_files(is_first_look=True)

    with pytest.raises(InferenceError, match="No such file") as refused:
        TfliteRuntimeBackend(tmp_path / "none").open(FILES, MANIFEST, BackendOptions())

    assert open_files() == before
    assert refused.value.code == "load_failed"


def test_what_the_library_refuses_is_said_in_its_words_by_the_same_worker(moody: TfliteRuntimeBackend) -> None:
    session = moody.open(FILES, MANIFEST, BackendOptions())
    first = process_of(session)

    with pytest.raises(InferenceError, match="the delegate failed"):
        session.run(pixels(4.0))

    assert session.run(pixels(0.0))["logits"].tolist() == answer(0.0)
    assert process_of(session) == first


def test_a_session_that_nobody_closed_takes_its_process_along(moody: TfliteRuntimeBackend) -> None:
    session = moody.open(FILES, MANIFEST, BackendOptions())
    process = process_of(session)

    del session
    gc.collect()

    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_without_a_named_environment_the_engine_is_absent_and_says_how_to_get_it(folder: Path) -> None:
    backend = TfliteRuntimeBackend()

    assert backend.probe() is None
    with pytest.raises(InferenceError, match="edge-runtime engine install tflite-runtime") as refused:
        backend.open(FILES, MANIFEST, BackendOptions())
    assert refused.value.code == "load_failed"


def test_an_environment_that_is_gone_is_named_with_what_to_do(tmp_path: Path, folder: Path) -> None:
    name_python(TFLITE_RUNTIME, Path("/nowhere/python"))
    write_release(tmp_path / "release", [Build("lite", engine="litert", content=four_pixel_tflite())])
    advice = r"edge-runtime engine install tflite-runtime \(the one that is named, /nowhere/python, does not work: "

    with pytest.raises(InferenceError, match=advice) as refused:
        Model.open(tmp_path / "release", backends=["tflite_runtime"])
    with pytest.raises(InferenceError, match=advice), ModelHost(backends=["tflite_runtime"]) as host:
        host.load(tmp_path / "release")
    listed = CliRunner().invoke(assemble(), ["engine", "list"])

    assert "edgefleet[litert]" not in str(refused.value)
    assert "cannot run tflite-runtime with /nowhere/python" in listed.stderr
    assert "tflite_runtime" not in listed.stdout


@pytest.mark.parametrize("name", ["[/of]", "[red]"])
def test_brackets_in_the_name_of_an_engine_are_no_markup(name: str) -> None:
    done = CliRunner().invoke(assemble(), ["engine", "install", name])

    assert isinstance(done.exception, InferenceError)
    assert name in str(done.exception)


def test_an_environment_without_the_wheel_is_not_named(folder: Path) -> None:
    asked = ["engine", "install", TFLITE_RUNTIME, "--python", sys.executable]

    done = CliRunner().invoke(assemble(), asked)

    assert isinstance(done.exception, InferenceError)
    assert "No module named 'tflite_runtime'" in str(done.exception)
    assert named_python(TFLITE_RUNTIME) is None


def test_what_a_worker_wrote_before_it_died_is_said(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'Traceback:\nImportError: numpy.core.umath failed' >&2\nexit 3\n")
    broken.chmod(0o755)

    done = CliRunner().invoke(assemble(), ["engine", "install", TFLITE_RUNTIME, "--python", str(broken)])

    assert "'its worker ended with status 3: Traceback: / ImportError: numpy.core.umath failed'" in str(done.exception)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"python": 7}'])
def test_a_damaged_name_is_no_environment(folder: Path, content: bytes) -> None:
    name_python(TFLITE_RUNTIME, Path(sys.executable))
    assert named_python(TFLITE_RUNTIME) == Path(sys.executable)

    (folder / f"{TFLITE_RUNTIME}.json").write_bytes(content)

    assert named_python(TFLITE_RUNTIME) is None


def test_only_an_owner_who_names_it_gets_it() -> None:
    assert allowed(BACKENDS, None) is BACKENDS
    assert allowed(BACKENDS, ["litert"]) == {"litert": BACKENDS["litert"]}
    assert list(allowed(BACKENDS, ["tflite_runtime"])) == ["litert"]
    assert "tflite_runtime:" in str(allowed(BACKENDS, ["litert", "tflite_runtime"])["litert"])


def test_a_release_for_litert_runs_there_when_it_is_chosen(tmp_path: Path, folder: Path, python: Path) -> None:
    write_release(tmp_path / "release", [Build("lite", engine="litert", content=four_pixel_tflite())])
    named = CliRunner().invoke(assemble(), ["engine", "install", TFLITE_RUNTIME, "--python", str(python), "--json"])

    with pytest.raises(InferenceError, match="litert is not allowed by --backend"):
        Model.open(tmp_path / "release", backends=["onnxruntime"])
    with Model.open(tmp_path / "release", backends=["tflite_runtime"]) as model:
        given = model.infer_tensors(pixels(0.0))["logits"].tolist()
        session = model.predictor.session

    assert json.loads(named.output) == {
        "name": TFLITE_RUNTIME, "python": str(python), "library": "tflite-runtime", "version": "2.14.0",
        "providers": ["cpu"],
    }  # fmt: skip
    assert given == answer(0.0)
    assert type(session).__module__.endswith("backends.tflite_runtime")


def test_its_version_is_told_as_its_own_and_not_as_that_of_litert(tmp_path: Path, folder: Path, python: Path) -> None:
    name_python(TFLITE_RUNTIME, python)
    needs = msgspec.structs.replace(MANIFEST.engine, version=">=2.20")

    (fact,) = engines({"tflite_runtime"})
    listed = CliRunner().invoke(assemble(), ["engine", "list"]).stdout

    assert str(fact) == "litert (tflite-runtime 2.14.0)"
    assert "tflite-runtime 2.14.0" in listed
    needing = msgspec.structs.replace(MANIFEST, engine=needs)
    assert find_misfit(needing, machine_facts([fact])) is None
    own = msgspec.structs.replace(fact, library="")
    assert find_misfit(needing, machine_facts([own])) is not None


def test_the_command_lists_the_engines_that_work_here(folder: Path) -> None:
    listed = CliRunner().invoke(assemble(), ["engine", "list"]).output

    assert "onnxruntime" in listed
    assert "tflite_runtime" not in listed
    assert engines({"tflite_runtime"}) == []
