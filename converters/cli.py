"""`edge-convert`: check a model, write a recipe, build a release, make keys, sign."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.contract.errors import EdgeError

if TYPE_CHECKING:
    from converters.pipeline import BuildOptions
    from converters.recipe import Recipe

app = typer.Typer(help="A trained model becomes a signed release.", no_args_is_help=True, add_completion=False)

EXIT_USER_ERROR = 1
EXIT_TARGET_FAILED = 3
EXIT_INTERRUPTED = 130

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Model = Annotated[Path, typer.Argument(help="The trained model, an .onnx file.", show_default=False)]
Target = Annotated[list[str] | None, typer.Option("--target", help="Board class or family; repeat for more.")]


@app.command()
def check(model: Model, target: Target = None, as_json: Json = False) -> None:
    """Look at a model for seconds: everything that would stop or weaken a build, at once."""
    import msgspec

    from converters.commands import check_findings, print_findings
    from converters.preflight.findings import has_errors

    findings = check_findings(model, tuple(target or ["cpu"]))
    typer.echo(msgspec.json.encode(findings).decode()) if as_json else print_findings(model, findings)
    if has_errors(findings):
        raise typer.Exit(EXIT_USER_ERROR)


@app.command()
def recipe(model: Model) -> None:
    """Print a commented starter recipe made from a model's inputs and outputs."""
    from converters.commands import starter_recipe

    typer.echo(starter_recipe(model), nl=False)


@app.command()
def build(
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the release.")],
    model: Annotated[Path | None, typer.Argument(help="The model; in a recipe's place of `model`.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Recipe file (.toml, .yaml, .json).")] = None,
    target: Target = None,
    calibration: Annotated[Path | None, typer.Option(help="Examples that set the int8 ranges.")] = None,
    evaluate: Annotated[Path | None, typer.Option(help="Labelled examples to judge by.")] = None,
    labels: Annotated[Path | None, typer.Option(help="One label per line.")] = None,
    max_drop: Annotated[list[str] | None, typer.Option(help="Accuracy that may be lost: 0.01 or TARGET=0.01.")] = None,
    min_agreement: Annotated[list[str] | None, typer.Option(help="Without labels: top-1 agreement with float.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    version: Annotated[str | None, typer.Option(help="Version of the release.")] = None,
    color: Annotated[str | None, typer.Option(help="rgb, bgr or gray.")] = None,
    resize: Annotated[str | None, typer.Option(help="stretch, fit_pad, fit_crop or none.")] = None,
    resize_filter: Annotated[str | None, typer.Option("--filter", help="nearest, bilinear, bicubic, lanczos.")] = None,
    antialias: Annotated[bool | None, typer.Option(help="Pillow's filters: yes. OpenCV's linear: no.")] = None,
    scale: Annotated[float | None, typer.Option(help="y = (x * scale - mean) / std, x in 0..255.")] = None,
    mean: Annotated[str | None, typer.Option(help="One number, or one per channel, with commas.")] = None,
    std: Annotated[str | None, typer.Option(help="One number, or one per channel, with commas.")] = None,
    activation: Annotated[str | None, typer.Option(help="none, softmax or sigmoid.")] = None,
    precision: Annotated[list[str] | None, typer.Option(help="float32, int8; repeat for more.")] = None,
    licence: Annotated[str | None, typer.Option(help="SPDX identifier of the weights' licence.")] = None,
    golden_count: Annotated[int | None, typer.Option(help="Samples in the golden set.")] = None,
    personal_data: Annotated[bool | None, typer.Option(help="Can somebody be recognised in the examples?")] = None,
    golden_from: Annotated[Path | None, typer.Option(help="Ask the questions of this release again.")] = None,
    accuracy_gate: Annotated[bool, typer.Option(help="Refuse variants that lose too much; recorded if off.")] = True,
    allow_failed_golden: Annotated[bool, typer.Option(help="Ship a model that contradicts its labels.")] = False,
    compile_timeout_s: Annotated[float, typer.Option(help="Limit for one compilation.")] = 1800.0,
    force: Annotated[bool, typer.Option(help="Replace an older release at OUT.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show what would be built.")] = False,
    as_json: Json = False,
) -> None:
    """Build a release: every variant compiled, measured with real kernels, judged, packaged."""
    from converters import commands
    from converters.pipeline import BuildOptions
    from converters.starter import Options

    given = Options(
        model=str(model or ""), name=name, version=version, targets=tuple(target or ()),
        calibration=_text(calibration), evaluation=_text(evaluate), labels=_text(labels), color=color, resize=resize,
        filter=resize_filter, antialias=antialias, scale=scale, mean=_numbers(mean), std=_numbers(std),
        activation=activation, precisions=tuple(precision or ()), max_drop=tuple(max_drop or ()),
        min_agreement=tuple(min_agreement or ()), licence=licence, golden_count=golden_count,
        has_personal_data=personal_data,
    )  # fmt: skip
    loaded, base = commands.load_recipe(recipe, given)
    options = BuildOptions(
        base=base, out=out, force=force, accuracy_gate=accuracy_gate, allow_failed_golden=allow_failed_golden,
        golden_from=golden_from, compile_timeout_s=compile_timeout_s,
    )  # fmt: skip
    _plan(loaded, as_json=as_json) if dry_run else _build(loaded, options, as_json=as_json)


@app.command()
def keygen(path: Annotated[Path, typer.Argument(help="Private key to write; PATH.pub beside it.")]) -> None:
    """Make a model team's key pair: PATH.key stays with the team, PATH.pub goes to the server's owner."""
    from converters.signing import keygen as make_key

    public = make_key(path)
    typer.echo(f"{path.with_suffix('.key')}  private: keep it off the server\n{path.with_suffix('.pub')}  public")
    typer.echo(f"key id {public.key_id}\nnext: edge-fleet keys authorise MODEL {path.with_suffix('.pub')}")


@app.command()
def sign(
    release: Annotated[Path, typer.Argument(help="Folder that edge-convert build wrote.")],
    *,
    key: Annotated[Path, typer.Option(help="Private key made by keygen.")],
    metadata: Annotated[Path | None, typer.Option(help="models-NAME.json; beside the release if not said.")] = None,
    server: Annotated[str | None, typer.Option(help="Take the role's current metadata from this server.")] = None,
    api_key: Annotated[
        str | None, typer.Option(help="API key, or @FILE that holds it.", envvar="EDGEFLEET_API_KEY")
    ] = None,
    ca: Annotated[Path | None, typer.Option(help="CA certificate that the server's certificate is checked by.")] = None,
    as_json: Json = False,
) -> None:
    """Add a release to its model's signed metadata; nothing is written into the release itself."""
    import json

    from converters.commands import Server, sign_release_folder

    written = sign_release_folder(release, key, metadata, Server(server, api_key, ca) if server else None)
    text = f"signed {release}\nmetadata {written}\nnext: edge-fleet releases push {release} --metadata {written}"
    typer.echo(json.dumps({"release": str(release), "metadata": str(written)}) if as_json else text)


def main() -> None:
    """Run the command line; errors are one line, never a traceback."""
    try:
        app()
    except EdgeError as error:
        typer.echo(str(error), err=True)
        sys.exit(EXIT_USER_ERROR)


def _build(loaded: Recipe, options: BuildOptions, *, as_json: bool) -> None:
    from converters.commands import build_release

    try:
        is_complete = build_release(loaded, options, as_json=as_json)
    except KeyboardInterrupt as error:
        typer.echo("interrupted; nothing was written", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from error
    if not is_complete:
        raise typer.Exit(EXIT_TARGET_FAILED)


def _plan(loaded: Recipe, *, as_json: bool) -> None:
    from converters.commands import plan_lines

    typer.echo(plan_lines(loaded, as_json=as_json))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not numbers with commas between") from error


if __name__ == "__main__":
    main()
