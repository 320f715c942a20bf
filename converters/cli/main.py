"""`edge-convert`: check a model, write a recipe, build a release, make keys, sign; see what works here."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

import typer

from converters.cli.options import EXIT_USER_ERROR
from edge_runtime.contract.errors import EdgeError
from edge_runtime.terminal import fitted
from edge_runtime.version import HELP_NAMES, add_version

_COMMANDS: Final = (
    "converters.cli.check",
    "converters.cli.build",
    "converters.cli.sign",
    "converters.cli.compare",
    "converters.cli.doctor",
)
_GROUPS: Final = {"cache": "converters.cli.cache", "toolchain": "converters.cli.toolchain"}
"""Modules whose commands stand below a word of their own."""


def assemble() -> typer.Typer:
    """The whole command line, in the order of its help."""
    whole = typer.Typer(
        help="A trained model becomes a signed release.",
        no_args_is_help=True,
        add_completion=False,
        context_settings=HELP_NAMES,
    )
    add_version(whole, "edge-convert")
    for module in _COMMANDS:
        whole.add_typer(import_module(module).app)
    for name, module in _GROUPS.items():
        whole.add_typer(import_module(module).app, name=name, no_args_is_help=True)
    return whole


app = assemble()


def main() -> None:
    """Run the command line; errors are one line, never a traceback."""
    try:
        app()
    except EdgeError as error:
        typer.echo(fitted(str(error), sys.stderr), err=True)
        sys.exit(EXIT_USER_ERROR)


if __name__ == "__main__":
    main()
