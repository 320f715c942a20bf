"""Who may come to the local door, and what it leaves behind."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.client import Refused
from edge_runtime.client.local import LocalClient
from edge_runtime.contract.errors import TransportError
from edge_runtime.doors.local.door import LocalDoor
from edge_runtime.serving.host import ModelHost
from tests.fakes.models import Build, write_release
from tests.fakes.open_files import open_files

PIXELS = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
MANY = np.ones((5000, 1, 2, 2), np.float32)
STRANGER = 4242


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_its_own_user_can_reach_the_socket(door: LocalDoor) -> None:
    assert _mode(door.path) == 0o600
    assert _mode(door.path.parent) == 0o700


def test_folders_that_were_made_for_the_socket_go_with_it_and_no_others(
    host: ModelHost, runtime_folder: Path
) -> None:
    (runtime_folder / "own").mkdir(parents=True)
    shared = runtime_folder / "shared" / "s"

    for path in (runtime_folder / "a" / "b" / "s", runtime_folder / "own" / "s", shared):
        with LocalDoor(host, path):
            if path is shared:
                (path.parent / "neighbour").touch()
    with pytest.raises(TransportError, match="listen on"), LocalDoor(host, runtime_folder / "c" / ("s" * 200)):
        pass

    assert sorted(one.name for one in runtime_folder.iterdir() if one.is_dir()) == ["own", "shared"]
    assert [one.name for one in shared.parent.iterdir()] == ["neighbour"]


def test_a_folder_that_is_missing_elsewhere_is_not_made(host: ModelHost, tmp_path: Path) -> None:
    path = tmp_path / "mistyped" / "edge" / "s"

    with pytest.raises(TransportError) as refused:
        LocalDoor(host, path).start()

    assert f"cannot listen on {path}: there is no folder {path.parent}; make it, or" in str(refused.value)
    assert not (tmp_path / "mistyped").exists()


def test_another_user_is_turned_away(host: ModelHost, tmp_path: Path) -> None:
    with LocalDoor(host, tmp_path / "s", identify=lambda peer: STRANGER) as door:
        with pytest.raises(Refused, match=f"user {STRANGER} may not use it") as refused:
            LocalClient(str(door.path))

        assert refused.value.code == "unauthorized"
        assert door.statistics().turned_away == 1


def test_another_user_who_is_named_is_served_from_copies(host: ModelHost, tmp_path: Path) -> None:
    with LocalDoor(host, tmp_path / "run" / "s", users=[STRANGER], identify=lambda peer: STRANGER) as door:
        assert _mode(door.path) == 0o666
        with LocalClient(str(door.path)) as client:
            assert client.infer("pixels", {"x": MANY})["logits"].tolist() == [[2.0] * 4] * 5000  # type: ignore[union-attr]


@pytest.mark.parametrize(("caller", "is_looked_at"), [(os.geteuid(), False), (STRANGER, True)])
def test_nan_is_looked_for_in_what_strangers_send(tmp_path: Path, caller: int, is_looked_at: bool) -> None:
    write_release(tmp_path / "release", [Build("plain")])
    with (
        ModelHost(nan="reject") as host,
        LocalDoor(host, tmp_path / "s", users=[STRANGER], identify=lambda peer: caller) as door,
        LocalClient(str(door.path)) as client,
    ):
        host.load(tmp_path / "release")
        unknown = np.full((1, 1, 2, 2), np.nan, np.float32)

        if is_looked_at:
            with pytest.raises(Refused, match="NaN"):
                client.infer("pixels", {"x": unknown})
        else:
            assert np.isnan(client.infer("pixels", {"x": unknown})["logits"]).any()


def test_what_a_process_that_has_gone_left_behind_is_replaced(host: ModelHost, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))

    with LocalDoor(host, path), LocalClient(str(path)) as client:
        assert client.infer("pixels", {"x": PIXELS}).model == "pixels"


def test_a_path_on_which_somebody_listens_is_refused(door: LocalDoor, host: ModelHost) -> None:
    with pytest.raises(TransportError, match="another process listens"):
        LocalDoor(host, door.path).start()

    with LocalClient(str(door.path)) as client:
        assert client.models()


def test_a_file_that_is_no_socket_is_left_alone(host: ModelHost, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")

    with pytest.raises(TransportError, match="no socket"):
        LocalDoor(host, tmp_path / "precious").start()

    assert (tmp_path / "precious").read_text() == "data"


def test_a_path_that_is_too_long_is_refused(host: ModelHost, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="107 bytes"):
        LocalDoor(host, tmp_path / ("x" * 120)).start()


def test_closing_takes_the_socket_away_and_hangs_up(host: ModelHost, tmp_path: Path) -> None:
    before = open_files(is_first_look=True)
    with LocalDoor(host, tmp_path / "s") as door, LocalClient(str(tmp_path / "s")) as client:
        client.infer("pixels", {"x": MANY})
        door.stop(10)

        assert not door.path.exists()
        assert door.statistics().connections == 0
    assert open_files() == before


def test_closing_leaves_the_socket_of_a_successor(host: ModelHost, tmp_path: Path) -> None:
    first = LocalDoor(host, tmp_path / "s")
    first.start()
    (tmp_path / "s").unlink()
    with LocalDoor(host, tmp_path / "s"):
        first.stop(10)

        with LocalClient(str(tmp_path / "s")) as client:
            assert client.models()


def test_calls_are_counted(host: ModelHost, tmp_path: Path) -> None:
    with LocalDoor(host, tmp_path / "s") as door, LocalClient(str(tmp_path / "s")) as client:
        client.infer("pixels", {"x": PIXELS})
        with pytest.raises(Refused):
            client.infer("cats", {"x": PIXELS})

        statistics = door.statistics()

    assert (statistics.answered, statistics.refused, statistics.turned_away) == (1, 1, 0)
