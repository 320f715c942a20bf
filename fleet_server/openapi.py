"""Contract documents in OpenAPI: FastAPI cannot take Structs, so their schemas are put in by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from edge_runtime.contract.codec import Document

_REF = "#/components/schemas/{name}"
_JSON = "application/json"


def describe_documents(app: FastAPI, documents: Iterable[type[Document]]) -> None:
    """Let `app.openapi()` show the documents that its routes name by `x-request` and `x-response`."""
    kinds = list(documents)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(get_openapi(title=app.title, version=app.version, routes=app.routes), kinds)
        return app.openapi_schema

    # FastAPI's own documented way to extend the schema is to replace this method of the instance.
    app.openapi = openapi  # type: ignore[method-assign]


def _described(schema: dict[str, Any], kinds: list[type[Document]]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    schema.setdefault("components", {}).setdefault("schemas", {}).update(components)
    for path in schema["paths"].values():
        for operation in path.values():
            if name := operation.pop("x-request", None):
                operation["requestBody"] = {"required": True, "content": _content(name)}
            if name := operation.pop("x-response", None):
                operation["responses"]["200"] = {"description": name, "content": _content(name)}
    return schema


def _content(name: str) -> dict[str, Any]:
    return {_JSON: {"schema": {"$ref": _REF.format(name=name)}}}
