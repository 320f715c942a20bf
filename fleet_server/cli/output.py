"""What commands print: plain lines for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence


def say(text: str) -> None:
    """One message on standard output, at once."""
    print(text, flush=True)


def show_json(value: object) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False), flush=True)


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table that reads well on a terminal and stays unwrapped in a pipe."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        # Text, not markup: what devices say of themselves must not colour or hide anything.
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 240
    Console(width=width).print(table)
