"""`edge-convert check | recipe`: what can be said about a model before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from converters.cli.options import EXIT_USER_ERROR, Json, Model, Shape, Target

app = typer.Typer()


@app.command()
def check(model: Model, target: Target = None, shape: Shape = None, as_json: Json = False) -> None:
    """Look at a model for seconds: everything that would stop or weaken a build, at once."""
    import msgspec

    from converters.commands.check import check_model, print_checked
    from converters.fixed_shapes import parse_shapes

    checked = check_model(model, tuple(target or ["cpu"]), parse_shapes(shape or ()))
    typer.echo(msgspec.json.encode(checked).decode()) if as_json else print_checked(model, checked)
    if not checked.is_sound:
        raise typer.Exit(EXIT_USER_ERROR)


@app.command()
def recipe(
    model: Model,
    preprocessor: Annotated[
        Path | None, typer.Option(help="preprocessor_config.json, or the .xml of an OpenVINO model with model_info.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Write the labels that the model's metadata hold.")] = None,
) -> None:
    """Print a commented starter recipe made from a model's inputs and outputs, and from metadata about them."""
    from converters.commands.check import starter_recipe

    typer.echo(starter_recipe(model, preprocessor, labels), nl=False)
