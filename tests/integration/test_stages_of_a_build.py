"""Real builds of the demo's model: what is done once is found again, whatever ended the build before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from converters.caching.cache import Cache
from converters.report.build_report import BuildReport
from tests.fakes.digits import RECIPES, build_digits, recipe_of

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

KILLED = """
import os, sys
from pathlib import Path
from tests.fakes.digits import RECIPES, recipe_of
from converters.pipeline.finishing import BuildOptions
from converters.pipeline.build import build
def listener(event):
    if (event.title, event.state) == ("measure ort-int8", "running"):
        os.kill(os.getpid(), 9)
build(recipe_of(1), BuildOptions(base=RECIPES, out=Path(sys.argv[1]), cache=Path(sys.argv[2])), listener)
"""


def how(report: BuildReport) -> dict[str, str]:
    return {event.title: event.state for event in report.stages}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildReport, Path]:
    folder = tmp_path_factory.mktemp("first")
    return build_digits(folder / "release", recipe_of(1), cache=folder / "cache").report, folder / "cache"


@pytest.fixture
def cache(first: tuple[BuildReport, Path], tmp_path: Path) -> Path:
    """A copy that a test may harm."""
    subprocess.run(["cp", "-a", first[1], tmp_path / "cache"], check=True)
    return tmp_path / "cache"


def test_a_second_build_does_no_stage_and_gives_the_same_release(first, cache: Path, tmp_path: Path) -> None:
    second = build_digits(tmp_path / "again", recipe_of(1), cache=cache).report

    assert set(how(first[0]).values()) == {"done"}
    assert set(how(second).values()) == {"cached"}
    assert second.digest == first[0].digest


def test_a_second_build_starts_no_process_and_opens_no_engine(first, cache: Path, tmp_path: Path) -> None:
    program = (
        "import subprocess, sys\n"
        "from pathlib import Path\n"
        "from tests.fakes.digits import build_digits, recipe_of\n"
        "def refuse(*_, **__): raise AssertionError('a process was started')\n"
        "subprocess.Popen = refuse\n"
        "build_digits(Path(sys.argv[1]), recipe_of(1), cache=Path(sys.argv[2]))\n"
        "print(sorted({'onnxruntime', 'openvino', 'nncf'} & set(sys.modules)))\n"
    )

    said = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "again", cache], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(RECIPES.parents[2])},
    ).stdout  # fmt: skip

    assert said.strip() == "[]"


def test_another_version_and_another_limit_do_no_stage_again(cache: Path, tmp_path: Path) -> None:
    recipe = recipe_of(1)
    limits = msgspec.structs.replace(recipe.limits, max_drop={"*": 0.5})

    changed = msgspec.structs.replace(recipe, version="1.0.1", limits=limits)
    report = build_digits(tmp_path / "again", changed, cache=cache).report

    assert set(how(report).values()) == {"cached"}
    assert report.version == "1.0.1"


def test_other_calibration_data_compile_again_and_ask_the_source_model_no_more(cache: Path, tmp_path: Path) -> None:
    recipe = recipe_of(1)
    fewer = msgspec.structs.replace(recipe.calibration, max_samples=20)

    report = build_digits(tmp_path / "again", msgspec.structs.replace(recipe, calibration=fewer), cache=cache).report

    assert how(report)["source evaluation"] == "cached"
    assert how(report)["calibration calibration"] == "done"
    assert how(report)["compile ort-int8"] == "done"
    assert how(report)["measure ort-int8"] == "done"


def test_corrected_labels_are_in_the_report_of_the_samples_that_differ(cache: Path, tmp_path: Path) -> None:
    recipe = recipe_of(1)
    (tmp_path / "labels.txt").write_text("".join(f"corrected{digit}\n" for digit in range(10)))
    digit = msgspec.structs.replace(recipe.outputs["digit"], labels=str(tmp_path / "labels.txt"))

    changed = msgspec.structs.replace(recipe, outputs={"digit": digit})
    report = build_digits(tmp_path / "again", changed, cache=cache).report

    worst = [example for row in report.rows for example in row.worst]
    assert worst
    assert all("corrected" in example.source for example in worst)
    assert how(report)["compile ort-int8"] == "cached"


def test_what_was_finished_before_a_build_was_killed_is_not_done_again(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "out", tmp_path / "cache"], check=False, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(RECIPES.parents[2]), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    kept = {f"{entry.stage} {entry.subject}" for entry in Cache(tmp_path / "cache").entries()}

    report = build_digits(tmp_path / "again", recipe_of(1), cache=tmp_path / "cache").report

    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert {"source evaluation", "calibration calibration", "compile ort-float32"} <= kept
    assert not kept & {title for title, state in how(report).items() if state == "done"}
    assert [row.verdict for row in report.rows if row.variant == "ort-int8"] == ["shipped"]


def test_damaged_entries_are_made_again_and_the_release_is_the_same(first, cache: Path, tmp_path: Path) -> None:
    for path in (cache / "v1").rglob("*"):
        if path.is_file() and path.name != "entry.json" and path.stat().st_size > 100:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)

    report = build_digits(tmp_path / "again", recipe_of(1), cache=cache).report

    compiled = {row.variant: row.digest for row in report.rows}
    assert compiled == {row.variant: row.digest for row in first[0].rows}
    assert how(report)["compile ort-int8"] == "done"


def test_a_cache_that_cannot_be_written_is_a_note_and_the_build_is_whole(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")

    report = build_digits(tmp_path / "out", recipe_of(1), cache=tmp_path / "file").report

    assert [note for note in report.notes if "goes on without it" in note]
    assert all(event.state == "done" for event in report.stages)


def test_candidates_are_the_same_bytes_without_any_cache(first, tmp_path: Path) -> None:
    report = build_digits(tmp_path / "fresh", recipe_of(1)).report

    assert {row.variant: row.digest for row in report.rows} == {row.variant: row.digest for row in first[0].rows}
