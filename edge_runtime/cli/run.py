"""`edge-runtime run`: answers to files, once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.cli.options import Backends, Release, Slot, Threads, Tuned
from edge_runtime.cli.output import Json, print_json, say
from edge_runtime.contract.errors import ContractError, InferenceError, printable

if TYPE_CHECKING:
    from edge_runtime.inference.postprocessing.results import Answer

app = typer.Typer()


@app.command()
def run(
    release: Release,
    inputs: Annotated[list[Path], typer.Argument(help="Files to ask about: images, sounds, tables, arrays as .npy.")],
    *,
    variant: Annotated[str | None, typer.Option(help="Use exactly this variant; default: the best here.")] = None,
    backend: Backends = None,
    threads: Threads = None,
    tuned: Tuned = None,
    slot: Slot = None,
    as_json: Json = False,
) -> None:
    """Answer once for each input file."""
    from edge_runtime.importing import uncollected

    with uncollected():
        from edge_runtime.inference.answer_files import answer_files
        from edge_runtime.inference.model import Model
        from edge_runtime.installed import open_installed, slot_of

    if (mine := slot_of(release, slot)) is not None:
        if variant is not None:
            raise ContractError(f"choose variant {variant}", f"{release} runs the one it chose", "leave --variant out")
        opened = open_installed(release, mine, threads=threads, backends=backend or None, tuned=tuned)
    else:
        opened = Model.open(release, variant=variant, threads=threads, backends=backend or None, tuned=tuned)
    with opened as model:
        answers = list(answer_files(model, inputs))
        header = {"release": model.release_digest, "variant": model.variant_id}
        manifest = model.release.manifest
        title = f"{manifest.name} {manifest.version} ({model.variant_id})"
    if as_json:
        print_json({**header, "answers": [_answer_document(path, answer) for path, answer in answers]})
    else:
        _print_answers(title, answers)
    failed = [answer for _, answer in answers if isinstance(answer, InferenceError)]
    for error in failed:
        say(f"edge-runtime: {error}")
    if failed:
        raise typer.Exit(1)


def _answer_document(path: Path, answer: Answer | InferenceError) -> dict[str, object]:
    from edge_runtime.inference.postprocessing.rendering import as_json

    if isinstance(answer, InferenceError):
        return {"input": str(path), "error": str(answer)}
    return {"input": str(path), "answer": {name: as_json(part) for name, part in answer.items()}}


def _print_answers(title: str, answers: Iterable[tuple[Path, Answer | InferenceError]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from edge_runtime.inference.postprocessing.rendering import as_text

    # Text, not str: rich would take a file name's brackets for its own markup and drop them.
    table = Table("input", "output", "answer", title=Text(title), title_justify="left")
    for path, answer in answers:
        if not isinstance(answer, InferenceError):
            for name, part in answer.items():
                table.add_row(Text(printable(path.name)), Text(printable(name)), Text(as_text(part)))
    if table.row_count:
        Console().print(table)
