"""Every command says its version, and helps whoever asks in the short way."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from converters.cli.main import app as convert
from devices.cli import app as device
from edge_runtime.cli.main import assemble
from edge_runtime.version import software_version
from fleet_server.cli.main import build

COMMANDS = {
    "edge-runtime": (assemble, "run"), "edge-convert": (lambda: convert, "build"),
    "edge-fleet": (build, "serve"), "edge-device": (lambda: device, "probe"),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_its_version(name: str) -> None:
    done = CliRunner().invoke(COMMANDS[name][0](), ["--version"])

    assert (done.exit_code, done.output) == (0, f"{name} {software_version()}\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps_in_the_short_way_too(name: str) -> None:
    made, command = COMMANDS[name]

    for arguments in (["-h"], [command, "-h"]):
        done = CliRunner().invoke(made(), arguments)

        assert done.exit_code == 0
        assert "Usage:" in done.output
        assert "-h" in done.output
