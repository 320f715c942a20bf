"""`edge-fleet`: one command per use case; errors leave as one sentence and exit code 1."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Final

import typer

from edge_runtime.contract.errors import EdgeError
from edge_runtime.interrupt import raise_on_interrupt
from edge_runtime.version import HELP_NAMES, add_version

_GROUPS: Final = {
    "devices": "fleet_server.cli.devices",
    "releases": "fleet_server.cli.releases",
    "rollouts": "fleet_server.cli.rollouts",
    "keys": "fleet_server.cli.keys",
}
_COMMANDS: Final = ("fleet_server.cli.serve", "fleet_server.cli.audit")


def build() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        help="The fleet server and everything one asks of it.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        context_settings=HELP_NAMES,
    )
    add_version(app, "edge-fleet")
    for module in _COMMANDS:
        app.add_typer(import_module(module).app)
    for name, module in _GROUPS.items():
        if find_spec(module) is not None:
            app.add_typer(import_module(module).app, name=name, no_args_is_help=True)
    return app


def main() -> None:
    """Entry point."""
    app = build()
    # A server and a watched rollout have something to say, or to end, when they are interrupted.
    raise_on_interrupt()
    try:
        app()
    except EdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
