import errno
from pathlib import Path

import pytest

from converters.commands import build as build_command
from converters.errors import CannotWrite
from converters.pipeline import build as build_module


def test_a_disk_that_fills_up_between_stages_is_one_clear_error() -> None:
    with (
        pytest.raises(CannotWrite, match=r"temporary files: No space left on device; free some space, or set TMPDIR"),
        build_module._work_folder() as work,
    ):
        raise OSError(errno.ENOSPC, "No space left on device", str(work))

    assert not work.exists()


def test_no_folder_for_temporary_files_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))

    with pytest.raises(CannotWrite, match="set TMPDIR to another disk"), build_module._work_folder():
        pass


def test_a_report_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match="No such file or directory; the release beside it is whole"):
        build_command._write(tmp_path / "absent" / "rel.report.json", "{}")
