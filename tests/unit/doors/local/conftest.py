"""A host with the four-pixel classifier, and places for sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.doors.local import door as local_door
from edge_runtime.doors.local.door import LocalDoor
from edge_runtime.serving.host import ModelHost
from tests.fakes.models import Build, write_release


@pytest.fixture(scope="package")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelHost]:
    folder = tmp_path_factory.mktemp("pixels") / "release"
    write_release(folder, [Build("plain")])
    with ModelHost() as host:
        host.load(folder)
        yield host


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(local_door, "RUNTIME_FOLDER", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def door(host: ModelHost, tmp_path: Path) -> Iterator[LocalDoor]:
    with LocalDoor(host, tmp_path / "run" / "models.sock") as door:
        yield door
