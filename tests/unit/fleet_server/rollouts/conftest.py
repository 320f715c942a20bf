"""A fleet of three devices per test; making it costs, so it is made once and copied."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.contract.ids import DeviceId
from fleet_server.db import Database
from tests.fakes.fleet import Bells, PlayedDevice, PlayedFleet, database_url, make_fleet

NAMES = ("cam-1", "cam-2", "cam-3")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fleet in which nothing has happened yet."""
    folder = tmp_path_factory.mktemp("fleet")
    made = make_fleet(folder)
    for name in NAMES:
        made.add_device(name, site="lab")
    made.database.close()
    return folder


@pytest.fixture
def fleet(template: Path, tmp_path: Path) -> Iterator[PlayedFleet]:
    """Three equal devices that run nothing yet."""
    folder = shutil.copytree(template, tmp_path / "fleet")
    opened = PlayedFleet(folder, Database(database_url(folder)), Bells())
    opened.devices = {name: PlayedDevice(opened, DeviceId(name)) for name in NAMES}
    yield opened
    opened.database.close()
