"""What a caller notices of live swaps: an open loop well below what the door can do, with and without them."""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
import numpy as np
import numpy.typing as npt
import tritonclient.grpc

from edge_runtime.client import connect
from edge_runtime.client.local import LocalClient
from tests.bench.figures import ratio, table
from tests.bench.served import Addresses, serving
from tests.fakes.probe import probe_input, write_probe

ROUNDS = 5
SECONDS = 3.0
"""Without swaps, and with them, in each round."""
SHARE = 0.3
"""Of its time that a caller waits for answers."""
RESTING_HZ = 200
"""Rate at which a caller rests before each call."""
VERSIONS = ("1.0.0", "2.0.0")

Ask = Callable[[], str]
"""Asks once; the version that answered."""


@dataclass
class Seen:
    """What one caller saw."""

    waits_us: list[float]
    """From the moment a call was due to its answer: a call that had to wait for the one before shows it."""
    versions: set[str]
    failed: int


def report() -> list[str]:
    """Measure each door and return a section of Markdown."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for version in VERSIONS:
            write_probe(folder / "repository" / version, version)
        first = folder / "repository" / VERSIONS[0]
        with (
            serving(first, folder / "s", "--repository", str(folder / "repository")) as addresses,
            _callers(addresses, probe_input()) as callers,
        ):
            for door, ask in callers.items():
                rate_hz = SHARE / _usual_s(ask)
                calm: list[Seen] = []
                busy: list[Seen] = []
                for _ in range(ROUNDS):
                    calm.append(_open_loop(ask, rate_hz))
                    with _swapping(addresses):
                        busy.append(_open_loop(ask, rate_hz))
                rows.append(_row(door, rate_hz, calm, busy))
    return [
        "## Swaps under load, through the doors",
        "",
        f"The probe, asked so often that its caller waits {SHARE:.0%} of the time: {SECONDS:.0f} s without swaps, as",
        f"long with one a second (ordered over HTTP by another process), {ROUNDS} rounds, medians. Times count from",
        "when a call was due.",
        "",
        *table(
            [
                "door",
                "calls a second",
                "p99 without",
                "p99 with swaps",
                "",
                "longest, without and with",
                "failed",
                "seen",
            ],
            rows,
        ),
    ]


def _row(door: str, rate_hz: float, calm: list[Seen], busy: list[Seen]) -> list[str]:
    p99, longest = (
        [median(float(np.percentile(one.waits_us, share)) for one in seen) for seen in (calm, busy)]
        for share in (99, 100)
    )
    return [
        door,
        f"{rate_hz:.0f}",
        f"{p99[0]:.0f} µs",
        f"{p99[1]:.0f} µs",
        f"{ratio(p99[1], p99[0])} (target ≤ 2)",
        f"{longest[0] / 1000:.1f} and {longest[1] / 1000:.1f} ms",
        str(sum(one.failed for one in (*calm, *busy))),
        ", ".join(sorted({version for one in busy for version in one.versions})),
    ]


@contextmanager
def _callers(addresses: Addresses, image: npt.NDArray[np.float32]) -> Iterator[dict[str, Ask]]:
    path = addresses.unix.partition(":")[2]
    with (
        LocalClient(path) as sharing,
        LocalClient(path, shared_memory=False) as streaming,
        sharing.buffers("probe", {"x": image.shape}) as buffers,
        connect(addresses.http) as ours,
        tritonclient.grpc.InferenceServerClient(addresses.grpc) as grpc,
    ):
        buffers["x"][...] = image
        given = tritonclient.grpc.InferInput("x", image.shape, "FP32")
        given.set_data_from_numpy(image)
        yield {
            "shared memory": lambda: buffers.infer().version,
            "Unix socket": lambda: streaming.infer("probe", {"x": image}).version,
            "v2 HTTP, our client": lambda: ours.infer("probe", {"x": image}, ["y"]).version,
            "v2 gRPC, tritonclient": lambda: str(grpc.infer("probe", [given]).get_response().model_version),
        }


@contextmanager
def _swapping(addresses: Addresses) -> Iterator[None]:
    """One swap a second, between the two versions; ordered by a process of its own, as a fleet would.

    In this one the order itself would keep the interpreter from the caller whose waits are measured.
    """
    command = [sys.executable, "-m", "tests.bench.door_swaps", addresses.http]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as orders:
        assert orders.stdout is not None
        assert orders.stdin is not None
        orders.stdout.readline()
        try:
            yield
        finally:
            orders.stdin.close()
    if orders.returncode:
        raise RuntimeError("a swap failed; it said why above")


def _order(address: str) -> None:
    """Order swaps until standard input ends."""
    number = 0
    with httpx.Client(base_url=address, timeout=30.0) as client:
        client.get("/v2").raise_for_status()
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], 1.0)[0]:
            number += 1
            wanted = {"parameters": {"version": VERSIONS[number % 2]}}
            client.post("/v2/repository/models/probe/load", json=wanted).raise_for_status()


def _usual_s(ask: Ask) -> float:
    """How long a call keeps a caller that rests before it.

    Back to back the same call takes half as long, because neither side has to be woken; a rate taken from that would
    keep the caller busy nearly all the time, and each stall would show in hundreds of calls that wait behind it.
    """
    return median(_open_loop(ask, RESTING_HZ).waits_us) / 1e6


def _open_loop(ask: Ask, rate_hz: float) -> Seen:
    seen = Seen([], set(), 0)
    due = time.perf_counter()
    end = due + SECONDS
    while due < end:
        due += 1 / rate_hz
        # Not a busy wait: on two cores that would take one of them from the server.
        if (left := due - time.perf_counter()) > 0:
            time.sleep(left)
        try:
            seen.versions.add(ask())
        except Exception:  # noqa: BLE001 (whatever it is, it is a failed call)
            seen.failed += 1
        seen.waits_us.append((time.perf_counter() - due) * 1e6)
    return seen


if __name__ == "__main__":
    if sys.argv[1:]:
        _order(sys.argv[1])
    else:
        print("\n".join(report()))
