"""What the commands of `edge-convert` do, apart from reading options: load, run with progress, print."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from converters.errors import BadModel, BadRecipe
from converters.importers.onnx import Imported, import_onnx
from converters.pipeline import BuildOptions, build, plan_of
from converters.planner import ceiling_of
from converters.preflight.findings import Finding
from converters.preflight.onnx_file import inspect, look_at_model
from converters.recipe import Recipe, parse_recipe
from converters.report import as_json as report_json
from converters.report import print_report
from converters.starter import Options, recipe_from_options, starter_text
from devices.catalogue import resolve_targets
from edge_runtime.interrupt import raise_on_interrupt

REPORT_SUFFIX = ".report.json"


@dataclass(frozen=True, slots=True)
class Server:
    """A fleet server as the command line names it."""

    url: str
    api_key: str | None
    """The key, or `@FILE` that holds it."""
    ca: Path | None

    def key(self) -> str | None:
        """The API key itself. Raises: BadRecipe when its file cannot be read."""
        if self.api_key is None or not self.api_key.startswith("@"):
            return self.api_key
        try:
            return Path(self.api_key[1:]).read_text(encoding="utf-8").strip()
        except OSError as error:
            because = error.strerror or str(error)
            raise BadRecipe(f"read the API key in {self.api_key[1:]}", because, "check --api-key") from error


def check_findings(model: Path, targets: tuple[str, ...]) -> tuple[Finding, ...]:
    """Preflight findings of a model for these targets. Raises: UnknownTarget."""
    return inspect(model, max_opset=ceiling_of(resolve_targets(targets)).opset)


def print_findings(model: Path, findings: tuple[Finding, ...]) -> None:
    """Findings for a person, worst first."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    styles = {"error": "bold red", "warning": "yellow", "note": "dim"}
    for finding in findings:
        console.print(f"{finding.severity:8}", style=styles[finding.severity], end="")
        # Text, not str: a tensor called "x[0]" or ":0:" is no markup and no emoji of rich.
        console.print(Text(finding.message))
        if finding.advice:
            console.print(Text(f"        → {finding.advice}"))
    if not any(finding.severity == "error" for finding in findings):
        console.print(Text(f"{model.name} can be built"))


def starter_recipe(model: Path) -> str:
    """A commented recipe made from a model's inputs and outputs. Raises: BadModel."""
    return starter_text(model.name, _read_model(model))


def load_recipe(path: Path | None, options: Options) -> tuple[Recipe, Path]:
    """The recipe of a build and the folder its paths are relative to.

    Raises:
        BadRecipe: neither a recipe nor a model was named, or something that changes numbers is missing.
        BadModel: the model cannot be read.
    """
    if path is not None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BadRecipe(f"read recipe {path}", error.strerror or str(error), "check the path") from error
        recipe = parse_recipe(content, path.suffix)
        base = path.resolve().parent
        if options.model:
            recipe = msgspec.structs.replace(recipe, model=str(Path(options.model).resolve()))
        return recipe, base
    if not options.model:
        raise BadRecipe("build", "neither a model nor --recipe was given", "see edge-convert build --help")
    return recipe_from_options(options, _read_model(Path(options.model))), Path.cwd()


def plan_lines(recipe: Recipe, *, as_json: bool) -> str:
    """What a build would do, without doing it. Raises: UnknownTarget, BadRecipe."""
    plan = plan_of(recipe)
    rows = [
        {"variant": one.id, "engine": f"{one.engine} {one.requirement}", "precision": one.precision,
         "arch": list(one.arch), "targets": list(one.profiles)}
        for one in plan.candidates
    ]  # fmt: skip
    if as_json:
        return json.dumps({"candidates": rows, "notes": list(plan.notes)}, sort_keys=True)
    lines = [f"{row['variant']:18} {row['engine']:22} for {', '.join(row['targets'])}" for row in rows]
    return "\n".join([*lines, *(f"note: {note}" for note in plan.notes)])


def build_release(recipe: Recipe, options: BuildOptions, *, as_json: bool) -> bool:
    """Build, print the report and write it beside the release; False when a target has no passing variant.

    Raises:
        EdgeError: nothing was written.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    errors = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal)
    task = bar.add_task("starting", total=None)

    def begin() -> None:
        # The bar hides the cursor, so it may not stand while an interrupt ends the process at once.
        _clean_up_when_ended()
        bar.start()

    try:
        report = build(recipe, options, lambda what, done, total: bar.update(
            task, description=what, completed=done, total=total), begin=begin)  # fmt: skip
    finally:
        bar.stop()
    text = report_json(report)
    options.out.with_name(options.out.name + REPORT_SUFFIX).write_text(text + "\n", encoding="utf-8")
    if as_json:
        sys.stdout.write(text + "\n")
    else:
        print_report(report, Console(width=None if errors.is_terminal else 140))
    return not report.failed_targets


def sign_release_folder(release: Path, key: Path, metadata: Path | None, server: Server | None) -> Path:
    """Sign a release into its role's metadata; returns the file written.

    Args:
        release: folder of the release.
        key: the model team's private key.
        metadata: file to write; None: beside the release.
        server: where to take the metadata in force from; None: from the file.

    Raises:
        EdgeError: the release, the key or the metadata cannot be used.
    """
    from converters.role_metadata import fetch_role_metadata
    from converters.signing import sign_release
    from edge_runtime.contract.layout import LayoutFolder
    from edge_runtime.trust.keys import SigningKey

    current = None
    if server is not None:
        model = LayoutFolder(release).open().manifest.name
        current = fetch_role_metadata(server.url, model, server.key(), server.ca)
    return sign_release(release, SigningKey.load(key), metadata, current, now=time.time())


def _read_model(path: Path) -> Imported:
    """A model after the look preflight takes, so that each command says the same about a file. Raises: BadModel."""
    if refused := look_at_model(path):
        raise BadModel(f"use {path.name}", refused.message, refused.advice)
    return import_onnx(path)


def _clean_up_when_ended() -> None:
    """Until now an interrupt ended the process at once; now temporary folders are removed, by SIGTERM as by Ctrl-C."""
    # Python tries the temporary folder once with a file of its own, which an interrupt would leave there.
    tempfile.gettempdir()
    raise_on_interrupt()
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (the signature is signal's)
    raise KeyboardInterrupt
