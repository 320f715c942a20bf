"""Which values a document's field may have, for a person whose own value was refused."""

from __future__ import annotations

import re
import types
from contextlib import suppress
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

_REFUSED: Final = "Invalid enum value"
_STEP: Final = re.compile(r"\.([^.\[\]]+)|\[[^\]]*\]")
"""One step of the path that msgspec names: `.field`, or `[...]` for a key or a position."""


def with_choices(message: str, kind: Any) -> str:
    """A validation error that also names what may stand there; unchanged where it is about something else.

    Args:
        message: of msgspec's error.
        kind: the type that was asked for.
    """
    if _REFUSED not in message:
        return message
    path = message.rpartition("`$")[2].rstrip("`")
    kinds = _members(kind)
    for found in _STEP.finditer(path):
        kinds = [member for one in kinds for inner in _inside(one, found[1]) for member in _members(inner)]
    values = dict.fromkeys(str(value) for one in kinds if get_origin(one) is Literal for value in get_args(one))
    return f"{message}; write one of {', '.join(values)}" if values else message


def find_mistake(message: str, kind: Any, value: object) -> tuple[list[str], list[Any]]:
    """Keys that lead to what is wrong in a document, and the types that stand there.

    msgspec names fields, and writes `[...]` for every key of a table: here the first that does not fit is found.

    Args:
        message: of msgspec's error.
        kind: the type that was asked for.
        value: the document, decoded without a type.
    """
    kinds, keys = _members(kind), []
    for found in _STEP.finditer(message.rpartition("`$")[2].rstrip("`")):
        kinds = [member for one in kinds for inner in _inside(one, found[1]) for member in _members(inner)]
        entries = dict(enumerate(value)) if isinstance(value, list) else value
        if not isinstance(entries, dict):
            break
        if (key := found[1]) is None:
            key = next((one for one, inner in entries.items() if not _fits(inner, kinds)), None)
        if key not in entries:
            break
        keys.append(str(key))
        value = entries[key]
    return keys, kinds


def _fits(value: object, kinds: list[Any]) -> bool:
    for kind in kinds:
        with suppress(msgspec.ValidationError):
            msgspec.convert(value, kind)
            return True
    return False


def _members(kind: Any) -> list[Any]:
    """The types of a union, each alone."""
    if get_origin(kind) in {Union, types.UnionType}:
        return [member for one in get_args(kind) for member in _members(one)]
    return [kind]


def _inside(kind: Any, name: str | None) -> list[Any]:
    """The type of a field, or of what a collection holds where no field is named."""
    if name is None:
        return list(get_args(kind)[-1:])
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return []
    hints = get_type_hints(kind)
    return [hints[field.name] for field in msgspec.structs.fields(kind) if field.encode_name == name]
