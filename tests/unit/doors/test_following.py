"""A server on a device goes along with what the agent activates, and survives what it cannot load."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import SlotId, parse_slot_id, target_path
from edge_runtime.contract.layout import LayoutFolder
from edge_runtime.doors.following import Following
from edge_runtime.installed import DATABASE, POINTERS, STORE, InstalledBuild, installed_builds
from edge_runtime.serving.host import ModelHost
from edge_runtime.update.pointers import SlotPointers
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore
from tests.fakes.models import WEIGHTS
from tests.fakes.pixels import write_pixels

MAIN = parse_slot_id("main")


class Device:
    """A state folder, as an agent leaves it."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        (self.state / DATABASE).touch()
        self._layouts = folder / "layouts"
        self._store = ContentStore(self.state / STORE)
        self._pointers = SlotPointers(self.state / POINTERS)

    def activate(self, version: str, seq: int, *, works: bool = True) -> None:
        layout = self._layouts / version
        write_pixels(layout, version, weights=WEIGHTS if works else np.flipud(WEIGHTS))
        folder = LayoutFolder(layout)
        for blob in folder.blobs():
            self._store.put(folder.read_blob(blob, max_bytes=blob.size))
        release = folder.open()
        [variant] = release.index.variants
        self._pointers.activate(
            MAIN,
            Activation(
                seq, target_path(release.manifest.name, release.manifest.version), release.digest,
                release.index.size_bytes, variant.id, variant.digest, {},
            ),
        )  # fmt: skip


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


@pytest.fixture
def host() -> Iterator[ModelHost]:
    with ModelHost() as host:
        yield host


def test_what_the_agent_activates_answers_from_then_on(host: ModelHost, device: Device) -> None:
    device.activate("1.0.0", 1)
    following = Following(host, device.state)
    first = host.find("pixels").version

    device.activate("2.0.0", 2)
    following.look()

    assert (first, host.find("pixels").version) == ("1.0.0", "2.0.0")
    assert [one.version for one in host.models()] == ["2.0.0"]


def test_what_somebody_unloaded_meanwhile_is_served_again_by_its_next_build(host: ModelHost, device: Device) -> None:
    device.activate("1.0.0", 1)
    following = Following(host, device.state)
    host.unload("pixels")

    device.activate("2.0.0", 2)
    following.look()

    assert host.find("pixels").version == "2.0.0"


def test_the_same_build_is_not_loaded_again(host: ModelHost, device: Device) -> None:
    device.activate("1.0.0", 1)
    following = Following(host, device.state)
    [before] = host.models()

    device.activate("1.0.0", 7)
    following.look()

    [after] = host.models()
    assert after._place.live is before._place.live


def test_a_build_that_cannot_be_served_leaves_its_predecessor_in_place(host: ModelHost, device: Device) -> None:
    device.activate("1.0.0", 1)
    following = Following(host, device.state)

    device.activate("2.0.0", 2, works=False)
    following.look()
    following.look()

    assert host.find("pixels").version == "1.0.0"


def test_a_device_that_runs_nothing_yet_is_named(host: ModelHost, device: Device) -> None:
    with pytest.raises(ContractError, match="nothing is installed"):
        Following(host, device.state)


def test_it_looks_by_itself_until_it_is_left(host: ModelHost, device: Device) -> None:
    device.activate("1.0.0", 1)
    with Following(host, device.state, look_every_s=0.01) as following:
        device.activate("2.0.0", 2)
        while host.find("pixels").version != "2.0.0":
            time.sleep(0.01)

    assert not following._thread.is_alive()


def test_a_look_that_fails_in_any_way_is_not_the_last(
    host: ModelHost, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.activate("1.0.0", 1)
    failures: list[OSError] = []

    def short_of_files(state_dir: Path) -> dict[SlotId, InstalledBuild]:
        if not failures:
            failures.append(OSError(errno.EMFILE, "Too many open files"))
            raise failures[0]
        return installed_builds(state_dir)

    with Following(host, device.state, look_every_s=0.01):
        monkeypatch.setattr("edge_runtime.doors.following.installed_builds", short_of_files)
        device.activate("2.0.0", 2)
        give_up = time.monotonic() + 30
        while host.find("pixels").version == "1.0.0" and time.monotonic() < give_up:
            time.sleep(0.01)
        now = host.find("pixels").version

    assert (len(failures), now) == (1, "2.0.0")
