"""When gathering calls into batches pays on this machine, and when it does not."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edge_runtime.serving.batching import BatchPolicy
from edge_runtime.serving.calls import Call
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.served import Served
from tests.bench.figures import ratio, table
from tests.fakes.probe import SHAPE, probe_onnx, write_model

CALLERS = 8
ROUNDS = 5
COUNT_S = 0.6
WIDTH = 2048
POLICIES = {"none": None, "8": BatchPolicy(8), "8:500us": BatchPolicy(8, 500e-6), "8:2ms": BatchPolicy(8, 2e-3)}


@dataclass(frozen=True)
class Subject:
    """A model to ask."""

    label: str
    content: Callable[[], bytes]
    takes: tuple[int, ...]
    gives: tuple[int, ...]


def _layers() -> bytes:
    """`x` float32 [N, width] → `y` float32 [N, width], two dense layers."""
    weights = np.random.default_rng(1).standard_normal((2, WIDTH, WIDTH), np.float32) / WIDTH
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w0"], ["h"]), helper.make_node("MatMul", ["h", "w1"], ["y"])],
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WIDTH])],
        [numpy_helper.from_array(layer, f"w{number}") for number, layer in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


SUBJECTS = (
    Subject(f"two layers of {WIDTH} by {WIDTH} weights: to read them is the work", _layers, (WIDTH,), (WIDTH,)),
    Subject("the probe: its 602 KB input is the work", probe_onnx, SHAPE[1:], (3,)),
)


def report() -> list[str]:
    """Measure in turns and return a section of Markdown."""
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, subject in enumerate(SUBJECTS):
            release = write_model(
                Path(folder) / str(number), subject.content(), name="probe", takes=subject.takes, gives=subject.gives
            )
            rows += _measured(subject, release)
    return [
        "## Batching",
        "",
        f"{CALLERS} threads ask one host without a pause, one sample each; one thread inside the engine. Medians of",
        f"{ROUNDS} rounds of {COUNT_S} s, in turns. `8:500us` gathers up to 8 samples and waits 500 µs for them.",
        "It pays where a run costs about the same for eight samples as for one. Where the input itself is the work, it",
        "does not: to put inputs together is one more copy of each.",
        "",
        *table(["model", "`--batch`", "answers/s", "to none", "median of a call", "samples a run"], rows),
    ]


def _measured(subject: Subject, release: Path) -> list[list[str]]:
    hosts = {
        name: ModelHost(threads=1, batching={"probe": policy} if policy else None) for name, policy in POLICIES.items()
    }
    try:
        served = {name: host.load(release) for name, host in hosts.items()}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in hosts}
        for _ in range(ROUNDS):
            for name, one in served.items():
                found[name].append(_asked(one, subject.takes))
        counted = {name: one.statistics() for name, one in served.items()}
    finally:
        for host in hosts.values():
            host.close()
    base = median(rate for rate, _ in found["none"])
    return [
        [
            subject.label if name == "none" else "",
            name,
            f"{median(rate for rate, _ in rounds):.0f}",
            ratio(median(rate for rate, _ in rounds), base),
            f"{1e3 * median(took for _, took in rounds):.2f} ms",
            f"{counted[name].inference_count / counted[name].execution_count:.1f}",
        ]
        for name, rounds in found.items()
    ]


def _asked(served: Served, takes: tuple[int, ...]) -> tuple[float, float]:
    """Answers per second of all threads, and the median seconds of one."""
    took: list[list[float]] = [[] for _ in range(CALLERS)]
    ready = threading.Barrier(CALLERS + 1)

    def ask(own: list[float]) -> None:
        call = Call({"x": np.random.default_rng(0).random((1, *takes), np.float32)})
        served.call(call)
        ready.wait()
        last = time.perf_counter()
        ends = last + COUNT_S
        while last < ends:
            served.call(call)
            now = time.perf_counter()
            own.append(now - last)
            last = now

    threads = [threading.Thread(target=ask, args=(own,)) for own in took]
    for thread in threads:
        thread.start()
    ready.wait()
    for thread in threads:
        thread.join()
    return sum(map(len, took)) / COUNT_S, median(one for own in took for one in own)


if __name__ == "__main__":
    print("\n".join(report()))
