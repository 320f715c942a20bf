"""What a pipeline costs per frame, beside the loop that a person would write with OpenCV and the same model."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2

from edge_runtime.inference.model import Model
from edge_runtime.inference.postprocessing.rendering import as_json
from edge_runtime.pipelines.opening import open_pipeline, plan_pipeline
from edge_runtime.pipelines.reading import parse_description
from examples.camera_counter.video import write_belt
from tests.bench.figures import ratio, table
from tests.fakes.digits import build_digits, recipe_of

ROUNDS = 5
_REPEATS = 10
_PIPELINE = """
[sources.belt]
kind = "files"
paths = ["frames/*.png"]
[crops.tile]
kind = "grid"
from = "belt"
rows = 2
columns = 5
[models.digit]
release = "digits"
threads = 1
backends = ["onnxruntime"]
from = "tile"
[sinks.lines]
kind = "jsonl"
path = "records.jsonl"
"""


def report() -> list[str]:
    """Measure in turns and return a section of Markdown."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_digits(folder / "digits", recipe_of(1, precisions=["float32"]))
        frames = _write_frames(folder)
        programs: dict[str, Callable[[], None]] = {
            "a loop around `cv2.imread` and `Model.infer`": lambda: _loop(folder),
            "`edge-runtime pipeline`'s own runner": lambda: _pipeline(folder),
        }
        wall: dict[str, list[float]] = {title: [] for title in programs}
        cpu: dict[str, list[float]] = {title: [] for title in programs}
        for _ in range(ROUNDS):
            for title, run in programs.items():
                began, spent = time.perf_counter(), time.process_time()
                run()
                wall[title].append((time.perf_counter() - began) / frames * 1000)
                cpu[title].append((time.process_time() - spent) / frames * 1000)
    base = median(next(iter(cpu.values())))
    rows = [
        [title, f"{median(wall[title]):.2f} ms", f"{median(cpu[title]):.2f} ms", ratio(median(cpu[title]), base)]
        for title in programs
    ]
    return [
        "## A camera pipeline",
        "",
        f"{frames} frames of ten digits each: decoded, cut into tiles, ten answers per frame, one line of JSON.",
        "",
        *table(["program", "time per frame", "CPU per frame", "CPU to the loop"], rows),
    ]


def _write_frames(folder: Path) -> int:
    """The belt's frames as pictures, several times over."""
    write_belt(folder / "belt.avi")
    (folder / "frames").mkdir()
    capture, count = cv2.VideoCapture(str(folder / "belt.avi")), 0
    while True:
        is_there, picture = capture.read()
        if not is_there:
            return count
        for repeat in range(_REPEATS):
            cv2.imwrite(str(folder / "frames" / f"{repeat:02}-{count:03}.png"), picture)
            count += 1


def _loop(folder: Path) -> None:
    with (
        Model.open(folder / "digits", threads=1, backends=["onnxruntime"]) as model,
        (folder / "loop.jsonl").open("w", encoding="utf-8") as lines,
    ):
        for path in sorted((folder / "frames").glob("*.png")):
            grey = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2GRAY)
            down, across = grey.shape[0] // 2, grey.shape[1] // 5
            answers = [
                model.infer({"image": grey[top : top + down, left : left + across, None]})
                for top in range(0, grey.shape[0], down)
                for left in range(0, grey.shape[1], across)
            ]
            lines.write(json.dumps([{key: as_json(one) for key, one in answer.items()} for answer in answers]) + "\n")


def _pipeline(folder: Path) -> None:
    description = parse_description(_PIPELINE.encode(), folder / "belt.toml")
    open_pipeline(plan_pipeline(description, folder), lambda _line: None).run()
