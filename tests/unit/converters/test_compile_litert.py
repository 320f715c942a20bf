"""What a toolchain says when it fails becomes one line; what is missing becomes the command that installs it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from converters.compilers.isolated import compile_isolated
from converters.compilers.job import CompileJob
from converters.errors import CompileFailed
from converters.planning.methods import METHODS, Method
from converters.toolchains import TOOLCHAINS
from tests.fakes.litert_models import four_pixel_tflite
from tests.fakes.onnx_models import conv_classifier

INT8 = next(one for one in METHODS["litert"] if one.name == "int8")
DYNAMIC = next(one for one in METHODS["litert"] if one.scheme == "dynamic")
FLOAT = next(one for one in METHODS["litert"] if one.precision == "float32")


def job(folder: Path, method: Method, *, is_tflite: bool = False) -> CompileJob:
    model = folder / ("m.tflite" if is_tflite else "m.onnx")
    model.write_bytes(four_pixel_tflite() if is_tflite else conv_classifier().SerializeToString())
    return CompileJob(method=method, model=str(model), out=str(folder / "out"))


def stand_in(folder: Path, name: str, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A toolchain that is ready, whose interpreter is a shell script."""
    chain = TOOLCHAINS[name]
    place = folder / chain.key(chain.made_for)
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").write_text(f"#!/bin/sh\n{program}\n")
    (place / "bin" / "python").chmod(0o755)
    stamp = {"pins": [], "python": chain.made_for, "program": str((place / "bin" / "python").resolve())}
    (place / "ready.json").write_bytes(msgspec.json.encode(stamp))
    monkeypatch.setenv("EDGEFLEET_TOOLCHAINS", str(folder))


@pytest.mark.parametrize(("is_tflite", "name"), [(False, "tflite"), (True, "tflite-quant")])
def test_a_missing_toolchain_is_named_with_the_command_that_installs_it(
    tmp_path: Path, is_tflite: bool, name: str
) -> None:
    with pytest.raises(CompileFailed, match=f"edge-convert toolchain install {name}$"):
        compile_isolated(job(tmp_path, DYNAMIC, is_tflite=is_tflite))


def test_the_float_file_of_a_tflite_source_is_that_source(tmp_path: Path) -> None:
    made = compile_isolated(job(tmp_path, FLOAT, is_tflite=True))

    assert Path(made.files["model"]).read_bytes() == four_pixel_tflite()


def test_a_tool_that_fails_is_quoted_without_its_colours_bars_and_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = (
        r"printf 'convert: 33%%|███▎  | 1/3 [00:00<00:00, 17.39it/s]\r' >&2; "
        r"printf 'Traceback (most recent call last):\n  File \"x.py\", line 3, in f\n' >&2; "
        r"printf '\033[31mValueError: operator Mystery is not known\033[0m\n' >&2; exit 1"
    )
    stand_in(tmp_path / "chains", "tflite", said, monkeypatch)

    with pytest.raises(CompileFailed) as refused:
        compile_isolated(job(tmp_path, FLOAT))

    assert refused.value.because == "ValueError: operator Mystery is not known"


def test_a_tool_that_ends_well_without_a_file_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path / "chains", "tflite", "exit 0", monkeypatch)

    with pytest.raises(CompileFailed, match="wrote no float file"):
        compile_isolated(job(tmp_path, FLOAT))


def test_static_int8_without_examples_says_so_before_any_tool_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "chains", "tflite-quant", "exit 0", monkeypatch)

    with pytest.raises(CompileFailed, match="no calibration data"):
        compile_isolated(job(tmp_path, INT8, is_tflite=True))


def test_a_quantiser_that_changes_nothing_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = f'cp "{tmp_path}/m.tflite" "{tmp_path}/out/model.tflite"'
    stand_in(tmp_path / "chains", "tflite-quant", copy, monkeypatch)

    with pytest.raises(CompileFailed, match="left every weight in float"):
        compile_isolated(job(tmp_path, DYNAMIC, is_tflite=True))
