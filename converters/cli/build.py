"""`edge-convert build`: a model and its data become a release."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from converters.cli.options import (
    EXIT_INTERRUPTED,
    EXIT_TARGET_FAILED,
    CacheFolder,
    Json,
    Shape,
    Target,
    TrustCode,
    cache_folder,
)
from edge_runtime.terminal import fitted

if TYPE_CHECKING:
    from converters.pipeline.finishing import BuildOptions
    from converters.planning.recipe import Recipe

app = typer.Typer()


@app.command()
def build(
    *,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the release.")],
    model: Annotated[Path | None, typer.Argument(help="The model; in a recipe's place of `model`.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="Recipe file (.toml, .yaml, .json).")] = None,
    target: Target = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Examples that set the int8 ranges: a folder, .npz, .npy or .csv.")
    ] = None,
    calibration_range: Annotated[str | None, typer.Option(help="Which of them, FIRST:LAST, such as :200.")] = None,
    evaluate: Annotated[Path | None, typer.Option(help="Other examples, with labels, to judge by.")] = None,
    evaluate_range: Annotated[str | None, typer.Option(help="Which of them, such as 200: for all others.")] = None,
    truth: Annotated[str | None, typer.Option(help="Column or array of the labels, in a file of samples.")] = None,
    labels: Annotated[Path | None, typer.Option(help="One label per line.")] = None,
    max_drop: Annotated[list[str] | None, typer.Option(help="Accuracy that may be lost: 0.01 or TARGET=0.01.")] = None,
    min_agreement: Annotated[
        list[str] | None, typer.Option(help="Without labels: share on which it agrees with the source model.")
    ] = None,
    min_snr_db: Annotated[
        list[str] | None, typer.Option(help="Without labels: dB between its answers and the source model's.")
    ] = None,
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
    shape: Shape = None,
    precision: Annotated[list[str] | None, typer.Option(help="float32, float16, int8; repeat for more.")] = None,
    prefer: Annotated[
        str | None, typer.Option(help="accuracy, latency or size: what is tried, and when it stops.")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="Try only this way: int8, ort-int8-full; repeat.")] = None,
    licence: Annotated[str | None, typer.Option(help="SPDX identifier of the weights' licence.")] = None,
    golden_count: Annotated[int | None, typer.Option(help="Samples in the golden set.")] = None,
    personal_data: Annotated[bool | None, typer.Option(help="Can somebody be recognised in the examples?")] = None,
    golden_from: Annotated[Path | None, typer.Option(help="Ask the questions of this release again.")] = None,
    accuracy_gate: Annotated[bool, typer.Option(help="Refuse variants that lose too much; recorded if off.")] = True,
    allow_failed_golden: Annotated[bool, typer.Option(help="Ship a model that contradicts its labels.")] = False,
    cache: CacheFolder = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Do everything again, and keep nothing.")] = False,
    compile_timeout_s: Annotated[float, typer.Option(help="Limit for one compilation.")] = 1800.0,
    emulate: Annotated[
        bool, typer.Option(help="Ask int8 variants on CPUs that targets have and this machine has not, by QEMU.")
    ] = True,
    aarch64_root: Annotated[
        Path | None,
        typer.Option(help="Root file system to ask int8 variants in on aarch64.", envvar="EDGEFLEET_AARCH64_ROOT"),
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace an older release at OUT.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Show what would be built.")] = False,
    trust_code: TrustCode = False,
    as_json: Json = False,
) -> None:
    """Build a release: every variant compiled, measured with real kernels, judged, packaged."""
    from converters.commands.build import load_recipe, unedited
    from converters.pipeline.finishing import BuildOptions
    from converters.starter.from_options import Options

    given = Options(
        model=str(model or ""), name=name, version=version, targets=tuple(target or ()),
        calibration=_text(calibration), calibration_range=calibration_range, evaluation=_text(evaluate),
        evaluation_range=evaluate_range, truth=truth, labels=_text(labels), color=color, resize=resize,
        filter=resize_filter, antialias=antialias, scale=scale, mean=_numbers(mean), std=_numbers(std),
        activation=activation, precisions=tuple(precision or ()), prefer=prefer, methods=tuple(method or ()),
        max_drop=tuple(max_drop or ()),
        min_agreement=tuple(min_agreement or ()), min_snr_db=tuple(min_snr_db or ()), shapes=tuple(shape or ()),
        licence=licence, golden_count=golden_count, has_personal_data=personal_data, trusts_code=trust_code,
    )  # fmt: skip
    loaded, base = load_recipe(recipe, given)
    for note in unedited(recipe) if recipe else ():
        typer.echo(fitted(f"note: {note}", sys.stderr), err=True)
    options = BuildOptions(
        base=base, out=out, force=force, accuracy_gate=accuracy_gate, allow_failed_golden=allow_failed_golden,
        golden_from=golden_from, compile_timeout_s=compile_timeout_s, emulates=emulate,
        aarch64_root=aarch64_root,
        cache=None if no_cache else cache_folder(cache),
        command=shlex.join(["edge-convert", *sys.argv[1:]]),
    )  # fmt: skip
    _plan(loaded, base, as_json=as_json) if dry_run else _build(loaded, options, as_json=as_json)


def _build(loaded: Recipe, options: BuildOptions, *, as_json: bool) -> None:
    from converters.commands.build import build_release

    try:
        is_complete = build_release(loaded, options, as_json=as_json)
    except KeyboardInterrupt as error:
        typer.echo("interrupted; nothing was written", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from error
    if not is_complete:
        raise typer.Exit(EXIT_TARGET_FAILED)


def _plan(loaded: Recipe, base: Path, *, as_json: bool) -> None:
    from converters.commands.build import plan_lines

    typer.echo(plan_lines(loaded, base, as_json=as_json))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _numbers(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not numbers with commas between") from error
