"""The report of a build as one HTML page that needs nothing else: no script, no network, light and dark, printable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from converters.planning.sensitivity import RUINED_DB
from converters.report.build_report import BuildReport, Row
from converters.report.plot import Chart, Point, chart_of
from edge_runtime.contract.codec import encode
from edge_runtime.contract.evidence import CheckResult, Where
from edge_runtime.contract.steps import RawStep

_SUMMARY_MAX: Final = 400


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that numbers are from, and whose."""

    where: Where
    variants: tuple[str, ...]

    @property
    def isa(self) -> str:
        """Instruction-set extensions for a person."""
        return " ".join(self.where.isa) or "none listed"


def report_page(report: BuildReport) -> str:
    """The page. Everything in it that came with a model or from a disk is escaped."""
    environment = page_environment()
    return str(
        environment.get_template("report.html").render(
            report=report,
            chart=_chart(report),
            machines=_machines(report),
            headline=headline(report),
            shipped=[row for row in report.rows if ships(row)],
            largest=max((row.size_bytes for row in report.rows), default=0) or 1,
            ruined_db=RUINED_DB,
            steps=_steps(report.preprocess) + _steps(report.postprocess),
        )
    )


def page_environment() -> Any:
    """The template engine, escaping everything, with what pages need to show numbers."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("converters"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"bytes": size_text, "number": number_text, "check": _check_text}
    environment.tests |= {"shipping": ships, "skipped": is_skipped}
    return environment


def ships(row: Row) -> bool:
    """Whether the candidate is part of the release."""
    return row.verdict == "shipped"


def is_skipped(row: Row) -> bool:
    """Whether the candidate was never built."""
    return row.verdict.startswith("skipped")


def headline(report: BuildReport) -> str:
    """What came out, in one sentence."""
    shipped = sum(ships(row) for row in report.rows)
    refused = sum(row.verdict.startswith("refused") for row in report.rows)
    parts = [f"{shipped} {'variant ships' if shipped == 1 else 'variants ship'}"]
    if refused:
        parts.append(f"{refused} {'was' if refused == 1 else 'were'} refused")
    served = len(report.targets) - len(report.failed_targets)
    if report.targets:
        parts.append(f"{served} of {len(report.targets)} targets are served")
    return ", ".join(parts)


def size_text(size_bytes: float) -> str:
    """Bytes for a person."""
    if size_bytes >= 1024**2:
        return f"{size_bytes / 1024**2:.2f} MiB"
    return f"{size_bytes / 1024:.1f} KiB" if size_bytes >= 1024 else f"{size_bytes:.0f} B"


def number_text(value: float | None, digits: int = 4, unit: str = "") -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}{unit}".replace("-", "−")


def _check_text(check: CheckResult) -> str:
    value = "not a number" if check.value is None else f"{check.value:.4g}"
    asked = f"at least {check.min:g}" if check.min is not None else f"at most {check.max:g}" if check.max else ""
    return f"{check.metric} against {check.against}{f' on {check.on}' if check.on else ''}: {value} ({asked})"


def _chart(report: BuildReport) -> Chart | None:
    points = [
        Point(row.variant, row.evidence.latency_ms.p50, row.evidence.accuracy.value, row.size_bytes, ships(row))
        for row in report.rows
        if row.evidence and row.evidence.latency_ms and row.evidence.accuracy
    ]
    levels = []
    if report.reference is not None:
        levels.append((report.reference, "source model"))
        if report.limits.max_drop:
            levels.append((report.reference - max(report.limits.max_drop.values()), "budget"))
    elif report.limits.min_agreement:
        levels.append((min(report.limits.min_agreement.values()), "budget"))
    return chart_of(points, levels)


def _machines(report: BuildReport) -> list[Machine]:
    found: dict[bytes, tuple[Where, list[str]]] = {}
    for row in report.rows:
        if row.evidence is None:
            continue
        for where in (row.evidence.where, *(one.where for one in row.evidence.elsewhere)):
            found.setdefault(encode(where), (where, []))[1].append(row.variant)
    return [Machine(where, tuple(variants)) for where, variants in found.values()]


def _steps(chains: Mapping[str, list[RawStep]]) -> list[tuple[str, str]]:
    """Each step as (name, what it is told)."""
    shown: list[tuple[str, str]] = []
    for chain in chains.values():
        for step in chain:
            told = ", ".join(f"{key} {_brief(value)}" for key, value in step.items() if key not in {"op", "id"})
            shown.append((str(step.get("op")), told[:_SUMMARY_MAX]))
    return shown


def _brief(value: object) -> str:
    if isinstance(value, list):
        return "×".join(_brief(one) for one in value) if len(value) < 4 else f"[{len(value)} values]"
    return f"{value:g}" if isinstance(value, float) else str(value)
