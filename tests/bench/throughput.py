"""How many questions four clients get answered, through our doors and by a real Triton server beside them."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from tests.bench.figures import ratio, table
from tests.bench.served import serving
from tests.bench.triton import NoTriton, running
from tests.fakes.probe import write_probe

CLIENTS = 4
ROUNDS = 3
COUNT_S = 2.0
LABELS = {
    "grpc": "v2 gRPC, tritonclient",
    "http": "v2 HTTP binary, tritonclient",
    "grpc+shm": "v2 gRPC, tritonclient, input in system shared memory",
    "local": "Unix socket and shared memory, our client",
}


def report() -> list[str]:
    """Measure in turns and return a section of Markdown."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        base = Path(folder)
        ours = stack.enter_context(serving(write_probe(_made(base / "probe")), base / "socket"))
        paths = {
            "grpc": ours.grpc,
            "http": ours.http.removeprefix("http://"),
            "grpc+shm": ours.grpc,
            "local": ours.unix,
        }
        servers = {"edgefleet": paths}
        trouble = ""
        try:
            triton = stack.enter_context(running(_made(base / "triton")))
            servers["Triton"] = {"grpc": triton.grpc, "http": triton.http, "grpc+shm": triton.grpc}
        except NoTriton as error:
            trouble = f"Triton was not measured: {error}."
        clients = [stack.enter_context(client()) for _ in range(CLIENTS)]
        found: dict[tuple[str, str], list[float]] = {
            (server, path): [] for server, addresses in servers.items() for path in addresses
        }
        for _ in range(ROUNDS):
            for (server, path), rounds in found.items():
                rounds.append(_answers_per_s(clients, path, servers[server][path]))
    return [
        "## Throughput beside a Triton server",
        "",
        f"The probe (602 KB float in, one operator, one thread), {CLIENTS} client processes that ask at once, all",
        f"on this machine. Answers per second, median of {ROUNDS} rounds of {COUNT_S:.0f} s, taken in turns.",
        "Triton is nvidia-pytriton 0.7.0's server with its Python backend, which asks the same onnxruntime.",
        "",
        *table(["path", "Triton", "edgefleet", "to Triton on that path", "to Triton's best"], _rows(found)),
        *(["", trouble] if trouble else []),
    ]


@contextmanager
def client() -> Iterator[subprocess.Popen[str]]:
    """A client process that waits for tasks."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.communicate()


def _answers_per_s(clients: list[subprocess.Popen[str]], path: str, address: str) -> float:
    for process in clients:
        _tell(process, json.dumps({"path": path, "address": address}))
    for process in clients:
        _heard(process)
    began = time.monotonic()
    for process in clients:
        _tell(process, str(began + COUNT_S))
    return sum(int(_heard(process)) for process in clients) / COUNT_S


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a client failed; it said why above")
    return line


def _rows(found: dict[tuple[str, str], list[float]]) -> list[list[str]]:
    medians = {key: median(values) for key, values in found.items()}
    best = max((value for (server, _), value in medians.items() if server == "Triton"), default=0.0)
    rows = []
    for path, label in LABELS.items():
        theirs, ours = medians.get(("Triton", path)), medians.get(("edgefleet", path))
        if theirs is None and ours is None:
            continue
        rows.append([
            label,
            f"{theirs:.0f}" if theirs else "–",
            f"{ours:.0f}" if ours else "–",
            ratio(ours, theirs) if ours and theirs else "–",
            ratio(ours, best) if ours and best else "–",
        ])  # fmt: skip
    return rows


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    print("\n".join(report()))
