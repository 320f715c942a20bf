"""Shared memory of strangers: only what lies below the folder, is a file of ours, and is still as large as it was."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_runtime.contract.errors import ContractError, InferenceError
from edge_runtime.doors.v2.regions import (
    REGIONS_MAX,
    RegionRange,
    RegionStatus,
    SystemRegions,
    parse_prefix,
    read_range,
)
from edge_runtime.serving.calls import BadCall
from tests.fakes.open_files import open_files


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[SystemRegions]:
    registry = SystemRegions(folder=tmp_path)
    yield registry
    registry.close()


def registered(regions: SystemRegions, folder: Path, *, offset: int = 0, size: int = 8) -> Path:
    path = folder / "key"
    path.write_bytes(bytes(range(16)))
    regions.register(RegionStatus("r", "/key", offset, size))
    return path


def test_what_is_written_is_read_from_the_same_place(regions: SystemRegions, tmp_path: Path) -> None:
    path = registered(regions, tmp_path, offset=4)

    regions.write(RegionRange("r", 2, 3), memoryview(b"abc"))

    assert bytes(regions.read(RegionRange("r", 0, 8))) == b"\x04\x05abc\x09\x0a\x0b"
    assert path.read_bytes() == bytes(range(6)) + b"abc" + bytes(range(9, 16))


@pytest.mark.parametrize("key", ["", "/", ".", "..", "../key", "a/b", "/a/b", "x\0y", "k" * 256])
def test_a_key_that_is_no_plain_name_is_refused(regions: SystemRegions, key: str) -> None:
    with pytest.raises(BadCall, match="is no name of a shared memory object"):
        regions.register(RegionStatus("r", key, 0, 1))


def test_links_pipes_folders_and_missing_keys_are_refused(regions: SystemRegions, tmp_path: Path) -> None:
    secret = tmp_path.parent / "secret"
    secret.write_bytes(bytes(8))
    (tmp_path / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()

    for key in ("link", "pipe", "folder", "missing"):
        with pytest.raises(BadCall):
            regions.register(RegionStatus("r", key, 0, 1))
    assert regions.statuses() == []


def test_objects_with_other_names_than_the_operator_shares_are_refused(tmp_path: Path) -> None:
    for name in ("camera_1", "camera", "a_camera_1"):
        (tmp_path / name).write_bytes(bytes(8))
    regions = SystemRegions(parse_prefix("camera_*"), tmp_path)

    regions.register(RegionStatus("mine", "/camera_1", 0, 8))
    for key in ("/camera", "a_camera_1", "/../camera_1"):
        with pytest.raises(BadCall, match="does not begin with camera_"):
            regions.register(RegionStatus("theirs", key, 0, 8))

    assert [status.name for status in regions.statuses()] == ["mine"]
    regions.close()


def test_where_no_memory_is_shared_nothing_is_opened_and_cleaning_up_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(8))
    regions = SystemRegions(parse_prefix("off"), tmp_path)

    with pytest.raises(InferenceError, match="takes no shared memory"):
        regions.register(RegionStatus("r", "/key", 0, 8))
    regions.unregister()

    assert regions.statuses() == []


@pytest.mark.parametrize("text", ["", "*", "camera", "a/b*", "../*", "yes", "a*b*", "x" * 256 + "*"])
def test_what_is_no_prefix_is_said(text: str) -> None:
    with pytest.raises(ContractError, match=r"write on, off or NAME\*"):
        parse_prefix(text)


def test_a_file_of_another_user_is_refused(
    regions: SystemRegions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_bytes(bytes(8))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(BadCall, match="belongs to another user"):
        regions.register(RegionStatus("r", "key", 0, 8))


@pytest.mark.parametrize(("offset", "size"), [(0, 17), (9, 8), (-1, 4), (0, 0), (1 << 63, 1)])
def test_a_region_that_the_file_does_not_hold_is_refused(
    regions: SystemRegions, tmp_path: Path, offset: int, size: int
) -> None:
    with pytest.raises(BadCall):
        registered(regions, tmp_path, offset=offset, size=size)


@pytest.mark.parametrize(("offset", "size"), [(0, 9), (8, 1), (-1, 1), (1 << 62, 1)])
def test_nothing_outside_the_region_is_touched(regions: SystemRegions, tmp_path: Path, offset: int, size: int) -> None:
    path = registered(regions, tmp_path, offset=4)

    with pytest.raises(BadCall, match="outside"):
        regions.write(RegionRange("r", offset, size), memoryview(bytes(max(size, 0))[:16]))
    with pytest.raises(BadCall, match="outside"):
        regions.read(RegionRange("r", offset, size))
    assert path.read_bytes() == bytes(range(16))


def test_copies_are_bounded_and_make_room_when_nobody_looks_at_them_any_more(tmp_path: Path) -> None:
    regions = SystemRegions(folder=tmp_path, copies_bytes=20)
    registered(regions, tmp_path)
    whole = RegionRange("r", 0, 8)
    held = [np.frombuffer(regions.read(whole), np.uint8), regions.read(whole)]

    with pytest.raises(InferenceError, match="4 are left for all callers") as caught:
        regions.read(whole)
    held.pop(0)

    assert caught.value.code == "overloaded"
    assert bytes(regions.read(whole)) == bytes(range(8))
    regions.close()


def test_an_output_larger_than_its_place_is_not_written(regions: SystemRegions, tmp_path: Path) -> None:
    path = registered(regions, tmp_path)

    with pytest.raises(BadCall, match="4 bytes, 3 are given"):
        regions.write(RegionRange("r", 0, 3), memoryview(b"long"))
    assert path.read_bytes() == bytes(range(16))


def test_a_region_that_shrank_is_an_error_and_does_not_grow_again(regions: SystemRegions, tmp_path: Path) -> None:
    path = registered(regions, tmp_path)
    os.truncate(path, 4)

    for use in (lambda: regions.read(RegionRange("r", 0, 8)), lambda: regions.write(RegionRange("r", 0, 8), _EIGHT)):
        with pytest.raises(BadCall, match="smaller"):
            use()
    assert path.stat().st_size == 4


def test_a_name_is_taken_until_it_is_unregistered(regions: SystemRegions, tmp_path: Path) -> None:
    registered(regions, tmp_path)

    with pytest.raises(BadCall, match="unregister it first"):
        regions.register(RegionStatus("r", "key", 0, 4))
    regions.unregister("r")
    regions.register(RegionStatus("r", "key", 0, 4))

    assert [one.byte_size for one in regions.statuses()] == [4]
    assert regions.statuses("r") == regions.statuses()


def test_a_region_that_nobody_registered_is_named(regions: SystemRegions) -> None:
    regions.unregister("r")

    for use in (lambda: regions.statuses("r"), lambda: regions.read(RegionRange("r", 0, 1))):
        with pytest.raises(BadCall, match=r"'r'.*registered"):
            use()


def test_regions_are_bounded_and_give_their_descriptors_back(regions: SystemRegions, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(8))
    before = open_files(is_first_look=True)
    for number in range(REGIONS_MAX):
        regions.register(RegionStatus(f"r{number}", "key", 0, 8))

    with pytest.raises(BadCall, match="256 regions"):
        regions.register(RegionStatus("more", "key", 0, 8))
    regions.unregister()

    assert open_files() == before


@pytest.mark.parametrize(
    "parameters",
    [
        {"shared_memory_region": 1, "shared_memory_byte_size": 4},
        {"shared_memory_region": "r"},
        {"shared_memory_region": "r", "shared_memory_byte_size": -4},
        {"shared_memory_region": "r", "shared_memory_byte_size": True},
        {"shared_memory_region": "r", "shared_memory_byte_size": 4, "shared_memory_offset": "0"},
    ],
)
def test_parameters_that_describe_no_range_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(BadCall, match="'image'"):
        read_range("image", parameters)


_EIGHT = memoryview(bytes(8))
