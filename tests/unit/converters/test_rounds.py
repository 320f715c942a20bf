import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from converters.caching.cache import Cache
from converters.caching.stages import Stage, Stages, environment_here
from converters.compilers import isolated
from converters.errors import BadModel, CompileFailed, CompilerRefused
from converters.pipeline import rounds
from converters.pipeline.rounds import fitting_at_once, next_round, side_by_side
from converters.planning.kernels import UNMEASURED
from converters.planning.methods import METHODS
from converters.planning.planner import Candidate
from edge_runtime.contract import reasons
from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import VariantId

GIB = 1024**3
FLOAT, INT8 = METHODS["onnxruntime"][0], METHODS["onnxruntime"][2]
OTHER = METHODS["openvino"][0]


def candidate(method) -> Candidate:
    return Candidate(VariantId(f"{method.engine}-{method.name}"), method, ("x86_64",), ("x86-64-cpu",), ">=1")


def test_a_round_takes_the_first_of_each_engine_and_leaves_the_others_in_order() -> None:
    first, second, third, fourth = (
        candidate(FLOAT),
        candidate(INT8),
        candidate(OTHER),
        candidate(METHODS["openvino"][1]),
    )

    now, later = next_round([first, second, third, fourth])

    assert now == [first, third]
    assert later == [second, fourth]
    assert next_round([]) == ([], [])


@pytest.mark.parametrize(
    ("available", "cores", "expected"),
    [(20 * GIB, 2, 2), (20 * GIB, 16, 2), (64 * GIB, 4, 4), (15 * GIB, 8, 1), (1 * GIB, 8, 1), (0, 8, 1)],
)
def test_compilers_run_beside_each_other_only_while_their_grants_fit_into_memory(available, cores, expected) -> None:
    assert fitting_at_once(available, cores, 8 * GIB) == expected


def test_works_really_run_beside_each_other_and_answer_in_order() -> None:
    # Each waits for the other: one after the other they would never end.
    meeting = threading.Barrier(2, timeout=60)

    def work(name: str) -> str:
        meeting.wait()
        return name

    assert side_by_side([lambda: work("a"), lambda: work("b")], at_once=2) == ["a", "b"]


def test_one_at_a_time_is_one_at_a_time() -> None:
    threads: list[int] = []

    side_by_side([lambda: threads.append(threading.get_ident())] * 3, at_once=1)

    assert set(threads) == {threading.main_thread().ident}


def test_the_first_error_ends_the_compilers_of_the_others() -> None:
    begun = threading.Event()

    def fail() -> None:
        begun.wait(60)
        raise BadModel("read", "it is broken")

    def endless() -> None:
        command = [sys.executable, "-c", "import sys, time; sys.stderr.write('begun'); time.sleep(600)"]
        begun.set()
        isolated._run(command, dict(os.environ), 600)

    with pytest.raises(BadModel):
        side_by_side([endless, fail], at_once=2)

    assert isolated._running == set()


@pytest.mark.parametrize(("code", "asked"), [(UNMEASURED, 2), (reasons.LOAD_FAILED, 1), (reasons.GOLDEN_FAILED, 1)])
def test_only_what_the_candidate_itself_did_wrong_is_remembered(
    code: str, asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def fail(*given: object) -> None:
        calls.append(given)
        raise InferenceError("ask ort-int8 on aarch64", "it took longer than 900 seconds", code=code)

    monkeypatch.setattr(rounds, "measure_candidate", fail)
    bench = SimpleNamespace(answers=SimpleNamespace(folder=lambda: None), emulators=())
    facts = SimpleNamespace(measure_stage=lambda *_: Stage("measure", "ort-int8", {}))

    for _ in range(2):
        tools: Any = (bench, Stages(environment_here({}), Cache(tmp_path)), facts)
        result = rounds._measured(candidate(INT8), object(), None, tools)  # type: ignore[arg-type]

        assert result.judgement.verdict == f"refused:{code}"
        assert "900 seconds" in result.judgement.because
    assert len(calls) == asked


@pytest.mark.parametrize(
    ("cause", "asked"), [(MemoryError(), 2), (RuntimeError("std::bad_alloc"), 2), (RuntimeError("unknown opset"), 1)]
)
def test_a_file_that_found_no_memory_when_it_was_loaded_is_loaded_again(
    cause: Exception, asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def fail(*given: object) -> None:
        calls.append(given)
        raise InferenceError("open variant v", f"the engine refuses it ({cause})", code=reasons.LOAD_FAILED) from cause

    monkeypatch.setattr(rounds, "compile_candidate", fail)
    monkeypatch.setattr(rounds, "measure_candidate", fail)
    bench: Any = SimpleNamespace(answers=SimpleNamespace(folder=lambda: None), emulators=(), workshop=lambda: None)
    facts: Any = SimpleNamespace(
        compile_stage=lambda _: Stage("compile", "v", {}), measure_stage=lambda *_: Stage("measure", "v", {})
    )

    for _ in range(2):
        stages = Stages(environment_here({}), Cache(tmp_path))
        compiled = rounds._compiled(candidate(INT8), bench, stages, facts)
        measured = rounds._measured(candidate(INT8), object(), None, (bench, stages, facts))  # type: ignore[arg-type]

        assert (compiled.code, measured.judgement.code) == (reasons.LOAD_FAILED,) * 2  # type: ignore[union-attr]
    assert len(calls) == 2 * asked


@pytest.mark.parametrize(("failure", "asked"), [(CompilerRefused, 1), (CompileFailed, 2)])
def test_a_file_that_cannot_be_looked_at_is_looked_at_once(
    failure: type[CompileFailed], asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def fail(*given: object, **_: object) -> None:
        calls.append(given)
        raise failure("look for the layers", "they do not belong together")

    monkeypatch.setattr(rounds, "diagnose", fail)
    facts = SimpleNamespace(layers_stage=lambda *_, **__: Stage("layers", "ort-int8", {}))

    for _ in range(2):
        tools: Any = (SimpleNamespace(workshop=lambda: None), Stages(environment_here({}), Cache(tmp_path)), facts)

        assert rounds._layers(candidate(INT8), tools, undo=False) is None
    assert len(calls) == asked
