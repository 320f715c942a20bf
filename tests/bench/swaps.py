"""Swapping a model under load: what it costs the calls around it, and what it loses."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.serving.calls import Call
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.served import Served
from tests.bench.cases import MODELS
from tests.bench.doors import detector
from tests.bench.figures import ratio, table
from tests.fakes.probe import write_model
from tests.fakes.swap_load import Ask, swap_under_load, write_versions

SWAPS = 500
LOAD = 0.3
"""Share of the time in which one engine thread is busy, without swaps."""
SEGMENT_S = 8.0
SEGMENTS = 5
"""Of each kind, in turns."""
_DETECTOR = MODELS / "onnx" / "ultraface_rfb320.onnx"
_SHAPE = (1, 3, 240, 320)


def report() -> list[str]:
    """Measure and return a section of Markdown."""
    with tempfile.TemporaryDirectory() as name:
        section = ["## Swaps under load", "", *_saturated(Path(name) / "saturated")]
        if _DETECTOR.exists():
            section += ["", *_open_loop(Path(name) / "open loop")]
    return section


def _saturated(folder: Path) -> list[str]:
    releases = write_versions(folder)
    with ModelHost(threads=1) as host:
        host.load(releases["1.0.0"])
        began = time.monotonic()
        seen = swap_under_load(host, releases, lambda: _calling(host), swaps=SWAPS)
        took_s = time.monotonic() - began
    row = [
        str(SWAPS),
        str(sum(seen.answers.values())),
        str(len(seen.failed)),
        str(len(seen.mixed)),
        f"{seen.growth_bytes / 2**20:+.1f} MB",
        f"{took_s / SWAPS * 1000:.0f} ms",
    ]
    return [
        "Four threads ask without a pause while two releases take turns; each swap loads, checks the golden set, takes",
        "over and drains. Memory is what the process holds at the end beyond what it held after 50 swaps.",
        "",
        *table(["swaps", "answers", "failed", "mixed", "memory", "a swap took"], [row]),
    ]


def _open_loop(folder: Path) -> list[str]:
    content, image = detector()
    releases = [
        write_model(folder / version, content, name="detector", takes=_SHAPE[1:], gives=[4420, 2])
        for version in ("1", "2")
    ]
    latencies: dict[bool, list[float]] = {False: [], True: []}
    with ModelHost(threads=1) as host:
        host.load(releases[0])
        served = host.find("detector")
        interval_s = _cost_s(served, image) / LOAD
        for number in range(2 * SEGMENTS):
            with_swaps = bool(number % 2)
            with _swapping(host, releases, when=with_swaps):
                latencies[with_swaps] += _asked_at_a_pace(served, image, interval_s)
    quiet, busy = (np.array(latencies[kind]) * 1000 for kind in (False, True))
    rows = [
        [name, *(f"{np.percentile(values, q):.2f} ms" for q in (50, 99)), f"{values.max():.1f} ms", str(values.size)]
        for name, values in (("without swaps", quiet), ("a swap each second", busy))
    ]
    p99 = [float(np.percentile(values, 99)) for values in (busy, quiet)]
    return [
        f"Open loop at {LOAD:.0%} load: a call each {interval_s * 1000:.1f} ms, whether or not the last one has ended,",
        f"to a real face detector (UltraFace RFB-320); {SEGMENTS} times {SEGMENT_S:.0f} s of each in turns.",
        "Times count from when a call was due.",
        f"p99 with swaps is {ratio(*p99)} p99 without; at most 2 is wanted.",
        "",
        *table(["", "p50", "p99", "most", "calls"], rows),
    ]


@contextmanager
def _calling(host: ModelHost) -> Iterator[Ask]:
    served = host.find("pixels")

    def ask(pixels: npt.NDArray[np.uint8]) -> tuple[str, npt.NDArray[Any]]:
        reply = served.call(Call({"image": pixels}))
        return reply.version, np.asarray(reply.tensors["logits"])

    yield ask


@contextmanager
def _swapping(host: ModelHost, releases: list[Path], *, when: bool) -> Iterator[None]:
    ended = threading.Event()

    def swap() -> None:
        turn = 1
        while when and not ended.wait(1.0):
            host.swap(releases[turn % 2])
            turn += 1

    thread = threading.Thread(target=swap)
    thread.start()
    yield
    ended.set()
    thread.join()


def _asked_at_a_pace(served: Served, image: npt.NDArray[np.float32], interval_s: float) -> list[float]:
    """Seconds from when each call was due to its answer; calls are submitted, so that none waits for the one before."""
    count = int(SEGMENT_S / interval_s)
    latencies: list[float] = []
    answered = threading.Semaphore(0)
    started = time.monotonic()
    for number in range(count):
        due = started + number * interval_s
        time.sleep(max(0.0, due - time.monotonic()))

        def done(_outcome: object, due: float = due) -> None:
            latencies.append(time.monotonic() - due)
            answered.release()

        served.submit(Call({"x": image}), done)
    for _ in range(count):
        answered.acquire()
    return latencies


def _cost_s(served: Served, image: npt.NDArray[np.float32]) -> float:
    times = []
    for _ in range(100):
        began = time.monotonic()
        served.call(Call({"x": image}))
        times.append(time.monotonic() - began)
    return float(np.median(times))


if __name__ == "__main__":
    print("\n".join(report()))
