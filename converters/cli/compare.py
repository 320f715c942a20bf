"""`edge-convert compare`: what changed from one release to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from converters.cli.options import Json

app = typer.Typer()


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(help="The older release's folder.")],
    after: Annotated[Path, typer.Argument(help="The newer one's.")],
    *,
    html: Annotated[Path | None, typer.Option(help="Write a page that needs nothing else to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Say what changed between two releases: variants, sizes, numbers, steps, limits, waivers."""
    from rich.console import Console

    from converters.commands import compare as command

    found = command.compare_releases(before, after)
    if html is not None:
        command.write_page(found, html)
    typer.echo(command.as_json(found)) if as_json else command.print_comparison(found, Console())
