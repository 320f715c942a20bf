"""Which version of this software runs, and how every command says it."""

# No `from __future__ import annotations`: the option's type is read where it is written.

from typing import TYPE_CHECKING, Annotated, Any, Final

if TYPE_CHECKING:
    import typer

HELP_NAMES: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"]}
"""Context settings of a command line whose help is found by either."""


def software_version() -> str:
    """The version of this software; 0 where it runs from a folder that was never installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("edgefleet")
    except PackageNotFoundError:
        return "0"


def add_version(whole: "typer.Typer", command: str) -> None:
    """Give a command line `--version`, beside its sub-commands."""
    import typer

    def show(wanted: bool) -> None:  # noqa: FBT001 (the signature is Typer's)
        if wanted:
            typer.echo(f"{command} {software_version()}")
            raise typer.Exit

    @whole.callback()
    def options(
        *,
        version: Annotated[
            bool, typer.Option("--version", callback=show, is_eager=True, help="Show the version and end.")
        ] = False,
    ) -> None:
        pass
