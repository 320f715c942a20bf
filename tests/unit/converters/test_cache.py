import errno
import os
from pathlib import Path

import pytest

from converters.caching import cache as cache_module
from converters.caching.cache import Cache

KEY, OTHER, THIRD = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def kept(cache: Cache, key: str = KEY, content: bytes = b"weights") -> Path:
    cache.store(key, "compile", "ort-int8", {"model": content})
    return cache.folder / "v1" / key


def test_what_was_stored_is_found_again(cache: Cache) -> None:
    kept(cache)

    assert cache.read(KEY, "model") == b"weights"
    assert cache.read(OTHER, "model") is None
    assert cache.read(KEY, "weights") is None
    assert (cache.has(KEY), cache.has(OTHER)) == (True, False)
    assert cache.problem is None


def test_files_are_restored_into_a_folder(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "sample.npz").write_bytes(b"numbers")
    cache.store(KEY, "calibration", "photos", {"sample.npz": tmp_path / "sample.npz"})
    (tmp_path / "work").mkdir()

    assert cache.restore(KEY, tmp_path / "work")

    assert (tmp_path / "work" / "sample.npz").read_bytes() == b"numbers"


@pytest.mark.parametrize("damage", [b"weighty", b"weight", b""])
def test_a_damaged_file_is_never_handed_out_and_its_entry_goes(cache: Cache, damage: bytes, tmp_path: Path) -> None:
    (kept(cache) / "model").write_bytes(damage)

    assert cache.read(KEY, "model") is None
    assert not (cache.folder / "v1" / KEY).exists()


def test_a_damaged_file_is_never_restored(cache: Cache, tmp_path: Path) -> None:
    (kept(cache) / "model").write_bytes(b"weighty")
    (tmp_path / "work").mkdir()

    assert not cache.restore(KEY, tmp_path / "work")

    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.parametrize(
    "index",
    [b"", b"{", b'{"key":"other","stage":"s","subject":"","files":{}}',
     b'{"key":"' + KEY.encode() + b'","stage":"s","subject":"","files":{"../../secret":{"digest":"","size":1}}}',
     b'{"key":"' + KEY.encode() + b'","stage":"s","subject":"","files":{"a\\u0000":{"digest":"","size":1}}}',
     b'{"zz":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
)  # fmt: skip
def test_a_damaged_index_means_that_nothing_is_there(cache: Cache, index: bytes) -> None:
    (kept(cache) / "entry.json").write_bytes(index)

    assert cache.read(KEY, "model") is None

    assert not (cache.folder / "v1" / KEY).exists()


def test_an_entry_that_another_build_removes_meanwhile_means_that_nothing_is_there(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    cache.store(KEY, "calibration", "photos", {"0.npz": b"first", "1.npz": b"second"})

    def copy_and_trim(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes())
        cache.clear()

    monkeypatch.setattr(cache_module.shutil, "copyfile", copy_and_trim)

    assert not cache.restore(KEY, tmp_path / "work")

    assert list((tmp_path / "work").iterdir()) == []


def test_what_was_copied_before_the_entry_went_is_whole(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    kept(cache)
    digest_of_file = cache_module.digest_of_file

    def look_and_trim(path: Path) -> tuple[str, int]:
        found = digest_of_file(path)
        cache.clear()
        return found

    monkeypatch.setattr(cache_module, "digest_of_file", look_and_trim)

    assert cache.restore(KEY, tmp_path / "work")

    assert (tmp_path / "work" / "model").read_bytes() == b"weights"


def test_a_folder_that_cannot_be_written_costs_no_entry(cache: Cache, tmp_path: Path) -> None:
    kept(cache)

    with pytest.raises(FileNotFoundError):
        cache.restore(KEY, tmp_path / "absent")

    assert cache.read(KEY, "model") == b"weights"


def test_removing_what_is_gone_leaves_nothing_behind(cache: Cache, tmp_path: Path) -> None:
    (kept(cache) / "model").unlink()
    (tmp_path / "work").mkdir()

    assert not cache.restore(KEY, tmp_path / "work")

    assert list((cache.folder / "v1").iterdir()) == []


def test_a_missing_file_means_that_nothing_is_there_and_it_can_be_stored_again(cache: Cache) -> None:
    (kept(cache) / "model").unlink()

    assert cache.read(KEY, "model") is None
    kept(cache)

    assert cache.read(KEY, "model") == b"weights"


def test_storing_twice_keeps_one_entry_and_is_no_problem(cache: Cache) -> None:
    kept(cache)
    kept(cache)

    assert [entry.key for entry in cache.entries()] == [KEY]
    assert cache.problem is None


def test_the_least_recently_used_entry_makes_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=25)
    for age, key in ((200, KEY), (100, OTHER)):
        os.utime(kept(cache, key, b"0123456789") / "entry.json", (1_000_000 - age, 1_000_000 - age))
    cache.read(KEY, "model")

    kept(cache, THIRD, b"0123456789")

    assert {entry.key for entry in cache.entries()} == {KEY, THIRD}


def test_an_entry_larger_than_the_cache_pushes_nothing_out(tmp_path: Path) -> None:
    cache = Cache(tmp_path, max_bytes=25)
    kept(cache, KEY, b"small")

    kept(cache, OTHER, b"x" * 26)

    assert [entry.key for entry in cache.entries()] == [KEY]


def test_clearing_says_how_much_there_was(cache: Cache) -> None:
    kept(cache)

    assert cache.clear() == 1
    assert cache.entries() == []
    assert cache.read(KEY, "model") is None


def test_what_a_killed_build_left_is_removed_a_day_later(cache: Cache) -> None:
    kept(cache)
    old, young = cache.folder / "v1" / ".staged-old", cache.folder / "v1" / ".staged-young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (1_000_000, 1_000_000))

    kept(cache, OTHER)

    assert (old.exists(), young.exists()) == (False, True)


def test_a_folder_that_cannot_be_made_is_a_problem_not_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = Cache(tmp_path / "file" / "cache")

    kept(cache)

    assert cache.read(KEY, "model") is None
    assert cache.problem is not None
    assert "the build goes on without it" in cache.problem


def test_a_full_disk_is_a_problem_not_an_error_and_leaves_no_half_entry(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_module.os, "fsync", full)

    kept(cache)

    assert list((cache.folder / "v1").iterdir()) == []
    assert cache.problem is not None
    assert "No space left on device" in cache.problem
