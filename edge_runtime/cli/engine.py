"""`edge-runtime engine install | list`: which engines work here, and environments for those that need their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.cli.output import Json, print_json, say

if TYPE_CHECKING:
    from edge_runtime.contract.device_profile import EngineFact

app = typer.Typer()
_group = typer.Typer(help="Inference engines of this device.", no_args_is_help=True)
app.add_typer(_group, name="engine")


@_group.command()
def install(
    name: Annotated[str, typer.Argument(help="tflite-runtime.")],
    *,
    python: Annotated[
        Path | None, typer.Option(help="Interpreter of an environment that has it already; default: one is made.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let an engine run in an environment of its own; --backend tflite_runtime then has files of LiteRT run there."""
    from rich.console import Console
    from rich.text import Text

    from edge_runtime.inference.engine_install import install_engine

    # Text, not str: rich would take brackets in names and paths for its own markup.
    with Console(stderr=True).status(Text(f"installing {name}")) as status:
        chosen, fact = install_engine(name, python, lambda line: status.update(Text(line)))
    if as_json:
        print_json({"name": name, "python": str(chosen), **_document(fact)})
    else:
        typer.echo(f"{name} {fact.version} ({', '.join(fact.providers)}) runs with {chosen}")


@_group.command("list")
def show(as_json: Json = False) -> None:
    """Show the engines that work here, found by running a model with each."""
    from edge_runtime.inference.backend import BACKENDS, OTHER_LIBRARIES
    from edge_runtime.inference.engine_install import why_broken
    from edge_runtime.inference.facts import engines

    found = {name: fact for name in (*BACKENDS, *OTHER_LIBRARIES) for fact in engines({name})}
    if (broken := why_broken()) is not None:
        say(f"edge-runtime: {broken}")
    if as_json:
        print_json({name: _document(fact) for name, fact in found.items()})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("backend", "version", "providers")
    for name, fact in found.items():
        table.add_row(name, f"{fact.library} {fact.version}".strip(), ", ".join(fact.providers))
    Console().print(table)


def _document(fact: EngineFact) -> dict[str, object]:
    return {"library": fact.library or None, "version": fact.version, "providers": fact.providers}
