"""Finds the line of a TOML file that writes a key, for a person who has to correct it; pure."""

from __future__ import annotations

import re
from typing import Final

_LINE_MAX: Final = 1000


def line_of(lines: list[str], path: list[str]) -> int | None:
    """Number of the line that writes a key, or its table where the key is missing; None when neither is found.

    Follows `[table]` headers, dotted keys and keys of inline tables on one line, which is how people write these files.
    """
    table: list[str] = []
    best: tuple[int, int] | None = None
    for number, line in enumerate(lines, 1):
        # Cut, because the patterns try each pair of places, and a text in quotes may be as long as the file.
        stripped = line.strip()[:_LINE_MAX]
        if header := re.match(r"\[+\s*([^\[\]]+?)\s*\]+", stripped):
            table = _dotted(header[1])
            written = table
        elif assigned := re.match(r"([\w.\"'\s-]+?)\s*=", stripped):
            written = [*table, *_dotted(assigned[1])]
        else:
            continue
        shared = min(len(written), len(path))
        depth = shared if written[:shared] == path[:shared] else 0
        if depth == 2 and len(path) > 2 and re.search(rf"[{{,]\s*{re.escape(path[2])}\s*=", stripped):
            depth = 3
        if depth and (best is None or depth > best[0]):
            best = (depth, number)
    return best[1] if best else None


def _dotted(text: str) -> list[str]:
    return [part.strip().strip("\"'") for part in text.split(".")]
