"""What a build found, for people (a table) and for machines (JSON); every number with its machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from converters.caching.stages import StageEvent
from converters.evaluation.disagreement import Example
from converters.planning.sensitivity import Sensitivity
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import printable
from edge_runtime.contract.evidence import Elsewhere, Evidence, Where
from edge_runtime.contract.release import Limits, Source, Waiver
from edge_runtime.contract.steps import RawStep

_TEXTS: Final = frozenset({"variant", "verdict"})
_LEAST_IMPORTANT_FIRST: Final = ("peak", "SNR own", "ratio", "SNR float", "size", "drop", "p50")
"""What a narrow terminal does without, besides columns that hold nothing."""
_GAP: Final = 2
"""Characters between columns."""
_NOTHING: Final = "-"


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One candidate."""

    variant: str
    engine: str
    precision: str
    arch: list[str]
    verdict: str
    because: str = ""
    size_bytes: int = 0
    drop: float | None = None
    digest: Digest | None = None
    evidence: Evidence | None = None
    sensitivity: Sensitivity | None = None
    """Where it loses; only of a candidate that lost too much."""
    method: str = ""
    """How it was quantised; empty for plain float."""
    worst: list[Example] = []
    """Samples of the evaluation set on which it is farthest from the source model."""


class DataSet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A set that the build used."""

    name: str
    count: int
    digest: Digest | None = None


class BuildReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One build."""

    release: str
    version: str
    out: str
    digest: Digest
    metric: str
    reference: float | None
    """What the source model scores; None without labels."""
    count: int
    where: Where | None
    rows: list[Row]
    notes: list[str] = []
    waivers: list[Waiver] = []
    failed_targets: dict[str, str] = {}
    stages: list[StageEvent] = []
    """What was done, and what the cache had already."""
    ci95: list[float] = []
    """95 % confidence interval of the source model's score."""
    task: str = ""
    prefer: str = ""
    targets: dict[str, list[str]] = {}
    """Shipped variants by device profile."""
    limits: Limits = Limits()
    source: Source | None = None
    calibration: DataSet | None = None
    evaluation: DataSet | None = None
    tools: dict[str, str] = {}
    command: str = ""
    """What makes this release again."""
    preprocess: dict[str, list[RawStep]] = {}
    postprocess: dict[str, list[RawStep]] = {}
    pictures: dict[str, str] = {}
    """Small pictures of samples by their position, as data URIs; never in the JSON."""


def as_json(report: BuildReport) -> str:
    """The report for machines."""
    plain = msgspec.structs.replace(report, pictures={})
    return msgspec.json.format(msgspec.json.encode(plain, order="sorted"), indent=2).decode()


def print_report(report: BuildReport, console: Any) -> None:
    """The report for a person, on a rich console."""
    from rich.text import Text

    def say(text: str, style: str = "", *, wraps: bool = True) -> None:
        # Text, not str: rich would take '[openvino]' for its own markup and drop it.
        console.print(Text(printable(text), style=style), soft_wrap=not wraps)

    left_out = _print_table(report, console)
    if left_out:
        say(f"{', '.join(left_out)}: left out, the window is narrow; the report beside the release has all")
    if report.where:
        where = report.where
        say(f"measured on {where.cpu} ({where.arch}: {' '.join(where.isa)}), one thread")
    for note in report.notes:
        say(f"note: {note}")
    for row in report.rows:
        if row.because:
            say(f"{row.variant}: {row.because}")
        for other in row.evidence.elsewhere if row.evidence else ():
            say(f"{row.variant} on {other.where.cpu} ({other.where.execution}): {_elsewhere(other)}")
    for waiver in report.waivers:
        say(f"WAIVED {waiver.check}: {waiver.detail}", "bold yellow")
    for target, because in report.failed_targets.items():
        say(f"TARGET FAILED {target}: {because}", "bold red")
    say(f"release {report.digest}\nwritten to {report.out}", wraps=False)


def _print_table(report: BuildReport, console: Any) -> list[str]:
    """One row for each candidate, and no cell broken; the columns that there is no room for come back."""
    from rich.text import Text

    score = "unlabelled" if report.reference is None else f"{report.metric} {report.reference:.4f}"
    console.print(Text(f"{report.release} {report.version}: source model {score} on {report.count} samples", "bold"))
    return print_columns(_columns(report), console, _TEXTS)


def print_columns(columns: Mapping[str, Sequence[str]], console: Any, texts: Collection[str]) -> list[str]:
    """A table of the columns that there is room for; the others come back.

    Args:
        columns: cells by heading.
        console: where.
        texts: headings of columns that stand at the left; numbers stand at the right.
    """
    from rich.table import Table
    from rich.text import Text

    shown = columns_that_fit(columns, console.width)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold underline")
    for name in shown:
        # What cannot be left out is folded in a window that is too narrow even for that, rather than cut off.
        table.add_column(name, justify="left" if name in texts else "right", overflow="fold")
    for cells in zip(*(columns[name] for name in shown), strict=True):
        table.add_row(*map(Text, cells))
    console.print(table)
    return [name for name in columns if name not in shown]


def columns_that_fit(columns: Mapping[str, Sequence[str]], width: int) -> list[str]:
    """The columns of a table that a terminal has room for, in order.

    Args:
        columns: cells by heading.
        width: characters in a line of the terminal.
    """
    shown = list(columns)
    empty = [name for name, cells in columns.items() if set(cells) <= {_NOTHING}]
    for name in (*empty, *_LEAST_IMPORTANT_FIRST):
        needed = sum(_width([heading, *columns[heading]]) + _GAP for heading in shown) - _GAP
        if needed > width and name in shown:
            shown.remove(name)
    return shown


def _width(cells: Sequence[str]) -> int:
    return max(len(line) for cell in cells for line in cell.split("\n"))


def _columns(report: BuildReport) -> dict[str, list[str]]:
    names = ("variant", "size", report.metric, "drop", "SNR own", "SNR float", "p50", "ratio", "peak", "verdict")
    rows = [_cells(row) for row in report.rows]
    return {name: [row[position] for row in rows] for position, name in enumerate(names)}


def _cells(row: Row) -> list[str]:
    evidence = row.evidence
    accuracy = evidence.accuracy if evidence else None
    latency = evidence.latency_ms if evidence else None
    peak = evidence.peak_bytes if evidence else None
    return [
        row.variant,
        f"{row.size_bytes / 1024:.0f} KiB" if row.size_bytes else _NOTHING,
        _number(accuracy.value if accuracy else None, 4),
        _number(row.drop, 4),
        _number(accuracy.own_snr_db if accuracy else None, 1, " dB"),
        _number(accuracy.float_snr_db if accuracy else None, 1, " dB"),
        _number(latency.p50 if latency else None, 3, " ms"),
        _number(latency.ratio_to_float if latency else None, 2),
        f"{peak / 1024**2:.0f} MiB" if peak is not None else _NOTHING,
        row.verdict,
    ]


def _elsewhere(other: Elsewhere) -> str:
    accuracy = other.accuracy
    asked = f"{accuracy.metric} {accuracy.value:.4f} on {accuracy.count} samples"
    return f"{asked}, {_number(accuracy.own_snr_db, 1, ' dB')} from its own arithmetic"


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return _NOTHING if value is None else f"{value:.{digits}f}{unit}"
