"""What `Model` adds to the bare engine in one process: nothing, it takes away."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import onnxruntime

from edge_runtime.inference.model import Model
from tests.bench.figures import table
from tests.bench.turns import heads, in_turns, load_note, rows
from tests.fakes.probe import SHAPE, heavy_onnx, probe_input, probe_onnx, write_model

BARE = "`session.run(None, feed)`"


def report() -> list[str]:
    """Measure in turns and return a section of Markdown."""
    fast = {"`Model.infer(arrays)`": 1.00, "`Model.infer_tensors`": 1.00, "`lease`, filled in place": 0.90}
    slow = {"`Model.infer(arrays)`": 1.01}
    return [
        "## In process",
        "",
        "ONNX Runtime on both sides, one thread inside a call. The probe is one operator behind 602 KB of float32.",
        load_note(),
        "",
        *_measured(probe_onnx(), 5000, fast),
        "",
        "A model of several milliseconds:",
        "",
        *_measured(heavy_onnx(), 250, slow),
    ]


def _measured(content: bytes, rounds: int, bounds: dict[str, float]) -> list[str]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feed = {"x": probe_input()}
    with tempfile.TemporaryDirectory() as folder:
        release = write_model(Path(folder) / "release", content, name="probe", takes=SHAPE[1:], gives=[3])
        with Model.open(release, threads=1, backends=["onnxruntime"]) as model, model.lease() as buffers:
            buffers.inputs["x"][...] = feed["x"]
            programs: dict[str, Callable[[], object]] = {
                BARE: lambda: session.run(None, feed),
                "`Model.infer(arrays)`": lambda: model.infer(feed),
                "`Model.infer_tensors`": lambda: model.infer_tensors(feed),
                "`lease`, filled in place": buffers.run,
            }
            lines = table(heads("µs"), rows(in_turns(programs, rounds), BARE, bounds))
            kept = {name: _kept_bytes(call) for name, call in programs.items() if name != BARE}
    return [*lines, "", *_said(kept)]


def _kept_bytes(call: Callable[[], object]) -> float:
    """Python's memory that one call leaves behind, its result given up, beyond what was there."""
    for _ in range(100):
        call()
    tracemalloc.start()
    try:
        call()
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(1000):
            call()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (after - before) / 1000


def _said(kept: dict[str, float]) -> list[str]:
    figures = ", ".join(f"{name} {amount:.1f}" for name, amount in kept.items())
    return [
        "Bytes that a call leaves behind besides its result (tracemalloc, mean of 1000; numbers of the",
        f"histogram): {figures}.",
    ]
