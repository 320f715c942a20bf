from pathlib import Path

import pytest

from converters.errors import CannotWrite
from converters.release.packaging import check_destination, write_release
from tests.fakes.models import release_manifest


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_no_release_is_never_replaced_and_force_is_not_advised(tmp_path, force) -> None:
    (tmp_path / "mine").mkdir()

    with pytest.raises(CannotWrite, match=r"is no release; name another folder$"):
        check_destination(tmp_path / "mine", force=force)


def test_an_existing_release_needs_force(tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "oci-layout").touch()

    with pytest.raises(CannotWrite, match=r"exists already; .* add --force$"):
        check_destination(tmp_path / "mine", force=False)
    check_destination(tmp_path / "mine", force=True)


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path) -> None:
    (tmp_path / "file").write_text("no folder")

    with pytest.raises(CannotWrite, match="write release"):
        check_destination(tmp_path / "file" / "release", force=False)


def test_a_full_disk_is_one_message_and_leaves_nothing() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this machine has no /dev/full")

    with pytest.raises(CannotWrite):
        check_destination(full / "release", force=False)


def test_a_failed_write_leaves_no_half_release(tmp_path) -> None:
    target = tmp_path / "gone" / "release"

    with pytest.raises(CannotWrite):
        write_release(target, release_manifest(["a"]), {}, [], [])

    assert list(tmp_path.iterdir()) == []


def test_what_fails_midway_is_swept_away(tmp_path) -> None:
    with pytest.raises(Exception, match=r"cannot use '\.\./x'"):
        write_release(tmp_path / "release", release_manifest(["a"]), {"../x": b""}, [], [])

    assert list(tmp_path.iterdir()) == []
