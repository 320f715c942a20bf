"""Servers of the door bench, each in a process of its own: `edge-runtime serve` with every door, and the bare floor."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the server's doors are."""

    unix: str
    http: str
    grpc: str


@contextmanager
def serving(release: Path, socket: Path, *options: str) -> Iterator[Addresses]:
    """`edge-runtime serve` of one release, one thread inside a call, all doors open, with further options."""
    command = [sys.executable, "-m", "edge_runtime.cli", "serve", str(release), "--threads", "1", "--json"]
    command += [*options, "--uds", str(socket), "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            doors = {door["kind"]: door["address"] for door in _announced(process)["doors"]}
            yield Addresses(doors["local"], doors["v2 HTTP"], doors["v2 gRPC"])
        finally:
            process.terminate()


@contextmanager
def floor(model: Path) -> Iterator[str]:
    """The bare floor server of one ONNX file; its address."""
    command = [sys.executable, "-m", "tests.bench.floor", str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def _announced(process: subprocess.Popen[str]) -> dict[str, list[dict[str, str]]]:
    """The document that the server prints once it answers."""
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line == "}\n":
            found: dict[str, list[dict[str, str]]] = json.loads(text)
            return found
    raise RuntimeError(f"the server ended: {text}")
