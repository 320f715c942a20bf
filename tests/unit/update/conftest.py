from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.update_world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A device that has just been switched on for the first time."""
    world = World(tmp_path)
    world.boot()
    yield world
    world.close()
