"""Bars that compare figures, drawn as SVG for a page that is read in the light and in the dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_WIDTH = 800
_LEFT = 300
"""Where bars begin; their names stand before it."""
_RIGHT = 96
"""Room for the figure behind the longest bar."""
_TOP = 58
_STEP = 30
_BAR = 18
_BOTTOM = 16
_STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2933 }
  .title { font-size: 16px; font-weight: 600 }
  .said { fill: #52606d }
  .ours { fill: #0f766e }
  .theirs { fill: #9aa5b1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e7eb }
    .said { fill: #9aa5b1 }
    .ours { fill: #2dd4bf }
    .theirs { fill: #616e7c }
  }
"""


@dataclass(frozen=True)
class Bar:
    """One figure."""

    name: str
    value: float
    shown: str
    """As people read it."""
    is_ours: bool


def write_bars(path: Path, title: str, said: str, bars: Sequence[Bar]) -> None:
    """Draw one bar a line, all from zero, to the same scale.

    Args:
        path: of the SVG file.
        title: what is compared.
        said: how to read it, in one line.
        bars: in the order in which they are shown.
    """
    height = _TOP + _STEP * len(bars) + _BOTTOM
    scale = (_WIDTH - _LEFT - _RIGHT) / (max(bar.value for bar in bars) or 1.0)
    marks = []
    for number, bar in enumerate(bars):
        y = _TOP + number * _STEP
        long = max(bar.value * scale, 1.5)
        middle = y + _BAR / 2 + 5
        whose = "ours" if bar.is_ours else "theirs"
        marks += [
            f'<text x="{_LEFT - 12}" y="{middle:.0f}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect class="{whose}" x="{_LEFT}" y="{y}" width="{long:.1f}" height="{_BAR}" rx="2"/>',
            f'<text x="{_LEFT + long + 8:.1f}" y="{middle:.0f}">{escape(bar.shown)}</text>',
        ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" role="img">'
    lines = [
        head,
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="16" y="24">{escape(title)}</text>',
        f'<text class="said" x="16" y="44">{escape(said)}</text>',
        *marks,
        "</svg>",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
