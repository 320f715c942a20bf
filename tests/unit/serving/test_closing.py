"""A host that is closed while its engine works or hangs: nobody waits for ever, and what comes too late is freed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest

from edge_runtime.contract.errors import ContractError, EdgeError
from edge_runtime.serving.calls import Reply
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.served import Served
from edge_runtime.serving.shadow import Shadow
from tests.fakes.faulty_backend import Faults, FaultyBackend
from tests.unit.serving.releases import about, plain


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain(tmp_path_factory.mktemp("plain"), "1.0.0")


def held(faults: Faults) -> ModelHost:
    return ModelHost(registry={"onnxruntime": FaultyBackend(faults, "onnxruntime")})


def begun(faults: Faults, opened: int, what: Callable[[], Served | Shadow]) -> Future[Served | Shadow]:
    """Something that loads, in a thread of its own, once it is in the engine."""
    crew = ThreadPoolExecutor(1)
    going_on = crew.submit(what)
    crew.shutdown(wait=False)
    while faults.opened < opened:
        pass
    return going_on


def test_what_is_loaded_when_the_host_has_closed_is_freed(release: Path) -> None:
    faults = Faults(blocks_open=threading.Event())
    host = held(faults)
    loading = begun(faults, 1, lambda: host.load(release))
    assert faults.blocks_open is not None

    hung = host.close(0.0)
    faults.blocks_open.set()
    with pytest.raises(ContractError, match="the models were closed"):
        loading.result(60)

    assert hung == ("1 load of model pixels 1.0.0",)
    assert faults.closed.acquire(timeout=60)
    assert host.models() == ()
    assert host.used_bytes == 0


def test_a_closed_host_loads_nothing(release: Path) -> None:
    faults = Faults()
    host = held(faults)
    host.close()

    for change in (host.load, host.swap):
        with pytest.raises(ContractError, match="the models were closed"):
            change(release)

    assert faults.opened == 0


def test_a_candidate_that_is_loaded_when_the_host_has_closed_is_freed(release: Path) -> None:
    faults = Faults()
    host = held(faults)
    host.load(release)
    faults.blocks_open = threading.Event()
    starting = begun(faults, 2, lambda: host.shadow(release))

    host.close()
    was_freed = [faults.closed.acquire(timeout=60)]
    faults.blocks_open.set()
    with pytest.raises(ContractError, match="the models were closed"):
        starting.result(60)
    was_freed.append(faults.closed.acquire(timeout=60))

    assert was_freed == [True, True]


def test_a_model_that_comes_back_into_memory_when_the_host_has_closed_is_freed(release: Path) -> None:
    faults = Faults()
    host = held(faults)
    served = host.load(release)
    outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()
    served._place.live.seating.vacate()
    faults.closed.acquire()
    faults.blocks_open = threading.Event()
    served.submit(about(0), outcomes.put)
    while faults.opened < 2:
        pass

    hung = host.close(0.0)
    faults.blocks_open.set()

    assert hung == ("1 load of model pixels 1.0.0",)
    assert faults.closed.acquire(timeout=60)
    assert outcomes.get(timeout=60)  # whoever waited hears of it, one way or the other
    while host.used_bytes:
        pass


def test_a_candidate_that_hangs_keeps_nobody_from_closing_and_is_named(release: Path, tmp_path: Path) -> None:
    faults = Faults()
    host = held(faults)
    reply = host.load(release).call(about(0))
    shadow = host.shadow(plain(tmp_path, "2.0.0"), share=1.0)
    while faults.running.acquire(blocking=False):
        pass
    faults.blocks = threading.Event()
    shadow.offer(about(0), reply)
    faults.running.acquire()

    hung = host.close(0.0)
    faults.blocks.set()

    assert hung == ("1 call of model pixels 2.0.0",)


def test_calls_that_hang_are_named_and_free_the_memory_when_they_come_back(release: Path) -> None:
    faults = Faults()
    host = held(faults)
    served = host.load(release)
    while faults.running.acquire(blocking=False):
        pass
    faults.blocks = threading.Event()
    outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()
    served.submit(about(0), outcomes.put)
    faults.running.acquire()

    hung = host.close(0.0)
    is_freed_early = faults.closed.acquire(blocking=False)
    faults.blocks.set()

    assert hung == ("1 call of model pixels 1.0.0",)
    assert not is_freed_early
    assert isinstance(outcomes.get(timeout=60), Reply)
    assert faults.closed.acquire(timeout=60)
    assert host.close() == ()
