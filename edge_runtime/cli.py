"""`edge-runtime`: ask a release once, run the device's agent, look at a device's state."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_runtime.contract.errors import ContractError, EdgeError, InferenceError, printable

if TYPE_CHECKING:
    from edge_runtime.inference.results import Answer

app = typer.Typer(
    name="edge-runtime",
    help="Runs releases on this device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def run(
    release: Annotated[
        Path, typer.Argument(help="Folder that edge-convert wrote, or a device's state_dir: what it runs now.")
    ],
    inputs: Annotated[list[Path], typer.Argument(help="Files to ask about: images, sounds, tables, arrays as .npy.")],
    *,
    variant: Annotated[str | None, typer.Option(help="Use exactly this variant; default: the best here.")] = None,
    backend: Annotated[list[str] | None, typer.Option(help="Engine that may be used; repeat for several.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads inside one call.")] = None,
    slot: Annotated[str, typer.Option(help="With a state_dir: which of the device's models.")] = "main",
    as_json: Json = False,
) -> None:
    """Answer once for each input file."""
    from edge_runtime.inference.answer_files import answer_files
    from edge_runtime.inference.model import Model
    from edge_runtime.installed import is_state_folder, open_installed

    if is_state_folder(release):
        if variant is not None:
            raise ContractError(f"choose variant {variant}", f"{release} runs the one it chose", "leave --variant out")
        opened = open_installed(release, slot, threads=threads, backends=backend or None)
    else:
        opened = Model.open(release, variant=variant, threads=threads, backends=backend or None)
    with opened as model:
        answers = list(answer_files(model, inputs))
        header = {"release": model.release_digest, "variant": model.variant_id}
        manifest = model.release.manifest
        title = f"{manifest.name} {manifest.version} ({model.variant_id})"
    if as_json:
        _print_json({**header, "answers": [_answer_document(path, answer) for path, answer in answers]})
    else:
        _print_answers(title, answers)
    failed = [answer for _, answer in answers if isinstance(answer, InferenceError)]
    for error in failed:
        sys.stderr.write(f"edge-runtime: {error}\n")
    if failed:
        raise typer.Exit(1)


@app.command()
def agent(
    config: Annotated[Path, typer.Option(help="The device's configuration file (TOML).")],
    source: Annotated[Path | None, typer.Option(help="Folder of images to classify with the live model.")] = None,
) -> None:
    """Run this device's agent in the foreground."""
    # Replaced, not imported: the agent's process carries neither Typer nor rich.
    command = [sys.executable, "-m", "edge_runtime.agent", "--config", str(config)]
    os.execv(command[0], command if source is None else [*command, "--source", str(source)])


@app.command()
def status(
    state: Annotated[Path, typer.Option(help="The state_dir of a device.")],
    as_json: Json = False,
) -> None:
    """Say where each slot of a device on this machine stands."""
    import msgspec

    from edge_runtime.bootstrap import read_reports

    reports = [msgspec.to_builtins(report) for report in read_reports(state)]
    if as_json:
        _print_json(reports)
    else:
        _print_reports(reports)


def main() -> None:
    """Entry point: one sentence for an error, no traceback."""
    try:
        app(standalone_mode=True)
    except EdgeError as error:
        sys.stderr.write(f"edge-runtime: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("edge-runtime: interrupted\n")
        sys.exit(130)


def _print_json(document: object) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False)
    # JSON itself escapes the older control characters only, and a lone surrogate cannot be written at all.
    sys.stdout.write(_UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def _answer_document(path: Path, answer: Answer | InferenceError) -> dict[str, object]:
    from edge_runtime.inference.results import as_json

    if isinstance(answer, InferenceError):
        return {"input": str(path), "error": str(answer)}
    return {"input": str(path), "answer": {name: as_json(part) for name, part in answer.items()}}


def _print_answers(title: str, answers: Iterable[tuple[Path, Answer | InferenceError]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from edge_runtime.inference.results import as_text

    # Text, not str: rich would take a file name's brackets for its own markup and drop them.
    table = Table("input", "output", "answer", title=Text(title), title_justify="left")
    for path, answer in answers:
        if not isinstance(answer, InferenceError):
            for name, part in answer.items():
                table.add_row(Text(printable(path.name)), Text(printable(name)), Text(as_text(part)))
    if table.row_count:
        Console().print(table)


def _print_reports(reports: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("slot", "state", "seq", "running", "reason")
    for report in reports:
        running, reason = report.get("running") or {}, report.get("reason") or {}
        what = f"{running['target']} ({running['variant']})" if running else "nothing"
        cells = (report["slot"], report["state"], str(report["seq"]), what, reason.get("detail", ""))
        table.add_row(*map(Text, cells))
    Console().print(table)
