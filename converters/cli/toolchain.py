"""`edge-convert toolchain install | list`: environments for tools that cannot live in ours."""

from __future__ import annotations

from typing import Annotated

import typer

from converters.cli.options import Json

app = typer.Typer(help="Isolated environments for heavy tools.")


@app.command()
def install(
    name: Annotated[str, typer.Argument(help="Name that `toolchain list` shows.")], as_json: Json = False
) -> None:
    """Make a toolchain's environment in the user's cache folder; nothing to do when it is ready."""
    from converters.commands.toolchains import install_toolchain

    typer.echo(install_toolchain(name, as_json=as_json))


@app.command("list")
def show(as_json: Json = False) -> None:
    """Show every toolchain, what it is for, and where it is installed."""
    from converters.commands.toolchains import toolchain_table

    typer.echo(toolchain_table(as_json=as_json))
