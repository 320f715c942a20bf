"""`edge-runtime pipeline`: sources → models → sinks, until the sources end or somebody ends it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.cli.output import Json, print_json, say
from edge_runtime.interrupt import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from edge_runtime.pipelines.planner import Plan
    from edge_runtime.pipelines.runner import Pipeline
    from edge_runtime.pipelines.statistics import PipelineReport

app = typer.Typer()


@app.command()
def pipeline(
    file: Annotated[Path, typer.Argument(help="The pipeline's description (TOML).")],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done with each frame, and end.")
    ] = False,
    stages: Annotated[bool, typer.Option("--stages", help="Show a table of what each stage did at the end.")] = False,
    tuned: Annotated[
        Path | None, typer.Option(help="Folder in which tune --state kept what is best here; a model's own goes first.")
    ] = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Import the functions that the file names.")] = False,
    as_json: Json = False,
) -> None:
    """Run cameras, video or files through models, as a file describes; Ctrl-C finishes what is under way."""
    from edge_runtime.pipelines.opening import open_pipeline, plan_pipeline
    from edge_runtime.pipelines.reading import read_description

    planned = plan_pipeline(read_description(file), file.resolve().parent)
    if dry_run:
        _show_plan(planned.plan, as_json=as_json)
        return
    running = open_pipeline(planned, _tell, tuned=tuned, trust_code=trust_code)
    with _stopped_by_signals(running):
        report = running.run()
    _show_report(report, stages=stages, as_json=as_json)
    if report.ended_early:
        raise typer.Exit(EXIT_INTERRUPTED)
    if report.lost:
        raise typer.Exit(1)


def _tell(line: str) -> None:
    say(f"edge-runtime: {line}")


@contextmanager
def _stopped_by_signals(running: Pipeline) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM lets the pipeline finish what is under way; the second ends the process at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def finish(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the signature is signal's)
        running.stop()
        for one, handler in before.items():
            signal.signal(one, handler)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, finish)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    import msgspec

    if as_json:
        print_json(msgspec.to_builtins(plan, enc_hook=_sorted_names))
        return
    for route in plan.routes:
        print(f"{route.source} ({'the newest frame wins' if route.is_live else 'every frame'})")
        for number, step in enumerate(route.steps, 1):
            print(f"  {number}  {step.sentence}")
    for one in plan.deliveries:
        print(f"{one.sink} gets what {', '.join(sorted(one.models))} found in {', '.join(sorted(one.sources))}")


def _sorted_names(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(value)
    raise NotImplementedError


def _show_report(report: PipelineReport, *, stages: bool, as_json: bool) -> None:
    import msgspec

    if as_json:
        more = {"is_complete": report.is_complete, "lost": report.lost, "summary": report.summary()}
        print_json({**msgspec.to_builtins(report), **more})
        return
    if stages:
        _print_stages(report)
    say(report.summary())


def _print_stages(report: PipelineReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("stage", "name")
    for head in ("done", "failed", "dropped", "p50 ms", "p90 ms", "p99 ms"):
        table.add_column(head, justify="right")
    for stage in report.stages:
        times = ["" if value is None else f"{value:.2f}" for value in (stage.p50_ms, stage.p90_ms, stage.p99_ms)]
        cells = (stage.kind, stage.name, str(stage.done), str(stage.failed), str(stage.dropped), *times)
        table.add_row(*map(Text, cells))
    Console(stderr=True).print(table)
