"""One real fleet server for all of these tests; each brings devices of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.agents import Fleet, running_fleet
from tests.fakes.pixels import write_source


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A server with its broker."""
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def _agents_end_with_their_test(fleet: Fleet) -> Iterator[None]:
    """What one test started must not slow the next one down."""
    yield
    fleet.stop_agents()


@pytest.fixture(scope="session")
def release(fleet: Fleet) -> Path:
    """A pushed release that works everywhere."""
    return fleet.release("1.0.0")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of which three quarters are labelled rightly."""
    return write_source(tmp_path_factory.mktemp("source") / "pictures")
