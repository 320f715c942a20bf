"""`edge-runtime`: ask a release once, run the device's agent, look at a device's state."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

import typer

from edge_runtime.contract.errors import EdgeError

_COMMANDS: Final = (
    "edge_runtime.cli.run",
    "edge_runtime.cli.serve",
    "edge_runtime.cli.pipeline",
    "edge_runtime.cli.measure",
    "edge_runtime.cli.device",
    "edge_runtime.cli.engine",
)


def assemble() -> typer.Typer:
    """The whole command line, in the order of its help."""
    whole = typer.Typer(
        name="edge-runtime",
        help="Runs releases on this device.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for module in _COMMANDS:
        whole.add_typer(import_module(module).app)
    return whole


app = assemble()


def main() -> None:
    """Entry point: one sentence for an error, no traceback."""
    try:
        app(standalone_mode=True)
    except EdgeError as error:
        sys.stderr.write(f"edge-runtime: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("edge-runtime: interrupted\n")
        sys.exit(130)
