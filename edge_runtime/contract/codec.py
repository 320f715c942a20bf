"""Bytes to documents and back: canonical JSON out, capped and typed in, versions checked."""

from __future__ import annotations

import math
from typing import Final, TypeVar

import msgspec

from edge_runtime.contract.errors import ContractError, UnsupportedFeature
from edge_runtime.contract.ids import shown

SCHEMA: Final = "1.0"
"""`major.minor` that this software writes; it reads every minor of this major."""

DOCUMENT_MAX_BYTES: Final = 4 * 1024 * 1024
MESSAGE_MAX_BYTES: Final = 256 * 1024

_DocumentT = TypeVar("_DocumentT")


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of everything on the wire: immutable, keyword only, unknown fields ignored on reading."""


def encode(document: object) -> bytes:
    """Canonical JSON: UTF-8, keys sorted by code point, no white space.

    Raises:
        ContractError: the document holds NaN or an infinity, which JSON cannot carry.
    """
    builtins = msgspec.to_builtins(document, order="sorted")
    _refuse_non_finite(builtins)
    return msgspec.json.encode(builtins, order="sorted")


def decode(
    content: bytes, kind: type[_DocumentT], *, max_bytes: int = DOCUMENT_MAX_BYTES, what: str = ""
) -> _DocumentT:
    """Read one document of a known type; `what` is what errors call it, else its type's name.

    Raises:
        UnsupportedFeature: it has a `schema` of another major version.
        ContractError: too large, not JSON, or of another shape.
    """
    name = what or kind.__name__
    if len(content) > max_bytes:
        raise ContractError(f"read {name}", f"{len(content)} bytes exceed the limit of {max_bytes}")
    try:
        document = msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse_other_major(content, name)
        raise ContractError(f"read {name}", shown(str(error), 200), "check where the document comes from") from error
    except RecursionError as error:
        raise ContractError(f"read {name}", "it is nested too deeply") from error
    check_schema(getattr(document, "schema", SCHEMA), name)
    return document


def check_schema(schema: str, name: str) -> None:
    """Refuse a document of another major version. Raises: ContractError, UnsupportedFeature."""
    major, dot, minor = schema.partition(".")
    if not (dot and major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        raise ContractError(f"read {name}", f"schema {shown(schema)} is not major.minor")
    if major != SCHEMA.partition(".")[0]:
        raise UnsupportedFeature(
            f"read {name}", f"schema {shown(schema)} has another major version than {SCHEMA}", "update edgefleet here"
        )


class _SchemaOnly(msgspec.Struct):
    schema: str = SCHEMA


def _refuse_other_major(content: bytes, name: str) -> None:
    """A document of a newer major may have any shape: name the version rather than the first odd field."""
    try:
        schema = msgspec.json.decode(content, type=_SchemaOnly).schema
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    check_schema(schema, name)


def _refuse_non_finite(value: object) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ContractError("write JSON", f"{value} is not a number JSON can carry", "replace it before writing")
    elif isinstance(value, dict):
        for item in value.values():
            _refuse_non_finite(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_non_finite(item)
