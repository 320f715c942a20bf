"""A compiler's process that is ended from outside leaves nothing behind; a stand-in takes ONNX Runtime's place."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from converters.compilers.isolated import compile_isolated
from converters.compilers.job import CompileJob
from converters.compilers.outside import lies_outside
from converters.errors import BadToolchain, CompileFailed, CompilerRefused
from converters.planning.methods import METHODS

ROOT = Path(__file__).resolve().parents[3]

# As ONNX Runtime's quantiser does: a folder of its own among the temporary ones, then minutes of work.
ENDLESS_QUANTISER = """
import os, pathlib, tempfile, time
def quant_pre_process(*_, **__):
    with tempfile.TemporaryDirectory(prefix="ort.quant."):
        pathlib.Path(os.environ["STARTED"] + ".new").write_text(str(os.getpid()))
        os.rename(os.environ["STARTED"] + ".new", os.environ["STARTED"])
        time.sleep(60)
"""
BUILD = """
import sys
from converters.commands.build import clean_up_when_ended
from converters.compilers import worker
from converters.compilers.isolated import compile_isolated
from converters.compilers.job import CompileJob
from converters.planning.methods import METHODS
clean_up_when_ended()
out = sys.argv[1]
compile_isolated(CompileJob(method=METHODS["onnxruntime"][2], model="m.onnx", out=out, calibration=out))
"""


def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str) -> CompileFailed:
    """How a compilation ends whose compiler executes a statement; a stand-in takes ONNX Runtime's place."""
    package = tmp_path / "stand_in" / "onnxruntime" / "quantization"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "shape_inference.py").write_text(f"def quant_pre_process(*_, **__): {statement}\n")
    monkeypatch.setenv("PYTHONPATH", f"{package.parents[1]}{os.pathsep}{ROOT}")
    out = str(tmp_path / "out")
    with pytest.raises(CompileFailed) as failed:
        compile_isolated(CompileJob(method=METHODS["onnxruntime"][2], model="m.onnx", out=out, calibration=out))
    return failed.value


def test_a_full_disk_is_no_refusal_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = failing(tmp_path, monkeypatch, "raise OSError(27, 'File too large')")

    assert "File too large" in failed.because
    assert not isinstance(failed, CompilerRefused)


def test_what_the_compiler_says_about_the_model_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = failing(tmp_path, monkeypatch, "raise ValueError('no such operator')")

    assert "no such operator" in failed.because
    assert isinstance(failed, CompilerRefused)


@pytest.mark.parametrize(
    ("because", "cause", "expected"),
    [
        ("write failed: No space left on device", RuntimeError(), True),
        ("std::bad_alloc", RuntimeError(), True),
        ("MLIR", MemoryError(), True),
        ("it is not installed", BadToolchain("use toolchain tflite", "it is not installed"), True),
        ("no module", ImportError(), True),
        ("it was killed by SIGKILL", subprocess.CalledProcessError(-9, "python"), True),
        ("no such operator", ValueError(), False),
        ("no such operator", None, False),
    ],
)
def test_only_what_lies_outside_the_model_may_pass(because: str, cause: Exception | None, expected: bool) -> None:
    error = CompileFailed("compile", because)
    error.__cause__ = cause

    assert lies_outside(error) == expected


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def started(tmp_path: Path):
    """A build whose compiler is at work: the build's process, and the compiler's id."""
    package = tmp_path / "stand_in" / "onnxruntime" / "quantization"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "shape_inference.py").write_text(ENDLESS_QUANTISER)
    (tmp_path / "temporary").mkdir()
    told = tmp_path / "started"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{package.parents[1]}{os.pathsep}{ROOT}",
        "TMPDIR": str(tmp_path / "temporary"),
        "STARTED": str(told),
    }
    command = [sys.executable, "-c", BUILD, str(tmp_path / "out")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as build:
        deadline = time.monotonic() + 60
        while not told.exists() and build.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        compiler = int(told.read_text())
        try:
            yield build, compiler
        finally:
            build.kill()
            if is_running(compiler):
                os.kill(compiler, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing_of_its_compiler(tmp_path: Path, started, number: int) -> None:
    build, compiler = started

    build.send_signal(number)
    build.wait(timeout=30)

    assert not is_running(compiler)
    assert [path.name for path in (tmp_path / "temporary").iterdir()] == []
    assert list((tmp_path / "out").iterdir()) == []


def test_a_compiler_ends_with_a_build_that_is_killed(started) -> None:
    build, compiler = started

    build.kill()
    build.wait(timeout=30)

    deadline = time.monotonic() + 10
    while is_running(compiler) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(compiler)
