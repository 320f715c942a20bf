"""`edge-runtime`: ask a release once, run the device's agent, look at a device's state."""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module
from typing import Final

import typer

from edge_runtime.cli.output import say, use_any_output
from edge_runtime.contract.errors import EdgeError
from edge_runtime.version import HELP_NAMES, add_version

_COMMANDS: Final = {
    "run": "edge_runtime.cli.run",
    "describe": "edge_runtime.cli.describe",
    "serve": "edge_runtime.cli.serve",
    "pipeline": "edge_runtime.cli.pipeline",
    "bench": "edge_runtime.cli.measure",
    "tune": "edge_runtime.cli.measure",
    "agent": "edge_runtime.cli.device",
    "status": "edge_runtime.cli.device",
    "engine": "edge_runtime.cli.engine",
}
"""Which module has which command, in the order of the help."""


def assemble(command: str | None = None) -> typer.Typer:
    """The whole command line, in the order of its help; of a command that it knows that one's module alone."""
    modules = [_COMMANDS[command]] if command in _COMMANDS else dict.fromkeys(_COMMANDS.values())
    whole = typer.Typer(
        name="edge-runtime",
        help="Runs releases on this device.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings=HELP_NAMES,
    )
    add_version(whole, "edge-runtime")
    for module in modules:
        whole.add_typer(import_module(module).app)
    return whole


def main() -> None:
    """Entry point: one sentence for an error, no traceback."""
    use_any_output()
    # What is odd about a stranger's picture is said in our own words, or does not matter.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        try:
            assemble(*sys.argv[1:2])(standalone_mode=True)
        finally:
            # Here, where a full disk is still one sentence.
            sys.stdout.flush()
    except EdgeError as error:
        say(f"edge-runtime: {error}")
        sys.exit(1)
    except MemoryError:
        say("edge-runtime: cannot go on: there is not enough memory; end other programs")
        sys.exit(1)
    except OSError as error:
        # What stays unwritten would be tried again, and complained about, on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            where = f" {error.filename}" if error.filename else ""
            say(f"edge-runtime: cannot go on{where}: {error.strerror or error}")
        sys.exit(1)
    except KeyboardInterrupt:
        say("edge-runtime: interrupted")
        sys.exit(130)
