"""Reads a pipeline's file; an error names the line, the key and what would do."""

from __future__ import annotations

import difflib
import re
import sys
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from edge_runtime.contract.choices import with_choices
from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.toml_lines import line_of
from edge_runtime.pipelines.description import Crops, Description, Model, Sink, Source

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE_MAX_BYTES: Final = 1024 * 1024
_TABLES: Final[dict[str, Any]] = {"sources": Source, "models": Model, "crops": Crops, "sinks": Sink}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_UNKNOWN: Final = re.compile(r"unknown field `([^`]*)`")
_AT: Final = re.compile(r" - at `\$\.?([^`]*)`")


def read_description(path: Path) -> Description:
    """Read a pipeline's file; relative paths in it start at its folder.

    Raises:
        ContractError: it cannot be read, is no TOML, or has unknown, missing or impossible values.
    """
    try:
        with path.open("rb") as source:
            content = source.read(FILE_MAX_BYTES + 1)
    except OSError as error:
        raise ContractError(f"read {path}", error.strerror or str(error), "name the pipeline's file") from error
    if len(content) > FILE_MAX_BYTES:
        raise ContractError(f"read {path}", f"it is larger than {FILE_MAX_BYTES} bytes")
    return parse_description(content, path)


def parse_description(content: bytes, path: Path) -> Description:
    """Check the bytes of a pipeline's file. Raises: ContractError."""
    try:
        text = content.decode()
        fields = tomllib.loads(text)
    except RecursionError as error:
        raise ContractError(f"read {path}", "its values are nested too deeply", "write plain tables") from error
    except ValueError as error:  # what is no TOML, no UTF-8, or a number of thousands of digits
        raise ContractError(f"read {path}", f"it is not TOML ({error})", "correct that line") from error
    reader = _Reader(text, path)
    if odd := next((key for key in fields if key not in {"name", *_TABLES}), None):
        raise reader.refused([odd], "unknown key", _near(odd, ("name", *_TABLES)))
    tables = {kind: reader.tables(kind, fields.get(kind, {})) for kind in _TABLES}
    for kind in ("sources", "models", "sinks"):
        if not tables[kind]:
            raise ContractError(f"use {path}", f"it has no {kind}", f"write a table [{kind}.NAME]")
    name = fields.get("name", path.stem)
    if not isinstance(name, str) or not _NAME.match(name):
        raise reader.refused(["name"], f"{shown(name)} is no name", "use a-z, 0-9, '-' and '_'")
    return _rooted(Description(name=name, **tables), path.resolve().parent)


class _Reader:
    """Turns tables into types, and finds the line of what is wrong."""

    def __init__(self, text: str, path: Path) -> None:
        self._lines = text.splitlines()
        self._path = path

    def tables(self, kind: str, given: object) -> dict[str, Any]:
        if not isinstance(given, dict):
            raise self.refused([kind], "it is no table", f"write [{kind}.NAME]")
        return {name: self._table(kind, name, fields) for name, fields in given.items()}

    def _table(self, kind: str, name: str, fields: object) -> Any:
        if not _NAME.match(name):
            raise self.refused([kind, name], f"{shown(name)} is no name", "use a-z, 0-9, '-' and '_'")
        if not isinstance(fields, dict):
            raise self.refused([kind, name], "it is no table", f"write [{kind}.{name}]")
        try:
            return msgspec.convert(fields, _TABLES[kind], dec_hook=_path)
        except msgspec.ValidationError as error:
            raise self._explained(kind, name, fields, str(error)) from error

    def _explained(self, kind: str, name: str, fields: dict[str, Any], message: str) -> ContractError:
        found = _AT.search(message)
        inside = re.split(r"[.\[]", found[1])[0] if found else ""
        because = _AT.sub("", message).replace("`", "'").replace(" | null", "")
        members = {str(one.__struct_config__.tag): one for one in get_args(_TABLES[kind])}
        chosen = members.get(str(fields.get("kind"))) or (None if members else _TABLES[kind])
        if odd := _UNKNOWN.search(message):
            keys = [field.encode_name for field in msgspec.structs.fields(chosen)] if chosen else []
            return self.refused([kind, name, odd[1]], "unknown key", _near(odd[1], (*keys, "kind")))
        if members and chosen is None:
            why = f"{shown(fields['kind'])} is no kind of {kind}" if "kind" in fields else "it does not say its kind"
            return self.refused([kind, name, "kind"], why, f"write kind = one of {', '.join(members)}")
        if "Invalid enum value" in message and chosen:
            because = with_choices(message, chosen).partition("; ")[2] or because
            return self.refused([kind, name, inside], f"{shown(fields.get(inside))} cannot stand there", because)
        return self.refused([kind, name, *([inside] if inside else [])], shown_plain(because), "correct it")

    def refused(self, path: list[str], because: str, remedy: str) -> ContractError:
        line = line_of(self._lines, path)
        where = f"line {line}, " if line else ""
        return ContractError(f"use {self._path}", f"{where}{'.'.join(path)}: {because}", remedy)


def shown_plain(text: str) -> str:
    """Text of a message that names values of the file, cut."""
    return text if len(text) <= 200 else text[:199] + "…"


def _near(odd: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(odd, known, n=1)
    return f"write {close[0]}" if close else f"write one of {', '.join(known)}"


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        if "\0" in value:
            raise ValueError("no file's name holds a zero byte")
        return Path(value)
    raise TypeError(f"expected a {kind.__name__.lower()}")


def _rooted(description: Description, folder: Path) -> Description:
    """The description with every relative path below the file's folder."""

    def rooted(table: Any) -> Any:
        changed = {
            field.name: folder / value
            for field in msgspec.structs.fields(table)
            if isinstance(value := getattr(table, field.name), Path)
        }
        return msgspec.structs.replace(table, **changed)

    return msgspec.structs.replace(
        description,
        **{kind: {name: rooted(one) for name, one in getattr(description, kind).items()} for kind in _TABLES},
    )
