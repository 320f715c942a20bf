"""The device's configuration file: what it says is checked before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.contract.errors import ContractError
from edge_runtime.inference.backend import BACKENDS
from edge_runtime.settings import read_settings


def written(folder: Path, text: str) -> Path:
    path = folder / "device.toml"
    path.write_text(text)
    return path


def test_the_smallest_file_names_device_and_state_folder(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, 'device = "cam-1"\nstate_dir = "state"\nenrolment = "e.json"\n'))

    assert settings.state_dir == tmp_path / "state"
    assert settings.enrolment == tmp_path / "e.json"
    assert (settings.slots, settings.unsafe_disable) == (["main"], [])


@pytest.mark.parametrize(
    "line",
    [
        "memory_byte = 1",
        "memory_bytes = 0",
        "link_bytes_per_s = -1.0",
        "clock_offset_s = inf",
        "poll_interval_s = nan",
        "source_interval_s = 0",
        "slots = []",
        'slots = ["a", "a"]',
        'slots = ["A"]',
        'log_level = "loud"',
        'backends = ["abacus"]',
        'unsafe_disable = ["everything"]',
        'state_dir = "twice"',
        "labels = 3",
        "= broken",
    ],
)
def test_a_key_or_value_that_cannot_be_meant_is_refused_by_name_of_the_file(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, f'device = "cam-1"\nstate_dir = "state"\n{line}\n')

    with pytest.raises(ContractError, match=r"device\.toml"):
        read_settings(path)


def test_a_device_id_that_could_not_be_a_topic_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="device id"):
        read_settings(written(tmp_path, 'device = "cam/+"\nstate_dir = "state"\n'))


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="No such file"):
        read_settings(tmp_path / "device.toml")


def test_a_misspelt_key_is_answered_with_the_right_one(tmp_path: Path) -> None:
    path = written(tmp_path, 'device = "cam-1"\nstate_dirr = "state"\n')

    with pytest.raises(ContractError, match="write state_dir instead of state_dirr"):
        read_settings(path)


def test_every_engine_that_there_is_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, f'device = "cam-1"\nstate_dir = "state"\nbackends = {list(BACKENDS)}\n')

    assert set(read_settings(path).backends) == set(BACKENDS)
