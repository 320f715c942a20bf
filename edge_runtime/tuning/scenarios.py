"""The scenarios of MLPerf inference, driven by its own LoadGen: who asks when, and what counts as an answer in time."""

from __future__ import annotations

import array
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal, final

import msgspec

from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.inference.model import Model
from edge_runtime.inference.postprocessing.rendering import as_json
from edge_runtime.inference.postprocessing.results import Answer
from edge_runtime.inference.preprocessing.preprocess import Inputs
from edge_runtime.inference.requests.asker import Asker
from edge_runtime.interrupt import wait_for
from edge_runtime.tuning.loadgen_log import Outcome, outcome_of, results_in
from edge_runtime.tuning.target import Questions

Scenario = Literal["single-stream", "multi-stream", "server", "offline"]
Mode = Literal["performance", "accuracy"]

_NAMES: Final = {
    "single-stream": "SingleStream", "multi-stream": "MultiStream", "server": "Server", "offline": "Offline",
}  # fmt: skip
_MODES: Final = {"performance": "PerformanceOnly", "accuracy": "AccuracyOnly"}
STREAMS: Final = 8
"""Samples of one multi-stream query (MLPerf inference rules, "Scenarios")."""
_WARM_UP: Final = 5
_SERVER_SHARE: Final = 0.5
"""Of what the model answers one after the other: where nobody says how many come a second."""
_SERVER_PATIENCE: Final = 10
"""Answers that fit into the time a server is given, where nobody says how much it is."""
_SUMMARY: Final = "mlperf_log_summary.txt"
_DETAIL: Final = "mlperf_log_detail.txt"


@dataclass(frozen=True, slots=True)
class ScenarioWish:
    """What a person chooses."""

    scenario: Scenario
    mode: Mode = "performance"
    min_queries: int = 100
    """At least so many; `seconds` of the whole measurement is the least time."""
    target_qps: float | None = None
    """Of a server: queries a second, at random moments."""
    target_latency_ms: float | None = None
    """Of a server: 99 of 100 answers must come within it."""
    keep: Path | None = None
    """Folder for LoadGen's own files; None: they are thrown away."""


class ScenarioReport(msgspec.Struct, frozen=True, kw_only=True):
    """What LoadGen measured and how it judges that."""

    scenario: Scenario
    mode: Mode
    loadgen: str
    """Its version."""
    min_seconds: float
    min_queries: int
    target_qps: float | None
    target_latency_ms: float | None
    outcome: Outcome | None
    """LoadGen's verdict; None of an accuracy run, which is not timed."""
    answered: int
    checks: list[CheckResult]
    """Of an accuracy run: the golden checks of the release on this machine."""
    kept: str | None


def load_loadgen() -> Any:
    """LoadGen's module. Raises: UnsupportedFeature when it is not installed."""
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise UnsupportedFeature(
            "run a scenario of MLPerf", "its LoadGen is not installed", "pip install 'edgefleet[loadgen]'"
        ) from error
    return mlperf_loadgen


def run_scenario(model: Model, questions: Questions, wish: ScenarioWish, seconds: float) -> ScenarioReport:
    """Have LoadGen ask the model.

    Args:
        model: open.
        questions: what may be asked; LoadGen draws of them.
        wish: how.
        seconds: at least so long.

    Raises:
        UnsupportedFeature: LoadGen is not installed.
        InferenceError: the model cannot answer, or the files cannot be kept.
    """
    loadgen = load_loadgen()
    settings, qps, latency_ms = _settings(loadgen, wish, seconds, _pace_of(model, questions))
    with tempfile.TemporaryDirectory(prefix="edgefleet-loadgen-") as name:
        folder = Path(name)
        with _System(loadgen, model, questions, wish) as system:
            began = time.monotonic()
            system.run(settings, folder)
            took_s = time.monotonic() - began
        outcome = None
        if wish.mode == "performance":
            log = (folder / _DETAIL).read_text(encoding="utf-8", errors="replace")
            outcome = outcome_of(results_in(log.splitlines()), system.answered, took_s)
        kept = _kept(folder, wish.keep)
    checks = model.golden_check() if wish.mode == "accuracy" else []
    return ScenarioReport(
        scenario=wish.scenario, mode=wish.mode, loadgen=version("mlcommons-loadgen"), min_seconds=seconds,
        min_queries=wish.min_queries, target_qps=qps, target_latency_ms=latency_ms, outcome=outcome,
        answered=system.answered, checks=checks, kept=kept,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Pace:
    """How fast the model is about, from which LoadGen plans."""

    each_s: float
    """For one answer after the other."""
    most_per_s: float
    """With all that run at once; hardly ever reached, so that nothing is planned too small."""


def _pace_of(model: Model, questions: Questions) -> _Pace:
    size = model.asker.together.questions
    alone, together = [], []
    for number in range(_WARM_UP):
        some = [questions.inputs[(number + place) % len(questions.inputs)] for place in range(size)]
        began = time.perf_counter()
        model.infer_batch(some[0])
        between = time.perf_counter()
        if size > 1:
            model.ask(partial(_ask_all, some))
        alone.append(between - began)
        together.append((time.perf_counter() - between) / size if size > 1 else alone[-1])
    return _Pace(min(alone), model.admission.slots / min(together))


def _ask_all(questions: Sequence[Inputs], asker: Asker) -> list[Answer]:
    return asker.infer_all(questions)


def _settings(
    loadgen: Any, wish: ScenarioWish, seconds: float, pace: _Pace
) -> tuple[Any, float | None, float | None]:
    """LoadGen's settings, and what a server is asked to keep up with."""
    each_s = pace.each_s
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, _NAMES[wish.scenario])
    settings.mode = getattr(loadgen.TestMode, _MODES[wish.mode])
    settings.min_duration_ms = round(seconds * 1000)
    settings.min_query_count = wish.min_queries
    each_ns = max(round(each_s * 1e9), 1)
    settings.single_stream_expected_latency_ns = each_ns
    settings.multi_stream_samples_per_query = STREAMS
    settings.multi_stream_expected_latency_ns = STREAMS * each_ns
    # An offline run is one query; it is made so large that it lasts as long as it must.
    settings.offline_expected_qps = max(pace.most_per_s, wish.min_queries / seconds)
    if wish.scenario != "server":
        return settings, None, None
    qps = wish.target_qps or _SERVER_SHARE / each_s
    latency_ms = wish.target_latency_ms or _SERVER_PATIENCE * each_s * 1000
    settings.server_target_qps = qps
    settings.server_target_latency_ns = round(latency_ms * 1e6)
    return settings, qps, latency_ms


@final
class _System:
    """The model as LoadGen sees it: it hands samples in, and is told of each answer.

    Nothing may be raised into LoadGen, which ends the process: what goes wrong is kept, and every sample that is left
    is called answered at once.
    """

    def __init__(self, loadgen: Any, model: Model, questions: Questions, wish: ScenarioWish) -> None:
        self._loadgen = loadgen
        self._model = model
        self._inputs = questions.inputs
        self._wish = wish
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._most = model.asker.together.questions
        self._error: BaseException | None = None
        self._counting = threading.Lock()
        self.answered = 0
        # One caller at a time is answered where he asks; more of them by as many threads as the model runs at once.
        count = 0 if wish.scenario == "single-stream" else model.admission.slots
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]

    def __enter__(self) -> _System:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and self._error is None:
            # Interrupted: what still waits is not asked.
            self._error = error
        for _worker in self._workers:
            self._waiting.put(None)
        for worker in self._workers:
            worker.join()

    def run(self, settings: Any, folder: Path) -> None:
        """The whole test, which nobody can end before its time. Raises: InferenceError."""
        loadgen = self._loadgen
        logs = loadgen.LogSettings()
        logs.enable_trace = False
        logs.log_output.outdir = str(folder)
        logs.log_output.copy_summary_to_stdout = False
        count = len(self._inputs)
        system = loadgen.ConstructSUT(self._issue, lambda: None)
        # They are in memory already.
        samples = loadgen.ConstructQSL(count, count, lambda _: None, lambda _: None)

        def test() -> None:
            # A file of that name in the current folder would change the test.
            loadgen.StartTestWithLogSettings(system, samples, settings, logs, str(folder / "no-audit.config"))

        running = threading.Thread(target=test, daemon=True)
        running.start()
        wait_for(running)
        loadgen.DestroyQSL(samples)
        loadgen.DestroySUT(system)
        if self._error is not None:
            raise self._error

    def _issue(self, samples: Sequence[Any]) -> None:
        if not self._workers:
            self._answer(samples)
            return
        for sample in samples:
            self._waiting.put(sample)

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            samples = [first]
            while len(samples) < self._most:
                try:
                    sample = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if sample is None:
                    self._waiting.put(None)
                    break
                samples.append(sample)
            self._answer(samples)

    def _answer(self, samples: Sequence[Any]) -> None:
        bodies, answered = [array.array("B") for _ in samples], 0
        try:
            if self._error is None:
                answers = self._asked([self._inputs[sample.index] for sample in samples])
                bodies = [self._body(one) for one in answers]
                answered = len(answers)
        except BaseException as error:  # noqa: BLE001 (raised again when LoadGen has ended)
            self._error = error
        with self._counting:
            self.answered += answered
        response = self._loadgen.QuerySampleResponse
        self._loadgen.QuerySamplesComplete(
            [response(sample.id, *body.buffer_info()) for sample, body in zip(samples, bodies, strict=True)]
        )

    def _asked(self, questions: Sequence[Inputs]) -> list[list[Answer]]:
        if len(questions) == 1:
            return [self._model.infer_batch(questions[0])]
        return [[answer] for answer in self._model.ask(partial(_ask_all, questions))]

    def _body(self, answers: list[Answer]) -> array.array[int]:
        """What LoadGen writes down in an accuracy run: the answers as JSON."""
        if self._wish.mode == "performance":
            return array.array("B")
        documents = [{name: as_json(part) for name, part in answer.items()} for answer in answers]
        return array.array("B", msgspec.json.encode(documents))


def _kept(folder: Path, keep: Path | None) -> str | None:
    if keep is None:
        return None
    try:
        keep.mkdir(parents=True, exist_ok=True)
        for file in sorted(folder.iterdir()):
            shutil.copyfile(file, keep / file.name)
    except OSError as error:
        raise InferenceError(f"keep LoadGen's files in {keep}", error.strerror or str(error)) from error
    return str(keep / _SUMMARY)
