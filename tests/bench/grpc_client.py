"""tritonclient over gRPC in a process of its own: what its C library does with freed memory is not left to others.

Reads from standard input how often to ask; writes how many microseconds each call took, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import tritonclient.grpc


@contextmanager
def grpc_client(address: str, shape: Sequence[int]) -> Iterator[Callable[[int], list[float]]]:
    """Asks so often, and tells how long each call took, in microseconds."""
    command = [sys.executable, "-m", "tests.bench.grpc_client", address, json.dumps(list(shape))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(count: int) -> list[float]:
            assert process.stdin
            assert process.stdout
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
            took: list[float] = json.loads(process.stdout.readline())
            return took

        try:
            yield ask
        finally:
            process.communicate()


def main() -> None:
    address, shape = sys.argv[1], json.loads(sys.argv[2])
    values = np.random.default_rng(0).random(shape, np.float32)
    with tritonclient.grpc.InferenceServerClient(address) as client:
        for line in sys.stdin:
            took = []
            for _ in range(int(line) + 1):  # the first wakes the server up
                began = time.perf_counter_ns()
                given = tritonclient.grpc.InferInput("x", shape, "FP32")
                given.set_data_from_numpy(values)
                wanted = tritonclient.grpc.InferRequestedOutput("y")
                client.infer("probe", [given], outputs=[wanted]).as_numpy("y")
                took.append((time.perf_counter_ns() - began) / 1000)
            print(json.dumps(took[1:]), flush=True)


if __name__ == "__main__":
    main()
