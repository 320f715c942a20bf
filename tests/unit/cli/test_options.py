"""What is said of an option before any release is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_runtime.cli.main import assemble
from edge_runtime.contract.errors import ContractError, InferenceError
from tests.fakes.pixels import write_pixels


@pytest.mark.parametrize("command", ["bench", "run", "serve", "tune"])
def test_an_engine_that_does_not_exist_is_named_with_those_that_do(command: str) -> None:
    wanted = [command, "release", *(["photo.jpg"] if command == "run" else []), "--backend", "tflite-runtime"]

    done = CliRunner().invoke(assemble(command), wanted)

    assert isinstance(done.exception, InferenceError)
    assert "cannot use engine 'tflite-runtime'" in str(done.exception)
    assert "litert, tensorrt, tflite_runtime" in str(done.exception)


def test_engines_that_exist_are_let_through_to_the_release() -> None:
    done = CliRunner().invoke(
        assemble("run"), ["run", "nowhere", "photo.jpg", "--backend", "litert", "--backend", "tflite_runtime"]
    )

    assert "there is no such folder" in str(done.exception)


@pytest.mark.parametrize("command", ["bench", "describe", "run", "tune"])
def test_a_slot_of_a_release_folder_is_refused(tmp_path: Path, command: str) -> None:
    write_pixels(tmp_path, "1.0.0")
    wanted = [command, str(tmp_path), *(["photo.jpg"] if command == "run" else []), "--slot", "main"]

    done = CliRunner().invoke(assemble(command), wanted)

    assert isinstance(done.exception, ContractError)
    assert str(done.exception).startswith("cannot choose slot 'main': ")
    assert "is no device's state_dir, and only that has slots; leave --slot out" in str(done.exception)
