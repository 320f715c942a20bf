"""What gRPC says around its messages: the head of a call, and the status at its end.

Format: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from edge_runtime.contract.errors import EdgeError
from edge_runtime.contract.ids import shown
from edge_runtime.doors.v2.problems import retry_after_s, status_of
from edge_runtime.doors.v2.wire import BYTES, INT, STRING, Field, Message

Header = tuple[bytes, bytes]

CODINGS: Final = frozenset({"gzip", "deflate"})
"""Besides none at all."""

_CODES: Final = {
    name: number
    for number, name in enumerate(
        (
            "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
            "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
            "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
        )
    )
}  # fmt: skip

_KIND: Final = b"application/grpc"
_CONTENT_TYPE: Final = (b"content-type", _KIND)
HEAD: Final[tuple[Header, ...]] = ((b":status", b"200"), _CONTENT_TYPE)
"""Before the first message of an answer."""
SUCCESS: Final[tuple[Header, ...]] = ((b"grpc-status", b"0"),)
"""Behind the last one."""

_MESSAGE_MAX: Final = 2048
"""Characters of a sentence; clients take eight kilobytes of headers, and each may become nine bytes."""
_PRINTABLE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])\Z")
_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

_DURATION: Final = Message(Field(1, "seconds", INT), Field(2, "nanos", INT))
_RETRY_INFO: Final = Message(Field(1, "retry_delay", _DURATION))
_ANY: Final = Message(Field(1, "type_url", STRING), Field(2, "value", BYTES))
_STATUS: Final = Message(Field(1, "code", INT), Field(2, "message", STRING), Field(3, "details", _ANY, repeated=True))
"""google.rpc.Status with google.rpc.RetryInfo, googleapis' error_details.proto."""


@dataclass(frozen=True, slots=True)
class CallHead:
    """What a client says before its first message."""

    path: str
    authorization: str | None
    timeout_s: float | None
    """None: it waits for ever."""
    coding: str
    """In which its messages may be folded; empty: none."""


class CallRefused(Exception):
    """A call that ends without an answer."""

    def __init__(self, status: str, sentence: str, *trailers: Header, http_status: bytes = b"200") -> None:
        super().__init__(sentence)
        self.code = _CODES[status]
        self.is_for_lack_of_room = status == "RESOURCE_EXHAUSTED"
        """The client has done nothing wrong."""
        self.sentence = sentence
        self.http_status = http_status
        """What is no gRPC is told so in HTTP's terms."""
        self._more = trailers

    def trailers(self) -> tuple[Header, ...]:
        """Status and sentence, as they end a call."""
        told = quote(self.sentence[:_MESSAGE_MAX], safe=_PRINTABLE).encode()
        return (b"grpc-status", b"%d" % self.code), (b"grpc-message", told), *self._more

    def alone(self) -> tuple[Header, ...]:
        """The same as the only thing that is said."""
        return (b":status", self.http_status), _CONTENT_TYPE, *self.trailers()


def refusal_of(error: EdgeError) -> CallRefused:
    """What a client is told of an error, with the moment to come again where there is one."""
    status, sentence = status_of(error).grpc, str(error)
    delay_s = retry_after_s(error)
    if delay_s is None:
        return CallRefused(status, sentence)
    details = base64.b64encode(_retry_details(_CODES[status], sentence, delay_s)).rstrip(b"=")
    pushback = b"%d" % math.ceil(delay_s * 1000)
    return CallRefused(
        status, sentence, (b"grpc-retry-pushback-ms", pushback), (b"grpc-status-details-bin", details)
    )  # for the library's own retries, and for a person's program


def read_head(headers: Iterable[Header]) -> CallHead:
    """The head of a call. Raises: CallRefused when it is none of gRPC's, or asks for what is not spoken here."""
    named = dict(headers)
    if named.get(b":method") != b"POST":
        raise CallRefused("INTERNAL", "cannot answer: a gRPC call is a POST", http_status=b"405")
    kind = named.get(b"content-type", b"")
    if not kind.startswith(_KIND) or kind[len(_KIND) : len(_KIND) + 1] not in {b"", b"+", b";"}:
        raise CallRefused("INTERNAL", "cannot answer: the content-type is not application/grpc", http_status=b"415")
    if named.get(b"te") != b"trailers":
        because = "the header te: trailers is missing; something between here and the client does not pass it on"
        raise CallRefused("INTERNAL", f"cannot answer: {because}")
    coding = named.get(b"grpc-encoding", b"identity").decode("latin-1")
    if coding != "identity" and coding not in CODINGS:
        told = f"cannot read the message: its encoding {shown(coding)} is not known here; use gzip, deflate or none"
        raise CallRefused("UNIMPLEMENTED", told, (b"grpc-accept-encoding", b"identity,gzip,deflate"))
    shown_token = named.get(b"authorization")
    return CallHead(
        named.get(b":path", b"").decode("latin-1"),
        None if shown_token is None else shown_token.decode("latin-1"),
        _timeout_s(named.get(b"grpc-timeout")),
        "" if coding == "identity" else coding,
    )


def _timeout_s(stated: bytes | None) -> float | None:
    if stated is None:
        return None
    found = _TIMEOUT.match(stated)
    if found is None:
        because = f"grpc-timeout is {shown(stated.decode('latin-1'))}"
        raise CallRefused("INTERNAL", f"cannot answer: {because}; write up to eight digits and one of H M S m u n")
    return int(found[1]) * _SECONDS[found[2]]


def _retry_details(code: int, message: str, delay_s: float) -> bytes:
    seconds, rest = math.modf(delay_s)[::-1]
    info = _RETRY_INFO.write({"retry_delay": {"seconds": int(seconds), "nanos": int(rest * 1e9)}})
    detail = {"type_url": "type.googleapis.com/google.rpc.RetryInfo", "value": info}
    return _STATUS.write({"code": code, "message": message, "details": [detail]})
