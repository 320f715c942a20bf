"""From an error to what each door says of it, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge_runtime.contract.errors import ContractError, EdgeError, TrustError

BAD_INPUT: Final = "bad_input"
NOT_FOUND: Final = "not_found"


@dataclass(frozen=True, slots=True)
class Status:
    """How the protocol's two doors report one kind of error."""

    http: int
    grpc: str
    """Name of a gRPC status code."""


_BY_CODE: Final = {
    "bad_input": Status(400, "INVALID_ARGUMENT"),
    "not_finite": Status(400, "INVALID_ARGUMENT"),
    # Bytes that no step could read, a shape that the model does not take.
    "contract": Status(400, "INVALID_ARGUMENT"),
    "exists": Status(409, "ALREADY_EXISTS"),
    "unauthorized": Status(401, "UNAUTHENTICATED"),
    "not_found": Status(404, "NOT_FOUND"),
    "unknown_model": Status(404, "NOT_FOUND"),
    "unknown_version": Status(404, "NOT_FOUND"),
    "session_ended": Status(400, "FAILED_PRECONDITION"),
    "session_in_use": Status(400, "FAILED_PRECONDITION"),
    "sessions_full": Status(503, "RESOURCE_EXHAUSTED"),
    "cancelled": Status(499, "CANCELLED"),
    "unsupported_feature": Status(501, "UNIMPLEMENTED"),
    # What Triton says of an endpoint that it was built without.
    "not_supported_here": Status(503, "UNAVAILABLE"),
    "overloaded": Status(503, "RESOURCE_EXHAUSTED"),
    "not_ready": Status(503, "UNAVAILABLE"),
    "closed": Status(503, "UNAVAILABLE"),
    "memory": Status(503, "RESOURCE_EXHAUSTED"),
    "deadline": Status(504, "DEADLINE_EXCEEDED"),
}
"""499 is what nginx writes when the client has gone; nobody reads it."""

_INTERNAL: Final = Status(500, "INTERNAL")


def status_of(error: EdgeError) -> Status:
    """The status under which an error is reported."""
    known = _BY_CODE.get(error.code)
    if known is not None:
        return known
    # A release that a client names and that cannot be taken is the client's; any other failure is ours.
    return _BY_CODE["bad_input"] if isinstance(error, ContractError | TrustError) else _INTERNAL


def retry_after_s(error: EdgeError) -> float | None:
    """Seconds after which a refused client may come again; None where that would not help."""
    if status_of(error).http != 503 or error.code == "not_supported_here":
        return None
    after = getattr(error, "retry_after_s", None)
    return float(after) if isinstance(after, int | float) else 1.0
