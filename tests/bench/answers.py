"""What one answer costs through `Model.infer`, beside the bare engine on the same file and the same picture."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from PIL import Image

from edge_runtime.inference.model import Model
from tests.bench.figures import ratio, spread, table
from tests.fakes.digits import build_digits, recipe_of

ROUNDS = 300
_EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fleet_on_a_laptop" / "model"


def report() -> list[str]:
    """Measure in turns and return a section of Markdown."""
    picture = next((_EXAMPLE / "live").glob("*.png"))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(_EXAMPLE / "digits.onnx", settings, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    with tempfile.TemporaryDirectory() as folder:
        release = build_digits(Path(folder) / "release", recipe_of(1, precisions=["float32"])).folder
        with Model.open(release, threads=1, backends=["onnxruntime"]) as model:
            content, pixels = picture.read_bytes(), _pixels(picture)
            ready = np.ascontiguousarray((pixels / 255.0).astype(np.float32).reshape(1, 1, 32, 32))
            prepared = model.predictor.preprocess({"image": pixels})
            programs: dict[str, Callable[[], object]] = {
                "`session.run`, input ready": lambda: session.run(None, {name: ready}),
                "`Model.run_canonical`, input ready": lambda: model.run_canonical(prepared),
                "`Model.infer`, array in, classes out": lambda: model.infer({"image": pixels}),
                "`Model.infer`, PNG in, classes out": lambda: model.infer({"image": content}),
            }
            times = _in_turns(programs)
    base = median(times["`session.run`, input ready"])
    rows = [[name, spread(found, "µs"), ratio(median(found), base)] for name, found in times.items()]
    return [
        "## One answer",
        "",
        "The demo's digits model (32 by 32 grey, float32), ONNX Runtime, one thread.",
        f"Taken in turns, {ROUNDS} rounds, median (10th to 90th percentile).",
        "",
        *table(["call", "time", "to the bare engine"], rows),
    ]


def _pixels(picture: Path) -> np.ndarray:
    grey = Image.open(picture).convert("L").resize((32, 32))
    return np.asarray(grey, np.uint8).reshape(32, 32, 1)


def _in_turns(programs: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Microseconds of each call, between the 10th and the 90th percentile."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, call in programs.items():
            began = time.perf_counter_ns()
            call()
            times[name].append((time.perf_counter_ns() - began) / 1000)
    cut = ROUNDS // 10
    return {name: sorted(found)[cut:-cut] for name, found in times.items()}
