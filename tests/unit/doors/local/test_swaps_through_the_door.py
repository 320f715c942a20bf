"""A model is swapped while clients saturate it through the local door; a door that stops lets calls under way end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.client import ServerGone
from edge_runtime.client.local import LocalClient
from edge_runtime.doors.local.door import LocalDoor
from edge_runtime.serving.host import ModelHost
from tests.fakes.faulty_backend import Faults, FaultyBackend
from tests.fakes.pixels import picture
from tests.fakes.swap_load import Ask, Connect, Seen, swap_under_load, write_versions

MIB = 1024 * 1024
KINDS = pytest.mark.parametrize("kind", ["shared memory", "stream", "buffers"])


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_versions(tmp_path_factory.mktemp("versions"))


def through(path: Path, kind: str) -> Connect:
    @contextmanager
    def connect() -> Iterator[Ask]:
        with LocalClient(str(path), shared_memory=kind != "stream") as client:

            def ask(pixels: npt.NDArray[np.uint8]) -> tuple[str, npt.NDArray[Any]]:
                if kind == "shared memory":
                    # With enough beside it for shared memory to pay.
                    many = np.resize((pixels / 255).astype(np.float32), (4096, 1, 2, 2))
                    answer = client.infer("pixels", {"x": many})
                else:
                    answer = client.infer("pixels", {"image": pixels})
                return answer.version, np.asarray(answer["logits"])[:1]

            if kind != "buffers":
                yield ask
                return
            with client.buffers("pixels", {"image": (1, 2, 2, 1)}) as buffers:

                def ask_in_place(pixels: npt.NDArray[np.uint8]) -> tuple[str, npt.NDArray[Any]]:
                    buffers["image"][...] = pixels
                    answer = buffers.infer()
                    return answer.version, np.array(answer["logits"])

                yield ask_in_place

    return connect


def swapped(releases: dict[str, Path], path: Path, kind: str, swaps: int) -> Seen:
    with ModelHost() as host, LocalDoor(host, path):
        host.load(releases["1.0.0"])
        return swap_under_load(host, releases, through(path, kind), swaps=swaps)


@KINDS
def test_swaps_under_saturation_lose_and_mix_no_answer(releases: dict[str, Path], tmp_path: Path, kind: str) -> None:
    seen = swapped(releases, tmp_path / "s", kind, swaps=10)

    assert (seen.failed, seen.mixed) == ([], [])
    assert seen.answers.keys() == releases.keys()


@pytest.mark.lab
@KINDS
def test_hundreds_of_swaps_under_saturation_take_no_memory(
    releases: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    seen = swapped(releases, tmp_path / "s", kind, swaps=500)

    assert (seen.failed, seen.mixed) == ([], [])
    assert seen.growth_bytes < 5 * MIB, f"memory grew by {seen.growth_bytes / MIB:.1f} MiB"


def test_a_door_that_stops_lets_calls_under_way_end(releases: dict[str, Path], tmp_path: Path) -> None:
    faults = Faults()
    path = tmp_path / "s"
    with (
        ModelHost(registry={"onnxruntime": FaultyBackend(faults, "onnxruntime")}) as host,
        LocalDoor(host, path) as door,
        LocalClient(str(path)) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        host.load(releases["1.0.0"])
        while faults.running.acquire(blocking=False):
            pass
        faults.blocks = threading.Event()
        asked = threads.submit(client.infer, "pixels", {"image": picture(2)[None]})
        assert faults.running.acquire(timeout=60)
        stopping = threads.submit(door.stop, 60)
        while path.exists():
            pass
        faults.blocks.set()

        assert np.argmax(asked.result(60)["logits"]) == 2
        stopping.result(60)
        with pytest.raises(ServerGone):
            client.infer("pixels", {"image": picture(2)[None]})
