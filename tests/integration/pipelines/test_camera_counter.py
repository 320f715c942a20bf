"""The camera counter, run as its page says: digits on a fresh clone, faces with a detector that somebody brings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from converters.pipeline.build import BuildOptions, build
from converters.planning.recipe import parse_recipe
from tests.fakes.shared_recipes import RECIPES

pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[3]


def played(out: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "examples.camera_counter", "--out", out, *arguments], cwd=ROOT, text=True, check=False,
        capture_output=True,
    )  # fmt: skip


def counts(line: str) -> dict[str, int]:
    pairs = (pair.split(" × ") for pair in line.partition(": ")[2].split(", "))
    return {label: int(count) for count, label in pairs}


def test_the_digits_on_the_belt_are_counted(tmp_path: Path) -> None:
    ended = played(tmp_path / "out")

    assert ended.returncode == 0, ended.stderr
    *_, seen, truth = ended.stdout.splitlines()
    wrong = sum(abs(counts(seen).get(label, 0) - count) for label, count in counts(truth).items())
    assert truth.startswith("really there: 6 × 0, ")
    assert wrong <= 4, "more than two of sixty digits are taken for others"
    assert len((tmp_path / "out" / "records.jsonl").read_text().splitlines()) == 6
    assert (tmp_path / "out" / "annotated.mp4").stat().st_size > 1000

    again = subprocess.run(
        [sys.executable, "-m", "edge_runtime.cli", "pipeline", "pipeline.toml", "--trust-code"],
        cwd=tmp_path / "out", text=True, check=False, capture_output=True,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert seen in again.stdout


def test_a_folder_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    ended = played(tmp_path)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "name another folder with --out" in ended.stderr


@pytest.mark.needs_shared
def test_faces_are_counted_with_a_detector_that_somebody_brings(tmp_path: Path, shared: Path) -> None:
    (tmp_path / "faces.txt").write_text("background\nface\n")
    told = json.loads(json.dumps(RECIPES["onnx/ultraface_rfb320.onnx"]))
    told["outputs"]["objects"]["labels"] = str(tmp_path / "faces.txt")
    recipe = {"model": "onnx/ultraface_rfb320.onnx", "name": "faces", "version": "1", "task": "object_detection",
              "targets": ["cpu"], "precisions": ["float32"], "engines": ["onnxruntime"],
              "evaluation": {"folder": "data/calib", "max_samples": 4}, **told}  # fmt: skip
    options = BuildOptions(base=shared / "models", out=tmp_path / "faces")
    build(parse_recipe(json.dumps(recipe).encode(), ".json"), options, lambda *_: None)
    (tmp_path / "photos").mkdir()
    for name in ("face.jpg", "grace_hopper.bmp", "parrot.jpg"):
        shutil.copy(shared / "models" / "data" / "images" / name, tmp_path / "photos")

    ended = played(tmp_path / "out", "--release", tmp_path / "faces", "--photos", tmp_path / "photos")

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-5:] == [
        "   0.0 s  4 × face", "   1.0 s  1 × face", "   2.0 s  nothing", "most at once: 4 × face",
        "over 15 frames: 25 × face",
    ]  # fmt: skip
