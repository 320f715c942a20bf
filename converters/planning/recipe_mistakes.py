"""Says what is wrong in a recipe: its file, the line, the key, and what would do; pure."""

from __future__ import annotations

import difflib
import re
from typing import Any, Final

import msgspec

from converters.errors import BadRecipe
from edge_runtime.contract.choices import find_mistake, with_choices
from edge_runtime.contract.ids import shown
from edge_runtime.contract.toml_lines import line_of

_AT: Final = re.compile(r" - at `\$[^`]*`")
_MISSING: Final = re.compile(r"missing required field `([^`]*)`")
_UNKNOWN: Final = re.compile(r"unknown field `([^`]*)`")
_STEP: Final = re.compile(r"(inputs|outputs)\.(.+?)\.steps\.(\d+): ")
_BECAUSE_MAX: Final = 300


def explain(message: str, kind: type[msgspec.Struct], fields: object, text: str, name: str) -> BadRecipe:
    """The error of a recipe that could be decoded and is none.

    Args:
        message: of msgspec's error.
        kind: what it should be.
        fields: the recipe as it was decoded.
        text: its TOML, for the line; empty for other formats.
        name: how a person calls it.
    """
    path, kinds = find_mistake(message, kind, fields)
    told = with_choices(message, kind)
    because, remedy = _AT.sub("", message).replace("`", "'"), told[len(message) :].removeprefix("; ") or "correct it"
    if missing := _MISSING.search(message):
        path, because, remedy = [*path, missing[1]], "it is missing", "write it"
    elif unknown := _UNKNOWN.search(message):
        path, because, remedy = [*path, unknown[1]], "unknown key", _near(unknown[1], kinds or [kind])
    where, named = _line(text, path), ".".join(path)
    return BadRecipe(f"read {name}", shown_cut(f"{where}{named}: {because}" if named else because), remedy)


def at_line(problem: str, text: str) -> str:
    """A problem of a step that begins with the path of that step, with its line in front; others as they are."""
    found = _STEP.match(problem)
    return problem if found is None else _line(text, [found[1], found[2], "steps", found[3]]) + problem


def _line(text: str, path: list[str]) -> str:
    line = line_of(text.splitlines(), path) if path else None
    return f"line {line}, " if line else ""


def shown_cut(text: str) -> str:
    """A sentence about a stranger's file, printable and cut."""
    plain = shown(text, _BECAUSE_MAX)
    return plain[1:-1] if plain[:1] in {"'", '"'} else plain


def _near(odd: str, kinds: list[Any]) -> str:
    structs = [one for one in kinds if isinstance(one, type) and issubclass(one, msgspec.Struct)]
    known = [field.encode_name for one in structs for field in msgspec.structs.fields(one)]
    close = difflib.get_close_matches(odd, known, n=1)
    return f"write {close[0]}" if close else f"write one of {', '.join(known)}" if known else "leave it out"
