"""`edge-convert doctor`: what works on this machine."""

from __future__ import annotations

import typer

from converters.cli.options import Json

app = typer.Typer()


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say which routes work here, what is missing for the others, and the command that adds it."""
    from converters.commands.toolchains import doctor_report

    typer.echo(doctor_report(as_json=as_json))
