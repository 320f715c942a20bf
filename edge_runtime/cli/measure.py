"""`edge-runtime bench` and `tune`: what a release costs here, and which settings are best for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_runtime.cli.options import Backends, Release, Slot, Threads, Tuned
from edge_runtime.cli.output import Json, print_json, say
from edge_runtime.interrupt import EXIT_INTERRUPTED, raise_on_interrupt

if TYPE_CHECKING:
    from rich.console import Console

    from edge_runtime.tuning.bench import BenchReport
    from edge_runtime.tuning.figures import Figures
    from edge_runtime.tuning.loadgen_log import Latency
    from edge_runtime.tuning.machine import Machine
    from edge_runtime.tuning.scenarios import ScenarioReport
    from edge_runtime.tuning.tune import TuneReport

app = typer.Typer()


class Scenario(Enum):
    """Who asks, and when (MLPerf inference)."""

    SINGLE_STREAM = "single-stream"
    MULTI_STREAM = "multi-stream"
    SERVER = "server"
    OFFLINE = "offline"


class Mode(Enum):
    """What a scenario is run for."""

    PERFORMANCE = "performance"
    ACCURACY = "accuracy"


@app.command()
def bench(
    release: Release,
    inputs: Annotated[list[Path] | None, typer.Argument(help="Files to ask about; default: the golden set.")] = None,
    *,
    variant: Annotated[str | None, typer.Option(help="Measure exactly this one; default: the best here.")] = None,
    threads: Threads = None,
    backend: Backends = None,
    tuned: Tuned = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=3600, help="Time for the rounds of one caller.")] = 5.0,
    callers: Annotated[int | None, typer.Option(min=1, max=256, help="Callers at once under load.")] = None,
    scenario: Annotated[
        Scenario | None, typer.Option(help="MLPerf's LoadGen asks as well, for at least --seconds (extra: loadgen).")
    ] = None,
    mode: Annotated[Mode, typer.Option(help="Of a scenario: how fast, or every sample once.")] = Mode.PERFORMANCE,
    min_queries: Annotated[int, typer.Option(min=1, max=10_000_000, help="Of a scenario, at least.")] = 100,
    target_qps: Annotated[
        float | None, typer.Option(min=0.001, max=1e6, help="Of server; default: half of what one caller gets.")
    ] = None,
    target_latency_ms: Annotated[
        float | None, typer.Option(min=0.001, max=1e6, help="Of server, for 99 % of the answers.")
    ] = None,
    loadgen_out: Annotated[Path | None, typer.Option(help="Folder in which LoadGen's own files are kept.")] = None,
    slot: Slot = None,
    as_json: Json = False,
) -> None:
    """Measure a release stage by stage, beside the bare engine in the same run."""
    from edge_runtime.tuning.bench import BenchSettings
    from edge_runtime.tuning.bench import bench as measure
    from edge_runtime.tuning.scenarios import ScenarioWish
    from edge_runtime.tuning.target import open_target

    settings = BenchSettings(
        inputs=tuple(inputs or ()), variant=variant, threads=threads, backends=tuple(backend) if backend else None,
        seconds=seconds, callers=callers, tuned=tuned,
        scenario=scenario and ScenarioWish(
            scenario.value, mode.value, min_queries, target_qps, target_latency_ms, loadgen_out
        ),
    )  # fmt: skip
    with _interruptible(), _progress() as progress:
        report = measure(open_target(release, slot), settings, progress)
    if as_json:
        import msgspec

        print_json({**msgspec.to_builtins(report), "is_busy": report.machine.is_busy})
    else:
        _print_bench(report)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C lets processes and files of the measurement be cleaned up, and then says what it says everywhere."""
    raise_on_interrupt()
    try:
        yield
    except KeyboardInterrupt:
        # Here, because the command line's own library would call it "Aborted".
        say("edge-runtime: interrupted")
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr where a person looks; silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _what, _share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


def _print_bench(report: BenchReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(
        Text(
            f"{report.release} {report.version}, variant {report.variant}, {report.engine}, {_threads(report.threads)}"
        )
    )
    console.print(Text(_machine_line(report.machine)))
    console.print(Text(f"asked: {report.questions}, {report.whole.count} rounds, each in turns with the bare engine"))
    table = Table("stage")
    for head in ("min", "p50", "p90", "p99"):
        table.add_column(f"{head} ms", justify="right")
    rows: list[tuple[str, Figures | Latency]] = [*report.stages.items(), ("whole answer", report.whole)]
    if report.bare is not None:
        rows.append(("bare engine, ready tensors", report.bare))
    if report.load.queue is not None:
        rows.append((f"queue, {report.load.callers} callers", report.load.queue))
    if report.scenario is not None and report.scenario.outcome is not None:
        latency = report.scenario.outcome.latency
        what = "samples" if report.scenario.scenario == "offline" else "queries"
        rows.append((f"LoadGen {report.scenario.scenario}, {latency.count} {what}", latency))
    for name, figures in rows:
        if name in {"whole answer", "queue"}:
            table.add_section()
        table.add_row(Text(name), *_cells(figures))
    console.print(table)
    for line in _bench_lines(report):
        _print_line(console, line)
    _warn_when_busy(report.machine)


def _print_line(console: Console, line: str) -> None:
    """Broken at words where a person looks, and no path in two; whole where a program reads."""
    from rich.text import Text

    console.print(Text(line, overflow="ignore"), soft_wrap=not console.is_terminal, crop=False)


def _cells(figures: Figures | Latency) -> list[str]:
    return [f"{value:.3f}" for value in (figures.min, figures.p50, figures.p90, figures.p99)]


def _bench_lines(report: BenchReport) -> Iterator[str]:
    load = report.load
    if report.infer_ratio is not None and report.bare is not None:
        busy = report.machine.is_busy
        whole, bare = (report.whole.min, report.bare.min) if busy else (report.whole.p50, report.bare.p50)
        how = "in the fastest calls" if busy else "at the median"
        yield (
            f"engine call: {report.infer_ratio:.3f} × the bare engine; the whole answer adds "
            f"{(whole - bare) * 1000:.0f} µs to it, {how}"
        )
    elif report.bare_note:
        yield f"bare engine: not measured, {report.bare_note}"
    beside = "" if load.bare_per_s is None else f" (bare engine, tensors ready: {load.bare_per_s:.1f}/s)"
    yield f"throughput: {load.per_s:.1f} answers/s with {load.callers} callers{beside}"
    beside = "" if report.bare_cpu_ms is None else f" (bare engine, tensors ready: {report.bare_cpu_ms:.3f} ms)"
    yield f"CPU: {report.cpu_ms:.3f} ms per answer{beside}"
    if report.memory is not None:
        beside = "" if report.memory.bare is None else f" (a plain script {_mib(report.memory.bare)})"
        worker = f", {_mib(report.memory.workers)} of it in the engine's own process" if report.memory.workers else ""
        yield f"memory: {_mib(report.memory.ours)} at its peak, the whole process{worker}{beside}"
    else:
        yield "memory: not measured, a process of its own could not open the release"
    if report.energy is not None:
        one = report.energy
        yield (
            f"energy: {one.joules_per_answer * 1000:.1f} mJ per answer, {one.watts:.1f} W under load, "
            f"{one.idle_watts:.1f} W before ({one.sensor})"
        )
    else:
        yield f"energy: not measured, {report.energy_note}"
    if report.scenario is not None:
        yield from _scenario_lines(report.scenario)


def _scenario_lines(report: ScenarioReport) -> Iterator[str]:
    if report.target_qps is not None:
        yield (
            f"LoadGen asked {report.target_qps:.1f} times a second and wants 99 % of the answers within "
            f"{report.target_latency_ms:.1f} ms"
        )
    if report.outcome is not None:
        verdict = "a valid run" if report.outcome.is_valid else f"no valid run: {report.outcome.why_not}"
        yield f"LoadGen {report.loadgen}, {report.scenario}: {report.outcome.per_s:.1f} samples/s; {verdict}"
    else:
        yield f"LoadGen {report.loadgen}, {report.scenario}: {report.answered} samples answered once each"
        for check in report.checks:
            value = "no number" if check.value is None else f"{check.value:.4g}"
            yield f"golden {check.metric} against {check.against}: {value}, {'passed' if check.passed else 'failed'}"
    if report.kept is not None:
        yield f"LoadGen's own summary: {report.kept}"


def _threads(threads: int | None) -> str:
    if threads is None:
        return "as many threads as the engine takes"
    return f"{threads} thread{'s' * (threads > 1)} per call"


def _machine_line(machine: Machine) -> str:
    isa = " ".join(machine.isa) or "no extension that matters"
    return f"{machine.cpu} ({machine.arch}: {isa}), {machine.cores} cores, load average {machine.load_average:.2f}"


def _warn_when_busy(machine: Machine) -> None:
    if machine.is_busy:
        say(
            f"edge-runtime: other work is running here (load average {machine.load_average:.2f}): trust minima and "
            "ratios, not medians"
        )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"


@app.command()
def tune(
    release: Release,
    inputs: Annotated[list[Path] | None, typer.Argument(help="Files to ask about; default: the golden set.")] = None,
    *,
    variant: Annotated[str | None, typer.Option(help="Try only this one.")] = None,
    backend: Backends = None,
    seconds: Annotated[float, typer.Option(min=0.1, max=86_400, help="After it, nothing new is tried.")] = 60.0,
    state: Annotated[
        Path | None, typer.Option(help="Folder in which it is kept; default: $XDG_STATE_HOME/edgefleet.")
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Forget what was tuned for this release, and end.")] = False,
    slot: Slot = None,
    as_json: Json = False,
) -> None:
    """Find the variant, threads and batch that are best here, and keep them for whoever opens the release."""
    from edge_runtime.inference.tuned import default_folder
    from edge_runtime.tuning.target import open_target
    from edge_runtime.tuning.tune import TuneSettings, forget_tuned
    from edge_runtime.tuning.tune import tune as find_best

    target, folder = open_target(release, slot), state or default_folder()
    if forget:
        say(f"edge-runtime: {forget_tuned(target, folder)}")
        return
    settings = TuneSettings(
        state=folder, inputs=tuple(inputs or ()), variant=variant, backends=tuple(backend) if backend else None,
        seconds=seconds,
    )  # fmt: skip
    with _interruptible(), _progress() as progress:
        report = find_best(target, settings, progress)
    if as_json:
        import msgspec

        print_json({**msgspec.to_builtins(report, str_keys=True), "is_busy": report.machine.is_busy})
    else:
        _print_tuned(report)


def _print_tuned(report: TuneReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from edge_runtime.inference.tuned import default_folder
    from edge_runtime.tuning.candidates import MARGIN

    console = Console()
    console.print(Text(f"{report.release} {report.version}, asked {report.questions}"))
    console.print(Text(_machine_line(report.machine)))
    table = Table()
    names = [row.variant if row.provider is None else f"{row.variant} ({row.provider})" for row in report.rows]
    # What is cut cannot be copied; a verdict may be read in several lines.
    table.add_column("variant", overflow="fold", min_width=min(28, max(map(len, names))))
    for head in ("threads", "p50 ms", "to untuned", "CPU ms"):
        table.add_column(head, justify="right")
    table.add_column("verdict", overflow="fold")
    for name, row in zip(names, report.rows, strict=True):
        figures = [_shown(row.p50_ms, "{:.3f}"), _shown(row.ratio, "{:.2f} ×"), _shown(row.cpu_ms, "{:.3f}")]
        threads = "default" if row.threads is None else str(row.threads)
        style = "bold" if row.is_winner else ""
        table.add_row(*(Text(cell) for cell in (name, threads, *figures, row.verdict)), style=style)
    console.print(table)
    rule = "what decides is the ratio to untuned, taken in turns with it, and not p50"
    console.print(Text(f"{rule}; within {MARGIN:.0%} nothing is faster"))
    console.print(Text(report.sentence))
    if report.batch:
        sizes = ", ".join(f"{size}: {ms:.3f} ms" for size, ms in report.batch.items())
        _print_line(console, f"one sample by batch: {sizes}; {report.best_batch} at once is enough")
    folder = Path(report.kept).parent
    who = "whoever opens the release here gets it" if folder == default_folder() else f"--tuned {folder} takes it"
    _print_line(console, f"kept in {report.kept}; {who}")
    _warn_when_busy(report.machine)


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
