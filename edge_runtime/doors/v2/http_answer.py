"""An HTTP answer: its parts stay apart, so that no tensor is copied on its way out."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import msgspec

from edge_runtime.contract.errors import EdgeError
from edge_runtime.doors.v2.http_body import HttpError
from edge_runtime.doors.v2.problems import retry_after_s, status_of

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpAnswer(NamedTuple):
    """Status, headers and the body in parts."""

    status: int = 200
    parts: tuple[bytes | memoryview, ...] = ()
    kind: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


def json_answer(document: Any) -> HttpAnswer:
    """200 with a JSON document."""
    return HttpAnswer(parts=(msgspec.json.encode(document),))


def error_answer(error: EdgeError) -> HttpAnswer:
    """An error as the protocol reports it."""
    after = retry_after_s(error)
    headers = (("Retry-After", str(max(1, math.ceil(after)))),) if after is not None else ()
    return _error(status_of(error).http, str(error), headers)


def http_error_answer(error: HttpError) -> HttpAnswer:
    """An error of HTTP itself, in the protocol's form."""
    headers = (("Retry-After", "1"),) if error.status == 503 else ()
    if error.status == 401:
        headers = (("WWW-Authenticate", "Bearer"),)
    return _error(error.status, f"cannot answer: {error.because}", headers)


def method_answer(allowed: str) -> HttpAnswer:
    """405: the path is right, the method is not."""
    return _error(405, f"cannot answer: this path takes {allowed}", (("Allow", allowed),))


def render(answer: HttpAnswer, *, keeps_alive: bool, is_head: bool) -> list[bytes | memoryview]:
    """An answer as the buffers to send one after another; without its body for a HEAD request."""
    text = f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\nContent-Type: {answer.kind}\r\n"
    for name, value in answer.headers:
        text += f"{name}: {value}\r\n"
    end = "\r\n" if keeps_alive else "Connection: close\r\n\r\n"
    head = f"{text}Content-Length: {sum(map(len, answer.parts))}\r\n{end}".encode("latin-1")
    return [head] if is_head else [head, *answer.parts]


def _error(status: int, sentence: str, headers: tuple[tuple[str, str], ...]) -> HttpAnswer:
    return HttpAnswer(status, (msgspec.json.encode({"error": sentence}),), JSON, headers)
