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
from tests.bench.chart import Bar, write_bars
from tests.bench.figures import table
from tests.bench.grpc_client import grpc_client
from tests.bench.served import Addresses, floor, serving
from tests.bench.triton import NoTriton, Triton, running
from tests.fakes.probe import probe_input, probe_onnx, write_model, write_probe

ROUNDS = 20
CALLS = 60
"""Of one way, one after the other, in each round."""
QUIET = 0.5
"""Load average up to which a median means something; above, the 10th percentile stands for it."""
_PICTURE_BYTES = 16 * 2**20
_DETECTOR = MODELS / "onnx" / "ultraface_rfb320.onnx"

CHART = Path(__file__).parents[2] / "docs" / "images" / "doors.svg"
_DRAWN = {
    "in process, `Model.infer_tensors`",
    "shared memory, filled in place",
    "Unix socket",
    "v2 HTTP, our client",
    "v2 HTTP, tritonclient",
    "v2 gRPC, tritonclient",
    "Triton, HTTP, tritonclient",
    "Triton, gRPC, tritonclient",
}
"""Lanes of the chart."""

Ask = Callable[[int], list[float]]
"""Asks so often, one after the other; microseconds of each call."""


@dataclass(frozen=True)
class Lane:
    """One way to ask the model."""

    name: str
    ask: Ask
    target_us: float | None = None
    """Most that it may cost over what `beside` costs."""
    beside: str = "raw"
    is_ours: bool = True


def report() -> list[str]:
    """Measure in turns and return a section of Markdown."""
    _free_a_picture()
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
            "tritonclient copies a tensor four times for gRPC. By default glibc takes each copy's memory from the",
            "kernel and gives it back, until a program has freed something larger once, as the one that asks here has,",
            "and as whoever handles pictures has. The rows that say so are of programs that have not.",
            "Triton is nvidia-pytriton's server with its Python backend, which asks the same onnxruntime.",
            "",
            "The probe: one operator, 602 KB of float32 in, 12 bytes out.",
            "",
        ]
        found = _measured(release, probe_onnx(), probe_input(), CALLS, with_triton=True)
        _draw(found)
        section += _rows(found, with_targets=True)
        if _DETECTOR.exists():
            content, image = detector()
            slow = write_model(folder / "detector", content, name="probe", takes=[3, 240, 320], gives=[4420, 2])
            section += ["", "A real face detector (UltraFace RFB-320), 922 KB of float32 in, 35 KB out.", ""]
            section += _rows(_measured(slow, content, image, CALLS // 5))
    return section


@dataclass(frozen=True)
class _Found:
    """What one model's calls took."""

    lanes: list[Lane]
    kind: str
    """Which figure stands for a round."""
    rounds: dict[str, list[float]]
    """Microseconds, by lane: that figure of each round."""
    p99_us: dict[str, float]
    load: float
    trouble: str
    """Why a peer was not measured; empty: it was."""

    def over(self, lane: Lane, beside: str = "raw") -> float:
        """Microseconds beyond another lane: the median over the rounds of the distance within each."""
        pairs = zip(self.rounds[lane.name], self.rounds[beside], strict=True)
        return median(one - other for one, other in pairs)


def _measured(
    release: Path, content: bytes, image: npt.NDArray[np.float32], calls: int, *, with_triton: bool = False
) -> _Found:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "model.onnx"
        file.write_bytes(content)
        addresses = stack.enter_context(serving(release, Path(folder) / "s"))
        bare = stack.enter_context(floor(file))
        lanes = [
            *stack.enter_context(_in_process(release, content, image)),
            *stack.enter_context(_local(addresses, image)),
            *stack.enter_context(_http(addresses, bare, image)),
            *stack.enter_context(_tritonclient(addresses, image)),
        ]
        trouble = ""
        if with_triton:
            try:
                triton = stack.enter_context(running(Path(folder) / "triton"))
                lanes += stack.enter_context(_triton(triton, image))
            except NoTriton as error:
                trouble = f" Triton was not measured: {error}."
        times = _in_turns(lanes, calls)
    load = os.getloadavg()[0]
    kind, typical = ("median", median) if load <= QUIET else ("10th percentile", _p10)
    rounds = {name: [typical(found) for found in of_rounds] for name, of_rounds in times.items()}
    p99 = {name: _at([took for found in of_rounds for took in found], 0.99) for name, of_rounds in times.items()}
    return _Found(lanes, kind, rounds, p99, load, trouble)


@contextmanager
def _in_process(release: Path, content: bytes, image: npt.NDArray[np.float32]) -> Iterator[list[Lane]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    with Model.open(release, threads=1) as model:
        yield [
            Lane("raw", _often(lambda: session.run(None, {"x": image}))),
            Lane("in process, `Model.infer_tensors`", _often(lambda: model.infer_tensors({"x": image}))),
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
            Lane("shared memory, filled in place", _often(buffers.infer), 60),
            Lane("shared memory, copied in by the client", _often(lambda: sharing.infer("probe", {"x": image}))),
            Lane("Unix socket", _often(lambda: streaming.infer("probe", {"x": image})), 200),
        ]


@contextmanager
def _http(addresses: Addresses, bare: str, image: npt.NDArray[np.float32]) -> Iterator[list[Lane]]:
    with connect(addresses.http) as ours, connect(bare) as least:
        yield [
            Lane("floor of HTTP, our client", _often(lambda: least.infer("probe", {"x": image}, ["y"]))),
            Lane(
                "v2 HTTP, our client",
                _often(lambda: ours.infer("probe", {"x": image}, ["y"])),
                80,
                beside="floor of HTTP, our client",
            ),
        ]


@contextmanager
def _tritonclient(addresses: Addresses, image: npt.NDArray[np.float32]) -> Iterator[list[Lane]]:
    with (
        _asking(addresses.http, addresses.grpc, image) as (http, grpc),
        grpc_client(addresses.grpc, image.shape) as fresh,
    ):
        yield [
            Lane("v2 HTTP, tritonclient", http, 650),
            Lane("v2 gRPC, tritonclient", grpc, 1100),
            Lane("v2 gRPC, tritonclient, nothing larger freed", fresh),
        ]


@contextmanager
def _triton(triton: Triton, image: npt.NDArray[np.float32]) -> Iterator[list[Lane]]:
    with (
        _asking(triton.http, triton.grpc, image) as (http, grpc),
        grpc_client(triton.grpc, image.shape) as fresh,
    ):
        yield [
            Lane("Triton, HTTP, tritonclient", http, is_ours=False),
            Lane("Triton, gRPC, tritonclient", grpc, is_ours=False),
            Lane("Triton, gRPC, tritonclient, nothing larger freed", fresh, is_ours=False),
        ]


@contextmanager
def _asking(http_address: str, grpc_address: str, image: npt.NDArray[np.float32]) -> Iterator[tuple[Ask, Ask]]:
    """tritonclient over HTTP (binary) and over gRPC."""
    import tritonclient.grpc
    import tritonclient.http

    def ask(library: Any, client: Any, **binary: bool) -> Ask:
        def one() -> object:
            given = library.InferInput("x", image.shape, "FP32")
            given.set_data_from_numpy(image, **binary)
            wanted = library.InferRequestedOutput("y", **binary)
            return client.infer("probe", [given], outputs=[wanted]).as_numpy("y")

        return _often(one)

    with (
        tritonclient.http.InferenceServerClient(http_address.removeprefix("http://")) as http,
        tritonclient.grpc.InferenceServerClient(grpc_address) as grpc,
    ):
        yield ask(tritonclient.http, http, binary_data=True), ask(tritonclient.grpc, grpc)


def _free_a_picture() -> None:
    """From now on glibc keeps what calls free. Source: mallopt(3), the dynamic mmap threshold."""
    np.ones(_PICTURE_BYTES, np.uint8).sum()


def _in_turns(lanes: list[Lane], calls: int) -> dict[str, list[list[float]]]:
    """Microseconds of each call, by lane and round."""
    times: dict[str, list[list[float]]] = {lane.name: [] for lane in lanes}
    order, chance = [*lanes], random.Random(0)
    for number in range(-1, ROUNDS):
        chance.shuffle(order)
        for lane in order:
            found = lane.ask(calls)
            if number >= 0:  # the first round warms up
                times[lane.name].append(found)
    return times


def _often(once: Callable[[], object]) -> Ask:
    def ask(calls: int) -> list[float]:
        # The first wakes the server up.
        once()
        found = []
        for _ in range(calls):
            began = time.perf_counter_ns()
            once()
            found.append((time.perf_counter_ns() - began) / 1000)
        return found

    return ask


def _rows(found: _Found, *, with_targets: bool = False) -> list[str]:
    rows = [
        [
            lane.name,
            f"{median(found.rounds[lane.name]):.0f} µs",
            f"{found.over(lane):+.0f} µs",
            f"{found.p99_us[lane.name]:.0f} µs",
            *([_target(lane, found)] if with_targets else []),
        ]
        for lane in found.lanes
    ]
    note = f"One call is the {found.kind} of a round, median over the rounds: the load average was {found.load:.2f}."
    heads = ["way", "one call", "over raw", "99th percentile", *(["asked"] if with_targets else [])]
    return [*table(heads, rows), "", note + found.trouble]


def _target(lane: Lane, found: _Found) -> str:
    if lane.target_us is None:
        return "–"
    over = found.over(lane, lane.beside)
    place = "over raw" if lane.beside == "raw" else "over the floor"
    held = "kept" if over <= lane.target_us else "**not kept**"
    return f"{held} (≤ {lane.target_us:+.0f} µs {place}: {over:+.0f})"


def _draw(found: _Found) -> None:
    bars = [
        Bar(lane.name.replace("`", ""), max(over, 0.0), f"{over:+.0f} µs", lane.is_ours)
        for lane in found.lanes
        if lane.name in _DRAWN
        for over in [found.over(lane)]
    ]
    said = "602 KB in, one operator, one client on the same machine; grey: a Triton server, measured beside it."
    write_bars(CHART, "What one call costs beyond the bare engine", said, bars)


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
