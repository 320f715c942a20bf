"""`edge-convert check | recipe | import`: what can be said about a model before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from converters.cli.options import EXIT_USER_ERROR, Json, Model, Shape, Target, TrustCode

app = typer.Typer()


@app.command()
def check(
    model: Model, target: Target = None, shape: Shape = None, trust_code: TrustCode = False, as_json: Json = False
) -> None:
    """Look at a model for seconds: everything that would stop or weaken a build, at once."""
    import json

    import msgspec

    from converters.commands.check import check_model, print_checked
    from converters.commands.translate import local_model
    from converters.model.fixed_shapes import parse_shapes

    model = local_model(model, trusts_code=trust_code).model
    checked = check_model(model, tuple(target or ["cpu"]), parse_shapes(shape or ()))
    typer.echo(json.dumps(msgspec.to_builtins(checked))) if as_json else print_checked(model, checked)
    if not checked.is_sound:
        raise typer.Exit(EXIT_USER_ERROR)


@app.command()
def recipe(
    model: Model,
    preprocessor: Annotated[
        Path | None, typer.Option(help="preprocessor_config.json, or the .xml of an OpenVINO model with model_info.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Write the labels that the model's metadata hold.")] = None,
    trust_code: TrustCode = False,
) -> None:
    """Print a commented starter recipe made from a model's inputs and outputs, and from metadata about them."""
    from converters.commands.check import starter_recipe

    typer.echo(starter_recipe(model, preprocessor, labels, trusts_code=trust_code), nl=False)


@app.command("import")
def import_model(
    model: Model,
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="ONNX file to write; labels come beside it.")],
    trust_code: TrustCode = False,
) -> None:
    """Write the ONNX file that a scikit-learn or PyTorch model becomes; check and build do it by themselves."""
    from converters.commands.translate import write_translated

    for written in write_translated(model, out, trusts_code=trust_code):
        typer.echo(f"wrote {written}")
