"""MLPerf's LoadGen asks a real model: every scenario gives its figures, and what goes wrong ends no process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from edge_runtime.cli.main import assemble
from edge_runtime.contract.errors import EdgeError, InferenceError, UnsupportedFeature
from edge_runtime.inference.model import Model
from edge_runtime.tuning import scenarios
from edge_runtime.tuning.bench import BenchReport
from edge_runtime.tuning.scenarios import ScenarioReport, ScenarioWish, load_loadgen, run_scenario
from edge_runtime.tuning.target import Questions
from tests.fakes.models import Build
from tests.fakes.pixels import picture, write_pixels

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release") / "pixels"
    write_pixels(folder, "1.0.0", builds=[Build("ort-fp32", samples=8)])
    return folder


@pytest.fixture
def loadgen() -> Any:
    return pytest.importorskip("mlperf_loadgen")


def ran(*arguments: str | Path) -> Any:
    line = ["bench", "--backend", "onnxruntime", "--seconds", "0.2", *map(str, arguments)]
    result = CliRunner().invoke(assemble(), line)
    if isinstance(result.exception, EdgeError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.usefixtures("loadgen")
def test_a_scenario_stands_in_the_same_report_as_everything_else(release: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    given = ("--scenario", "single-stream", "--min-queries", "20", "--loadgen-out", kept, "--json")
    report = msgspec.convert(json.loads(ran(release, *given).stdout), BenchReport)

    assert report.bare is not None
    assert report.scenario is not None
    assert report.scenario.outcome is not None
    assert report.scenario.outcome.latency.count >= 20
    assert 0 < report.scenario.outcome.latency.min <= report.scenario.outcome.latency.p99
    assert report.scenario.kept == str(kept / "mlperf_log_summary.txt")
    assert "Scenario : SingleStream" in (kept / "mlperf_log_summary.txt").read_text()


def asked(release: Path, wish: ScenarioWish, seconds: float = 0.1) -> ScenarioReport:
    with Model.open(release, threads=1) as model:
        questions = Questions(tuple({"image": picture(number)} for number in range(4)), "4 pictures", False)
        return run_scenario(model, questions, wish, seconds)


@pytest.mark.usefixtures("loadgen")
def test_several_streams_ask_in_queries_of_eight(release: Path) -> None:
    report = asked(release, ScenarioWish("multi-stream", min_queries=10))

    assert report.outcome is not None
    assert report.answered == 8 * report.outcome.latency.count >= 80


@pytest.mark.usefixtures("loadgen")
def test_a_server_is_asked_as_often_as_wished(release: Path) -> None:
    report = asked(release, ScenarioWish("server", min_queries=10, target_qps=200.0, target_latency_ms=1000.0))

    assert (report.target_qps, report.target_latency_ms) == (200.0, 1000.0)
    assert report.outcome is not None
    assert report.outcome.per_s > 0
    assert report.answered >= 10


@pytest.mark.usefixtures("loadgen")
def test_an_offline_run_answers_everything_it_was_given_at_once(release: Path) -> None:
    report = asked(release, ScenarioWish("offline", min_queries=50))

    assert report.outcome is not None
    assert report.answered == report.outcome.latency.count >= 50


@pytest.mark.usefixtures("loadgen")
def test_an_accuracy_run_answers_every_sample_once_and_keeps_the_answers(release: Path, tmp_path: Path) -> None:
    report = asked(release, ScenarioWish("offline", "accuracy", keep=tmp_path))

    assert (report.answered, report.outcome) == (4, None)
    assert [check.passed for check in report.checks] == [True, True]
    entries = json.loads((tmp_path / "mlperf_log_accuracy.json").read_text())
    said = {entry["qsl_idx"]: json.loads(bytes.fromhex(entry["data"])) for entry in entries}
    assert {number: answer[0]["classes"][0]["index"] for number, answer in said.items()} == {0: 0, 1: 1, 2: 2, 3: 3}


@pytest.mark.usefixtures("loadgen")
@pytest.mark.parametrize("scenario", ["single-stream", "offline"])
def test_a_model_that_cannot_answer_ends_the_run_with_its_reason(release: Path, scenario: Any) -> None:
    wish = ScenarioWish(scenario, min_queries=5)
    with Model.open(release) as model:
        questions = Questions(({"image": picture(0)},) * 5 + ({"image": b"nonsense"},), "6 files", True)

        with pytest.raises(InferenceError, match="decode"):
            run_scenario(model, questions, wish, 0.1)


def test_an_answer_that_cannot_be_written_down_is_not_raised_into_loadgen(release: Path, monkeypatch) -> None:
    told: list[Any] = []
    loadgen = SimpleNamespace(QuerySampleResponse=lambda *given: given, QuerySamplesComplete=told.extend)
    monkeypatch.setattr(scenarios, "as_json", lambda _: 1 / 0)
    with Model.open(release, threads=1) as model:
        questions = Questions(({"image": picture(0)},), "1 picture", False)
        system = scenarios._System(loadgen, model, questions, ScenarioWish("single-stream", "accuracy"))

        system._issue([SimpleNamespace(id=7, index=0)])

    assert [given[0] for given in told] == [7]
    assert system.answered == 0


def test_without_loadgen_the_remedy_is_named_before_anything_is_measured(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)

    with pytest.raises(UnsupportedFeature, match=r"pip install 'edgefleet\[loadgen\]'"):
        load_loadgen()
    with pytest.raises(UnsupportedFeature):
        ran(release, "--scenario", "server")
