"""`edge-runtime bench` on a real engine: every figure is there, and the bare engine stands beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from edge_runtime.cli.main import assemble
from edge_runtime.contract.errors import EdgeError
from edge_runtime.inference.environments.named import TFLITE_RUNTIME, name_python
from edge_runtime.tuning.bench import MIN_ROUNDS, BenchReport
from tests.fakes.installed import write_state
from tests.fakes.litert_models import four_pixel_tflite
from tests.fakes.models import Build, write_release
from tests.fakes.old_tflite import write_old_tflite
from tests.fakes.pixels import write_pixels, write_source
from tests.fakes.tuned import tuned_here

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "pixels"
    write_pixels(folder, "1.0.0")
    return folder


def ran(*arguments: str | Path) -> Any:
    line = ["bench", "--backend", "onnxruntime", "--seconds", "0.3", *map(str, arguments)]
    result = CliRunner().invoke(assemble(), line)
    if isinstance(result.exception, EdgeError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_every_stage_and_the_bare_engine_are_measured_in_the_same_rounds(release: Path) -> None:
    document = json.loads(ran(release, "--threads", "1", "--json").stdout)

    report = msgspec.convert(document, BenchReport)
    assert list(report.stages) == ["decode", "preprocess", "infer", "postprocess"]
    assert report.bare is not None
    assert {one.count for one in (*report.stages.values(), report.whole, report.bare)} == {report.whole.count}
    assert report.whole.count >= MIN_ROUNDS
    assert report.infer_ratio is not None
    assert report.load.per_s > 0
    assert report.load.bare_per_s
    assert report.memory is not None
    assert report.memory.bare is not None
    assert 10 * 2**20 < report.memory.bare < report.memory.ours
    assert (report.energy is None) == bool(report.energy_note)
    assert report.questions == "4 golden samples"
    assert (report.machine.cpu, report.threads) != ("", None)
    assert document["is_busy"] == (report.machine.load_average > 0.5)


def test_what_was_tuned_is_measured_and_its_threads_are_the_bare_engines_too(release: Path, tmp_path: Path) -> None:
    tuned_here(release, tmp_path, threads=2, batch=1)

    report = msgspec.convert(json.loads(ran(release, "--tuned", tmp_path, "--json").stdout), BenchReport)

    assert report.threads == 2


def test_the_memory_of_an_engines_worker_counts_and_no_other_library_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setenv("EDGEFLEET_ENGINES", str(tmp_path / "engines"))
    name_python(TFLITE_RUNTIME, write_old_tflite(tmp_path))
    write_pixels(tmp_path / "r", "1.0.0", builds=[Build("lite", engine="litert", content=four_pixel_tflite())])

    document = json.loads(ran(tmp_path / "r", "--backend", "tflite_runtime", "--json").stdout)
    report = msgspec.convert(document, BenchReport)

    assert report.engine == "litert (tflite-runtime 2.14.0)"
    assert report.memory is not None
    assert report.memory.bare is None
    assert 10 * 2**20 < report.memory.workers < report.memory.ours


def test_a_person_reads_stages_with_units_and_whose_machine_it_was(release: Path, tmp_path: Path) -> None:
    pictures = sorted(write_source(tmp_path / "photos").glob("*.png"))

    output = ran(release, *pictures, "--callers", "3").stdout

    assert "pixels 1.0.0, variant ort-fp32, onnxruntime" in output
    assert "asked: 4 files" in output
    for word in ("decode", "whole answer", "bare engine", "p99 ms", "answers/s with 3 callers", "MiB at its peak"):
        assert word in output


def test_a_release_without_questions_asks_for_files(tmp_path: Path) -> None:
    write_release(tmp_path / "r", [Build("ort")])

    with pytest.raises(EdgeError, match="the release has no golden set to ask; name input files"):
        ran(tmp_path / "r")


def test_what_an_agent_runs_is_measured_in_its_state_folder(release: Path, tmp_path: Path) -> None:
    state = write_state(tmp_path / "state", release)

    report = msgspec.convert(json.loads(ran(state, "--json").stdout), BenchReport)

    assert (report.release, report.variant) == ("pixels", "ort-fp32")
    assert report.memory is not None
    assert report.memory.bare is not None
    with pytest.raises(EdgeError, match=r"slot side of .*: nothing is installed there; name one of main"):
        ran(state, "--slot", "side")
