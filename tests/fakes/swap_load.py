"""Clients that saturate a model while it is swapped again and again, through whichever door; and what they saw.

Two releases whose answers differ in the third digit: an answer must fit the version that it names.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_runtime.serving.host import ModelHost
from tests.fakes.models import WEIGHTS
from tests.fakes.pixels import picture, write_pixels

SCALES: Mapping[str, float] = {"1.0.0": 1.0, "2.0.0": 1.01}
"""By which each version multiplies its answers."""

Ask = Callable[[npt.NDArray[np.uint8]], tuple[str, npt.NDArray[Any]]]
"""One client's question: a picture uint8 [1, 2, 2, 1] gives the version that answered and its logits [1, 4]."""

Connect = Callable[[], AbstractContextManager[Ask]]
"""Opens one client; each thread has one of its own."""

_SETTLING = 50
"""Swaps after which memory is expected to stay where it is."""


@dataclass
class Seen:
    """What all clients saw."""

    answers: dict[str, int] = field(default_factory=dict)
    """By version."""
    failed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    """Answers that do not fit the version that they name."""
    growth_bytes: int = 0
    """Resident memory at the end, beyond what it was after the first swaps."""


def write_versions(folder: Path) -> dict[str, Path]:
    """Both releases, by version."""
    layouts = {version: folder / version for version in SCALES}
    for version, scale in SCALES.items():
        write_pixels(layouts[version], version, weights=(WEIGHTS * scale).astype(np.float32))
    return layouts


def swap_under_load(
    host: ModelHost, releases: Mapping[str, Path], connect: Connect, *, swaps: int, clients: int = 4
) -> Seen:
    """Swap between the releases while clients ask without a pause; the first release must be loaded already.

    Args:
        host: what is swapped.
        releases: as `write_versions` gives them.
        connect: opens a client.
        swaps: how often.
        clients: threads that ask.
    """
    seen, lock, ended = Seen(), threading.Lock(), threading.Event()
    asking = threading.Barrier(clients + 1)

    def client() -> None:
        answers: dict[str, int] = {}
        failed: list[str] = []
        mixed: list[str] = []
        with connect() as ask:
            asking.wait(60)
            while not ended.is_set():
                brightest = sum(answers.values()) % 4
                _ask_once(ask, brightest, answers, failed, mixed)
        with lock:
            for version, count in answers.items():
                seen.answers[version] = seen.answers.get(version, 0) + count
            seen.failed.extend(failed[:10])
            seen.mixed.extend(mixed[:10])

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        asking.wait(60)
        settled = 0
        order = list(releases.values())
        for number in range(swaps):
            host.swap(order[(number + 1) % len(order)])
            if number + 1 == min(_SETTLING, swaps // 2):
                settled = resident_bytes()
        seen.growth_bytes = resident_bytes() - settled
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
    return seen


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _ask_once(ask: Ask, brightest: int, answers: dict[str, int], failed: list[str], mixed: list[str]) -> None:
    pixels = picture(brightest)[None]
    try:
        version, logits = ask(pixels)
    except Exception as error:  # noqa: BLE001 - whatever a client raises is a failed request
        failed.append(f"{type(error).__name__}: {error}")
        return
    answers[version] = answers.get(version, 0) + 1
    expected = pixels.reshape(1, 4) / 255.0 @ WEIGHTS * SCALES.get(version, float("nan"))
    if not np.allclose(logits, expected, rtol=1e-4, atol=1e-6):
        mixed.append(f"version {version} answered {logits}, not {expected}")
