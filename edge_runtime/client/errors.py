"""What a client tells its caller, by type: who is to blame, and whether asking again may help."""

from __future__ import annotations

from typing import Final

from edge_runtime.contract.errors import InferenceError, TransportError


class Refused(InferenceError):
    """The server answered, and says why it has no answer; `code` is its reason."""

    retry_after_s: float = 0.0
    """When asking again may help; 0: unknown."""


class BadRequest(Refused):
    """The call itself is to blame: a name, a shape, a dtype, or bytes that cannot be read."""


class ModelNotServed(Refused):
    """The server does not serve that model, or not in that version."""


class TooLate(Refused):
    """The deadline passed before the model could begin."""


class Busy(Refused):
    """Too many calls wait already; ask again after `retry_after_s`."""


class ServerGone(TransportError):
    """Nobody listens, or the connection ended before the answer."""

    default_code = "unreachable"


class NoAnswerInTime(TransportError):
    """The server took the call and did not answer within the client's own patience."""

    default_code = "timeout"


class NotUnderstood(TransportError):
    """What came is not what the protocol says: another program listens there, or another version."""

    default_code = "protocol"


_BY_CODE: Final[dict[str, type[Refused]]] = {
    "bad_input": BadRequest,
    "contract": BadRequest,
    "unknown_model": ModelNotServed,
    "unknown_version": ModelNotServed,
    "deadline": TooLate,
    "overloaded": Busy,
}


def too_late() -> TooLate:
    """A deadline that lies behind when the call is made: the server is not asked."""
    return TooLate("ask a model", "its deadline has passed", "allow it more time", code="deadline")


def refused(code: str, cannot: str, because: str, remedy: str = "", *, retry_after_s: float = 0.0) -> Refused:
    """The error for a server's reason; a code that this client does not know is a plain `Refused`."""
    error = _BY_CODE.get(code, Refused)(cannot, because, remedy, code=code)
    error.retry_after_s = retry_after_s
    return error
