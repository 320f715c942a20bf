"""What each door costs beyond the bare engine: one client, one call at a time, servers in processes of their own."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from edge_runtime.client import connect
from edge_runtime.client.local import LocalClient
from edge_runtime.inference.model import Model
from tests.bench.cases import MODELS
from tests.bench.figures import table
from tests.bench.keeping_client import SETTINGS, keeping_client
from tests.bench.served import Addresses, floor, serving
from tests.fakes.probe import probe_input, probe_onnx, write_model, write_probe

ROUNDS = 20
CALLS = 60
"""Of one way, one after the other, in each round."""
QUIET = 0.5
"""Load average up to which a median means something; above, the 10th percentile stands for it."""
_DETECTOR = MODELS / "onnx" / "ultraface_rfb320.onnx"

Ask = Callable[[], object]


@dataclass(frozen=True)
class Lane:
    """One way to ask the model."""

    name: str
    ask: Ask
    target_us: float | None = None
    """Most that it may cost over what `beside` costs."""
    beside: str = "raw"
    many: Callable[[int], list[float]] | None = None
    """Asks so often in a process of its own, instead of `ask`; microseconds of each call."""


def report() -> list[str]:
    """Measure in turns and return a section of Markdown."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        release = write_probe(folder / "probe")
        section = [
            "## Doors",
            "",
            "One client, one call at a time; one thread inside the engine; `edge-runtime serve` with every door and",
            "the floor (a bare HTTP server that asks the engine on its event loop, without checks, limits or queue) in",
            f"processes of their own. {ROUNDS} rounds, in each of them every way in turn, in another order each time.",
            "`over raw` is the median over the rounds of the distance from the bare engine in the same round.",
            "tritonclient copies a tensor four times for gRPC, and by default glibc takes each copy's memory from the",
            f"kernel and gives it back. The last row is the same client with {' and '.join(SETTINGS)} set to",
            "16 MiB in its environment.",
            "",
            "The probe: one operator, 602 KB of float32 in, 12 bytes out.",
            "",
            *_measured(release, probe_onnx(), probe_input(), CALLS),
        ]
        if _DETECTOR.exists():
            content, image = detector()
            slow = write_model(folder / "detector", content, name="probe", takes=[3, 240, 320], gives=[4420, 2])
            section += ["", "A real face detector (UltraFace RFB-320), 922 KB of float32 in, 35 KB out.", ""]
            section += _measured(slow, content, image, CALLS // 5)
    return section


def _measured(release: Path, content: bytes, image: npt.NDArray[np.float32], calls: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "model.onnx"
        file.write_bytes(content)
        addresses = stack.enter_context(serving(release, Path(folder) / "s"))
        bare = stack.enter_context(floor(file))
        lanes = [
            *stack.enter_context(_in_process(release, content, image)),
            *stack.enter_context(_local(addresses, image)),
            *stack.enter_context(_http(addresses, bare, image)),
            *stack.enter_context(_triton(addresses, image)),
        ]
        times = _in_turns(lanes, calls)
    return _rows(lanes, times)


@contextmanager
def _in_process(release: Path, content: bytes, image: npt.NDArray[np.float32]) -> Iterator[list[Lane]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    with Model.open(release, threads=1) as model:
        yield [
            Lane("raw", lambda: session.run(None, {"x": image})),
            Lane("in process, `Model.infer_tensors`", lambda: model.infer_tensors({"x": image})),
        ]


@contextmanager
def _local(addresses: Addresses, image: npt.NDArray[np.float32]) -> Iterator[list[Lane]]:
    path = addresses.unix.partition(":")[2]
    with (
        LocalClient(path) as sharing,
        LocalClient(path, shared_memory=False) as streaming,
        sharing.buffers("probe", {"x": image.shape}) as buffers,
    ):
        buffers["x"][...] = image
        yield [
            Lane("shared memory, filled in place", buffers.infer, 60),
            Lane("shared memory, copied in by the client", lambda: sharing.infer("probe", {"x": image})),
            Lane("Unix socket", lambda: streaming.infer("probe", {"x": image}), 200),
        ]


@contextmanager
def _http(addresses: Addresses, bare: str, image: npt.NDArray[np.float32]) -> Iterator[list[Lane]]:
    with connect(addresses.http) as ours, connect(bare) as least:
        yield [
            Lane("floor of HTTP, our client", lambda: least.infer("probe", {"x": image}, ["y"])),
            Lane(
                "v2 HTTP, our client",
                lambda: ours.infer("probe", {"x": image}, ["y"]),
                80,
                beside="floor of HTTP, our client",
            ),
        ]


@contextmanager
def _triton(addresses: Addresses, image: npt.NDArray[np.float32]) -> Iterator[list[Lane]]:
    import tritonclient.grpc
    import tritonclient.http

    def ask(library: Any, client: Any, **binary: bool) -> Ask:
        def one() -> object:
            given = library.InferInput("x", image.shape, "FP32")
            given.set_data_from_numpy(image, **binary)
            wanted = library.InferRequestedOutput("y", **binary)
            return client.infer("probe", [given], outputs=[wanted]).as_numpy("y")

        return one

    with (
        tritonclient.http.InferenceServerClient(addresses.http.partition("//")[2]) as http,
        tritonclient.grpc.InferenceServerClient(addresses.grpc.partition("//")[2] or addresses.grpc) as grpc,
        keeping_client(addresses.grpc, image.shape) as keeping,
    ):
        yield [
            Lane("v2 HTTP, tritonclient", ask(tritonclient.http, http, binary_data=True), 650),
            Lane("v2 gRPC, tritonclient", ask(tritonclient.grpc, grpc), 1100),
            Lane("v2 gRPC, tritonclient that keeps freed memory", ask(tritonclient.grpc, grpc), 1100, many=keeping),
        ]


def _in_turns(lanes: list[Lane], calls: int) -> dict[str, list[list[float]]]:
    """Microseconds of each call, by lane and round."""
    times: dict[str, list[list[float]]] = {lane.name: [] for lane in lanes}
    order, chance = [*lanes], random.Random(0)
    for number in range(-1, ROUNDS):
        chance.shuffle(order)
        for lane in order:
            found = lane.many(calls) if lane.many else _timed(lane.ask, calls)
            if number >= 0:  # the first round warms up
                times[lane.name].append(found)
    return times


def _timed(ask: Ask, calls: int) -> list[float]:
    # The first wakes the server up.
    ask()
    found = []
    for _ in range(calls):
        began = time.perf_counter_ns()
        ask()
        found.append((time.perf_counter_ns() - began) / 1000)
    return found


def _rows(lanes: list[Lane], times: dict[str, list[list[float]]]) -> list[str]:
    load = os.getloadavg()[0]
    kind, typical = ("median", median) if load <= QUIET else ("10th percentile", _p10)
    rounds = {name: [typical(found) for found in of_rounds] for name, of_rounds in times.items()}
    every = {name: [took for found in of_rounds for took in found] for name, of_rounds in times.items()}
    rows = [
        [
            lane.name,
            f"{median(rounds[lane.name]):.0f} µs",
            f"{_distance(rounds[lane.name], rounds['raw']):+.0f} µs",
            f"{_at(every[lane.name], 0.99):.0f} µs",
            _target(lane, rounds),
        ]
        for lane in lanes
    ]
    note = f"One call is the {kind} of a round, median over the rounds: the load average was {load:.2f}."
    return [*table(["way", "one call", "over raw", "99th percentile", "target"], rows), "", note]


def _target(lane: Lane, rounds: dict[str, list[float]]) -> str:
    if lane.target_us is None:
        return ""
    over = _distance(rounds[lane.name], rounds[lane.beside])
    place = "over raw" if lane.beside == "raw" else "over the floor"
    return f"≤ {lane.target_us:+.0f} µs {place}: {'met' if over <= lane.target_us else 'missed'} ({over:+.0f})"


def _distance(rounds: list[float], base: list[float]) -> float:
    return median(one - other for one, other in zip(rounds, base, strict=True))


def _p10(values: list[float]) -> float:
    return _at(values, 0.1)


def _at(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


def detector() -> tuple[bytes, npt.NDArray[np.float32]]:
    """UltraFace with its input called `x` and its scores `y`, and a picture's worth of numbers."""
    model = onnx.load(_DETECTOR)
    names = {model.graph.input[0].name: "x", model.graph.output[0].name: "y"}
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    model.graph.input[0].name, model.graph.output[0].name = "x", "y"
    del model.graph.output[1:], model.graph.input[1:]  # the boxes; weights that the file also lists as inputs
    image = np.random.default_rng(0).random((1, 3, 240, 320), np.float32)
    return model.SerializeToString(), image


if __name__ == "__main__":
    print("\n".join(report()))
