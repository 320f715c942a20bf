"""Swaps under saturation, asked directly and through worker threads: nothing fails, nothing mixes, nothing leaks."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.serving.calls import Call, Reply
from edge_runtime.serving.deployment import Deployment
from edge_runtime.serving.host import ModelHost
from tests.fakes.faulty_backend import Faults, FaultyBackend
from tests.fakes.swap_load import Ask, Connect, swap_under_load, write_versions
from tests.unit.serving.releases import about, brightest

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_versions(tmp_path_factory.mktemp("versions"))


def calling(host: ModelHost) -> Connect:
    """Clients that call in their own thread."""

    @contextmanager
    def connect() -> Iterator[Ask]:
        served = host.find("pixels")

        def ask(pixels: npt.NDArray[np.uint8]) -> tuple[str, npt.NDArray[Any]]:
            reply = served.call(Call({"image": pixels}))
            return reply.version, np.asarray(reply.tensors["logits"])

        yield ask

    return connect


def submitting(host: ModelHost) -> Connect:
    """Clients that submit, as event loops do."""

    @contextmanager
    def connect() -> Iterator[Ask]:
        outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()

        def ask(pixels: npt.NDArray[np.uint8]) -> tuple[str, npt.NDArray[Any]]:
            host.find("pixels").submit(Call({"image": pixels}), outcomes.put)
            outcome = outcomes.get(timeout=60)
            if isinstance(outcome, EdgeError):
                raise outcome
            return outcome.version, np.asarray(outcome.tensors["logits"])

        yield ask

    return connect


@pytest.mark.parametrize("how", [calling, submitting])
def test_swaps_under_saturation_lose_and_mix_no_answer(releases: dict[str, Path], how: Any) -> None:
    with ModelHost() as host:
        host.load(releases["1.0.0"])

        seen = swap_under_load(host, releases, how(host), swaps=20)

        assert (seen.failed, seen.mixed) == ([], [])
        assert seen.answers.keys() == releases.keys()
        assert [one.version for one in host.models()] == ["1.0.0"]


@pytest.mark.lab
@pytest.mark.parametrize("how", [calling, submitting])
def test_hundreds_of_swaps_under_saturation_take_no_memory(releases: dict[str, Path], how: Any) -> None:
    with ModelHost() as host:
        host.load(releases["1.0.0"])

        seen = swap_under_load(host, releases, how(host), swaps=500)

        assert (seen.failed, seen.mixed) == ([], [])
        assert seen.growth_bytes < 5 * MIB, f"memory grew by {seen.growth_bytes / MIB:.1f} MiB"


def test_calls_in_flight_end_on_the_version_that_they_began_on(releases: dict[str, Path]) -> None:
    faults = Faults(blocks=None)
    outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()
    with ModelHost(registry={"onnxruntime": FaultyBackend(faults, "onnxruntime")}) as host:
        served = host.load(releases["1.0.0"])
        by_name = host.find("pixels")
        while faults.running.acquire(blocking=False):
            pass
        faults.blocks = threading.Event()
        by_name.submit(about(2), outcomes.put)
        assert faults.running.acquire(timeout=60)
        held, faults.blocks = faults.blocks, None

        swapping = threading.Thread(target=host.swap, args=[releases["2.0.0"]])
        swapping.start()
        while by_name.version != "2.0.0":
            pass
        fresh = by_name.call(about(1))
        is_draining = swapping.is_alive()
        held.set()
        swapping.join(60)
        outcome = outcomes.get(timeout=60)

        assert fresh.version == "2.0.0"
        assert is_draining
        assert isinstance(outcome, Reply)
        assert (outcome.version, brightest(outcome)) == ("1.0.0", 2)
        with pytest.raises(InferenceError):
            served.call(about(0))


def test_versions_that_were_replaced_leave_memory_at_once(releases: dict[str, Path]) -> None:
    with ModelHost() as host:
        host.load(releases["1.0.0"])
        gc.collect()
        gc.disable()
        try:
            swap_under_load(host, releases, calling(host), swaps=12)
            # Other tests may have left theirs in a traceback that pytest keeps.
            known = [one for one in gc.get_objects() if isinstance(one, Deployment)]
            alive = sum(one._keeper is host._keeper for one in known)
        finally:
            gc.enable()

    assert alive == 1
