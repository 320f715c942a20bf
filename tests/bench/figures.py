"""Figures as people read them: medians with their spread, ratios, Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def spread(values: Sequence[float], unit: str, digits: int = 0) -> str:
    """`median (lowest to highest) unit`."""
    shown = [f"{value:.{digits}f}" for value in (median(values), min(values), max(values))]
    return f"{shown[0]} ({shown[1]} to {shown[2]}) {unit}"


def ratio(value: float, base: float) -> str:
    """`1.23 x`."""
    return f"{value / base:.2f} x"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
