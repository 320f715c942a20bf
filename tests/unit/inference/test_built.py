"""What engines build is kept where only this user can write, by variant and machine, and not for ever."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from edge_runtime.contract.digest import digest_of, hex_of
from edge_runtime.contract.ids import SlotId
from edge_runtime.inference.built import default_folder, folder_of, private_folder
from edge_runtime.inference.facts import machine_facts
from edge_runtime.installed import POINTERS, STORE, open_installed
from edge_runtime.update.contents import blobs_to_keep
from edge_runtime.update.pointers import SlotPointers
from edge_runtime.update.store import ContentStore
from tests.fakes.installed import write_state
from tests.fakes.models import Build, write_release

FACTS = machine_facts([])
VARIANT = digest_of(b"variant")


def test_another_variant_machine_or_version_has_another_folder(tmp_path: Path) -> None:
    other = msgspec.structs.replace(FACTS, cpu="another")
    places = [folder_of(tmp_path, VARIANT, FACTS), folder_of(tmp_path, digest_of(b"x"), FACTS),
              folder_of(tmp_path, VARIANT, other)]  # fmt: skip

    folders = {private_folder(place, version) for place in places for version in ("engine-1", "engine-2")}

    assert len(folders) == 6
    assert all(folder is not None and folder.is_dir() and tmp_path in folder.parents for folder in folders)
    assert {path.name for path in tmp_path.iterdir()} == {hex_of(VARIANT), hex_of(digest_of(b"x"))}


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_folder_that_others_can_write_is_not_used(tmp_path: Path, level: int) -> None:
    place = folder_of(tmp_path, VARIANT, FACTS)
    folder = private_folder(place, "engine-1")
    assert folder is not None

    [folder, place, place.parent][level].chmod(0o777)

    assert private_folder(place, "engine-1") is None


def test_folders_are_made_for_this_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = private_folder(folder_of(tmp_path / "base", VARIANT, FACTS), "engine-1")
    finally:
        os.umask(before)

    assert folder is not None
    assert [place.stat().st_mode & 0o077 for place in (folder, folder.parent, folder.parent.parent)] == [0, 0, 0]


def test_the_variant_that_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    variants = [digest_of(str(number).encode()) for number in range(40)]
    for age, variant in enumerate(reversed(variants)):
        (tmp_path / hex_of(variant)).mkdir(mode=0o700)
        os.utime(tmp_path / hex_of(variant), (1e9 - age, 1e9 - age))

    private_folder(folder_of(tmp_path, variants[0], FACTS), "engine-1")

    left = {path.name for path in tmp_path.iterdir()}
    assert left == {hex_of(variant) for variant in (variants[0], *variants[-31:])}


def test_what_is_built_of_an_installed_variant_lies_in_its_store_and_goes_with_it(tmp_path: Path) -> None:
    build = Build("kept", options={"trt_engine_cache_enable": True})
    write_release(tmp_path / "release", [build])
    state = write_state(tmp_path / "state", tmp_path / "release")
    store = ContentStore(state / STORE)

    with open_installed(state) as model:
        digest = model.variant.digest
    current = SlotPointers(state / POINTERS).read(SlotId("main")).current
    assert current is not None
    built = [path.name for path in store.built.iterdir()]
    store.sweep(blobs_to_keep(store, [current], []))
    left = [path.name for path in store.built.iterdir()]
    store.sweep(set())

    assert built == left == [hex_of(digest)]
    assert list(store.built.iterdir()) == []


def test_without_a_place_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert private_folder(None, "engine-1") is None
    assert private_folder(tmp_path / "file" / "v" / "m", "engine-1") is None
    assert default_folder() == tmp_path / "edgefleet" / "built"
