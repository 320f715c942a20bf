"""Finds the line of a TOML file that writes a key, for a person who has to correct it; pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_LINE_MAX: Final = 1000


def line_of(lines: list[str], path: list[str]) -> int | None:
    """Number of the line that writes a key, or its table where the key is missing; None when neither is found.

    Follows `[table]` and `[[table]]` headers, dotted keys and keys of inline tables on one line, which is how people
    write these files. A table of a list has its place there as a key.
    """
    table: list[str] = []
    lists: dict[tuple[str, ...], int] = {}
    best: tuple[int, int] | None = None
    for number, line in enumerate(lines, 1):
        # Cut, because the patterns try each pair of places, and a text in quotes may be as long as the file.
        stripped = line.strip()[:_LINE_MAX]
        if header := re.match(r"(\[+)\s*([^\[\]]+?)\s*\]+", stripped):
            named = tuple(_dotted(header[2]))
            if header[1] == "[[":
                # Lists inside one of its tables begin anew in the next.
                inner = [one for one in lists if len(one) > len(named) and one[: len(named)] == named]
                for one in inner:
                    del lists[one]
                lists[named] = lists.get(named, -1) + 1
            table = written = _placed(named, lists)
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


def _placed(named: tuple[str, ...], lists: Mapping[tuple[str, ...], int]) -> list[str]:
    """A table's path with its places in lists: those of the last table that was begun in each."""
    placed: list[str] = []
    for depth, key in enumerate(named, 1):
        placed.append(key)
        if (place := lists.get(named[:depth])) is not None:
            placed.append(str(place))
    return placed


def _dotted(text: str) -> list[str]:
    return [part.strip().strip("\"'") for part in text.split(".")]
