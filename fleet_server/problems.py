"""Errors to HTTP in one table: application/problem+json (RFC 9457), never a traceback."""

from __future__ import annotations

from typing import Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from edge_runtime.contract import errors as contract
from fleet_server import errors

MEDIA_TYPE: Final = "application/problem+json"

# The first row that fits counts: subclasses stand before their families.
_STATUS: Final[tuple[tuple[type[contract.EdgeError], int, str], ...]] = (
    (errors.Unauthenticated, 401, "Not authenticated"),
    (errors.Forbidden, 403, "Not allowed"),
    (errors.NotFound, 404, "Not found"),
    (errors.Conflict, 409, "Conflict"),
    (errors.TooLarge, 413, "Too large"),
    (errors.StorageFull, 507, "Out of storage"),
    (errors.InvalidRequest, 422, "Invalid request"),
    (errors.FleetError, 500, "Server error"),
    (contract.UnsupportedFeature, 422, "Unsupported feature"),
    (contract.ContractError, 422, "Breaks the contract"),
    (contract.TrustError, 422, "Not trusted"),
    (contract.TransportError, 503, "Peer not available"),
    (contract.EdgeError, 500, "Error"),
)

log = structlog.get_logger("http")


def install(app: FastAPI) -> None:
    """Let every error of an app leave as a problem document."""
    app.add_exception_handler(contract.EdgeError, _edge_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


def problem(error: contract.EdgeError) -> Response:
    """The response an error becomes."""
    status, title = next((status, title) for kind, status, title in _STATUS if isinstance(error, kind))
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return _respond(status, title, str(error), error.code, headers)


def problem_schema() -> dict[str, object]:
    """OpenAPI schema of a problem document, with an example."""
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["title", "status", "detail", "code"],
        "properties": {"title": text, "status": {"type": "integer"}, "detail": text, "code": text},
        "example": {
            "title": "Not found",
            "status": 404,
            "detail": "cannot show device kitchen-7: it is not known; list devices with edge-fleet devices list",
            "code": "not_found",
        },
    }


def responses(*statuses: int) -> dict[int | str, dict[str, object]]:
    """OpenAPI entries for the problems a route can answer with."""
    return {
        status: {"description": "Problem", "content": {MEDIA_TYPE: {"schema": problem_schema()}}} for status in statuses
    }


async def _edge_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, contract.EdgeError)
    return problem(error)


async def _invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return _respond(422, "Invalid request", f"cannot read {where}: {first['msg']}", "invalid_request", {})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"cannot {request.method} {request.url.path}: {error.detail}"
    return _respond(
        error.status_code, str(error.detail), detail, f"http_{error.status_code}", dict(error.headers or {})
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("request.failed", method=request.method, path=request.url.path, exc_info=error)
    detail = "cannot answer: the server failed unexpectedly; its log says more"
    return _respond(500, "Server error", detail, "internal", {})


def _respond(status: int, title: str, detail: str, code: str, headers: dict[str, str]) -> Response:
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
    return JSONResponse(content, status_code=status, media_type=MEDIA_TYPE, headers=headers)
