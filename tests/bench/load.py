"""One client of a throughput benchmark, alone in its process: python -m tests.bench.load.

Reads tasks from standard input: a line of JSON with path and address and, after it has said `ready`, a line that says
when to end on the monotonic clock. Writes how many questions were answered until then.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.fakes.probe import SHAPE, probe_input

Ask = Callable[[], object]

WARM_UP = 20


@contextmanager
def over_grpc(address: str, module: Any = None) -> Iterator[Ask]:
    """tritonclient's gRPC client, which makes the request anew from the array each time."""
    if module is None:
        import tritonclient.grpc as module
    values = probe_input()

    def ask() -> object:
        given = module.InferInput("x", list(SHAPE), "FP32")
        given.set_data_from_numpy(values)
        return client.infer("probe", [given], outputs=[module.InferRequestedOutput("y")]).as_numpy("y")

    with module.InferenceServerClient(address) as client:
        yield ask


@contextmanager
def over_http(address: str) -> Iterator[Ask]:
    """tritonclient's HTTP client, binary."""
    import tritonclient.http

    with over_grpc(address.removeprefix("http://"), tritonclient.http) as ask:
        yield ask


@contextmanager
def over_grpc_with_shared_memory(address: str) -> Iterator[Ask]:
    """tritonclient's gRPC client with the input in system shared memory, copied there each time."""
    import tritonclient.grpc
    from tritonclient.utils import shared_memory

    values, name = probe_input(), f"bench-{time.monotonic_ns()}"
    region = shared_memory.create_shared_memory_region(name, f"/{name}", values.nbytes)

    def ask() -> object:
        shared_memory.set_shared_memory_region(region, [values])
        given = tritonclient.grpc.InferInput("x", list(SHAPE), "FP32")
        given.set_shared_memory(name, values.nbytes)
        wanted = tritonclient.grpc.InferRequestedOutput("y")
        return client.infer("probe", [given], outputs=[wanted]).as_numpy("y")

    try:
        with tritonclient.grpc.InferenceServerClient(address) as client:
            client.register_system_shared_memory(name, f"/{name}", values.nbytes)
            yield ask
            client.unregister_system_shared_memory(name)
    finally:
        shared_memory.destroy_shared_memory_region(region)


@contextmanager
def over_local(address: str) -> Iterator[Ask]:
    """Our own client: the tensor is copied into memory that it shares with the server each time."""
    from edge_runtime.client.local import LocalClient

    values = probe_input()
    path = address.partition(":")[2]
    with LocalClient(path) as client, client.buffers("probe", {"x": values.shape}) as buffers:

        def ask() -> object:
            buffers["x"][...] = values
            return buffers.infer()["y"]

        yield ask


PATHS: dict[str, Callable[[str], Any]] = {
    "grpc": over_grpc,
    "http": over_http,
    "grpc+shm": over_grpc_with_shared_memory,
    "local": over_local,
}


def warm_up(ask: Ask) -> None:
    """Ask a few times. Raises: ValueError when the answer is wrong."""
    for _ in range(WARM_UP):
        answer = np.asarray(ask())
    if not np.allclose(answer, probe_input().mean((2, 3)), atol=1e-4):
        raise ValueError("the server's answer is wrong")


def count(ask: Ask, end: float) -> int:
    """Answers until a moment of the monotonic clock, which all processes share."""
    answers = 0
    while time.monotonic() < end:
        ask()
        answers += 1
    return answers


def main() -> None:
    for line in sys.stdin:
        task = json.loads(line)
        with PATHS[task["path"]](task["address"]) as ask:
            warm_up(ask)
            print("ready", flush=True)
            print(count(ask, float(sys.stdin.readline())), flush=True)


if __name__ == "__main__":
    main()
