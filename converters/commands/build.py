"""Runs a build for a person or a script: reads the recipe, shows progress, prints and keeps the report."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from converters.commands.check import read_model
from converters.commands.progress import StageView
from converters.commands.translate import local_model, with_local_model
from converters.errors import BadRecipe, CannotWrite
from converters.model.fixed_shapes import parse_shapes
from converters.pipeline.build import build, plan_of
from converters.pipeline.finishing import BuildOptions
from converters.pipeline.material import rehearse
from converters.planning.methods import describe_method
from converters.planning.recipe import Recipe, parse_recipe
from converters.report.build_report import as_json as report_json
from converters.report.build_report import print_report
from converters.report.page import report_page
from converters.starter.from_options import Options, recipe_from_options, with_options
from edge_runtime.contract.ids import shown
from edge_runtime.interrupt import raise_on_interrupt

REPORT_SUFFIX = ".report.json"
PAGE_SUFFIX = ".report.html"
_EXPLAINED = " Recipe for edge-convert"
"""How the line begins that says what CHANGE means in a starter recipe."""


def load_recipe(path: Path | None, options: Options) -> tuple[Recipe, Path]:
    """The recipe of a build and the folder its paths are relative to.

    Raises:
        BadRecipe: neither a recipe nor a model was named, something that changes numbers is missing, or code would run.
        BadModel: the model cannot be read.
    """
    if path is not None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadRecipe(f"read recipe {path}", error.strerror or str(error), "check the path") from error
        recipe = parse_recipe(content, path.suffix, path.name)
        base = path.resolve().parent
        if options.model:
            named = Path(options.model)
            # A function is looked for beside the recipe; everything else is a path from where the command runs.
            is_function = ":" in options.model and not named.exists()
            model = options.model if is_function else str(named.resolve())
            recipe = msgspec.structs.replace(recipe, model=model)
        _check_code(recipe, is_trusted=options.trusts_code)
        return with_local_model(with_options(recipe, options), base, trusts_code=options.trusts_code), base
    if not options.model:
        raise BadRecipe("build", "neither a model nor --recipe was given", "see edge-convert build --help")
    found = local_model(Path(options.model), trusts_code=options.trusts_code)
    local = dataclasses.replace(options, model=str(found.model))
    recipe = recipe_from_options(local, read_model(found.model, parse_shapes(options.shapes)))
    return msgspec.structs.replace(recipe, model_uri=found.uri), Path.cwd()


def _check_code(recipe: Recipe, *, is_trusted: bool) -> None:
    metric = recipe.evaluation.metric
    if metric is not None and ":" in metric and not is_trusted:
        module = shown(metric.partition(":")[0])
        raise BadRecipe(
            f"use metric {shown(metric)}",
            f"importing {module} runs whatever code it holds",
            "add --trust-code if you know who wrote it, or name one of edge-convert's own metrics",
        )


def unedited(path: Path) -> list[str]:
    """A note about the lines of a recipe that still ask for a change; none when there are none."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    asked: list[str] = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        entry, _, comment = line.partition("#")
        if "CHANGE" in comment and not comment.startswith(_EXPLAINED):
            # A comment on a line of its own is about the entry below.
            asked.append((entry if entry.strip() else following).partition("=")[0].strip())
    if not asked:
        return []
    return [f"{path.name} still says CHANGE at {', '.join(dict.fromkeys(asked))}: take the word away where it is right"]


def plan_lines(recipe: Recipe, base: Path, *, as_json: bool) -> str:
    """What a build would do, without doing it.

    Raises:
        EdgeError: what such a build would refuse before it reads an example.
    """
    plan = plan_of(recipe, base)
    noted = [*plan.notes, *rehearse(recipe, base, plan)]
    rows = [
        {"variant": one.id, "engine": f"{one.engine} {one.requirement}", "precision": one.precision,
         "arch": list(one.arch), "targets": list(one.profiles), "method": describe_method(one.method)}
        for one in plan.candidates
    ]  # fmt: skip
    if as_json:
        return json.dumps({"candidates": rows, "notes": noted}, sort_keys=True)
    widths = {column: max(len(str(row[column])) for row in rows) for column in ("variant", "engine", "method")}
    lines = [
        "  ".join([*(str(row[column]).ljust(width) for column, width in widths.items()), ", ".join(one.profiles)])
        for row, one in zip(rows, plan.candidates, strict=True)
    ]
    if any(one.method.is_quantised for one in plan.candidates):
        lines.append(f"in this order for each engine; prefer {plan.prefer} stops where no later int8 can be better")
    if recipe.methods is None and any(one.method.scheme == "static" for one in plan.candidates):
        lines.append("where every int8 variant of ONNX Runtime loses too much, its most harmful layers stay in float")
    return "\n".join([*lines, *(f"note: {note}" for note in noted)])


def build_release(recipe: Recipe, options: BuildOptions, *, as_json: bool) -> bool:
    """Build, print the report and write it beside the release; False when a target has no passing variant.

    Raises:
        EdgeError: nothing was written.
        CannotWrite: the report could not be; the release is there.
    """
    from rich.console import Console

    errors = Console(stderr=True)
    with StageView(errors) as view:

        def begin() -> None:
            # The view hides the cursor, so it may not stand while an interrupt ends the process at once.
            clean_up_when_ended()
            view.start()

        report = build(recipe, options, view, begin=begin)
    text = report_json(report)
    _write(_beside(options.out, REPORT_SUFFIX), text + "\n")
    _write(_beside(options.out, PAGE_SUFFIX), report_page(report))
    if as_json:
        sys.stdout.write(text + "\n")
    else:
        print_report(report, Console(width=None if errors.is_terminal else 140))
    return not report.failed_targets


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"write {path}", error.strerror or str(error), "the release beside it is whole") from error


def _beside(out: Path, suffix: str) -> Path:
    return out.with_name(out.name + suffix)


def clean_up_when_ended() -> None:
    """Until now an interrupt ended the process at once; now temporary folders are removed, by SIGTERM as by Ctrl-C."""
    # Python tries the temporary folder once with a file of its own, which an interrupt would leave there.
    tempfile.gettempdir()
    raise_on_interrupt()
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (the signature is signal's)
    raise KeyboardInterrupt
