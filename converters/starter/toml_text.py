"""Lines of a starter recipe: TOML with comments that stand in one column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

COLUMN: Final = 29
"""Where comments start."""
_WRITTEN_OUT: Final = 1e15
"""Whole numbers below are written without an exponent."""


def commented(code: str, comment: str) -> str:
    """A line with a comment beside it, where there is one to make."""
    return f"{code:{COLUMN - 1}} # {one_line(comment)}" if comment else code


def one_line(text: str) -> str:
    """Foreign text as a comment can hold it: a line break in it must not begin a line of the recipe."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def inline(table: Mapping[str, object]) -> str:
    """An inline table."""
    return "{ " + ", ".join(f"{key} = {value_text(value)}" for key, value in table.items()) + " }"


def value_text(value: object) -> str:
    """A value as TOML writes it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return quoted(value)
        case float():
            return f"{value:.1f}" if value.is_integer() and abs(value) < _WRITTEN_OUT else f"{value:.7g}"
        case list() | tuple():
            return f"[{', '.join(value_text(one) for one in value)}]"
        case _:
            return str(value)


def quoted(text: str) -> str:
    """A string as TOML writes it."""
    # What JSON escapes, TOML reads; besides, TOML takes no DEL, and a terminal is to print this.
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in json.dumps(text, ensure_ascii=False))
