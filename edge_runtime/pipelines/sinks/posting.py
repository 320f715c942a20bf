"""One JSON document to one URL over HTTP: whom it may be sent to, how it is signed, and what an answer means."""

from __future__ import annotations

import hmac
import logging
import re
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import shown
from edge_runtime.pipelines.description import WebhookSink

_URL_MAX: Final = 2048
_SECRET_MAX_BYTES: Final = 4096
_ANSWER_MAX_BYTES: Final = 64 * 1024
_SECRET: Final = re.compile(rb"[\x21-\x7e]{16,512}")
_WHOLE: Final = 6
"""Times the timeout of one piece: a server that sends a byte now and then must not hold the sink for ever."""
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_WORTH_ANOTHER_TRY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Timeouts, too much at once, and faults of the server (RFC 9110, 15.5 and 15.6; RFC 8470; RFC 6585)."""


@dataclass(frozen=True, slots=True)
class Posted:
    """How an attempt ended."""

    verdict: Literal["taken", "refused", "later"]
    """Taken by the server; refused, so that asking again is no use; or worth another try."""
    because: str = ""
    retry_after_s: float = 0.0
    """The server's own wish."""


class Poster:
    """Sends documents; one thread.

    Args:
        name: of the sink.
        described: where to, with which secrets.

    Raises:
        ContractError: no such URL may be used, or a file cannot be.
    """

    def __init__(self, name: str, described: WebhookSink) -> None:
        import httpx

        cannot = f"open sink {name}"
        self._url, self._timeout_s = described.url, described.timeout_s
        self.where, host = _checked(cannot, described)
        """Scheme, host and port: paths of such URLs are secrets often enough."""
        self._socket: socket.socket | None = None
        token = None if described.token_file is None else _read_secret(cannot, described.token_file)
        self._secret = None if described.secret_file is None else _read_secret(cannot, described.secret_file)
        headers = {"Content-Type": "application/json", "User-Agent": "edgefleet-pipeline"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.decode('ascii')}"
        # It writes down the whole URL of each request, for whoever collects the logs of this process.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        # A redirect would carry records, and perhaps the token, to somebody whom nobody named.
        self._client = httpx.Client(
            timeout=described.timeout_s, verify=_trust(cannot, described), follow_redirects=False, headers=headers,
            # Nor does what is meant for this machine go to a proxy of the environment, and in the clear.
            trust_env=host not in _LOOPBACK,
        )  # fmt: skip

    def post(self, body: bytes, delivery: uuid.UUID) -> Posted:
        """Send one document.

        Args:
            body: JSON.
            delivery: the same for every attempt, so that a server can tell a repetition.
        """
        headers = {"Edgefleet-Delivery": str(delivery)}
        if self._secret is not None:
            headers["Edgefleet-Signature"] = signature(self._secret, body, int(time.time()))
        try:
            with self._in_time(), self._client.stream(
                "POST", self._url, content=body, headers=headers, extensions={"trace": self._note}
            ) as answer:  # fmt: skip
                self._read_away(answer.iter_raw())
                return verdict(answer.status_code, answer.headers.get("Retry-After", ""))
        except Exception as error:  # noqa: BLE001 (what a server sends fails a library in ways that nobody can list)
            said = f": {shown(str(error))}" if str(error) else ""
            return Posted("later", f"{type(error).__name__}{said}")

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        """Hang up on a server that is not through in time: timeouts of the library begin anew with each byte."""
        late = threading.Timer(_WHOLE * self._timeout_s, self._hang_up)
        late.daemon = True
        late.start()
        try:
            yield
        finally:
            late.cancel()

    def _note(self, event: str, found: Mapping[str, Any]) -> None:  # noqa: ARG002 (the signature is the library's)
        """Remember the connection that was made."""
        stream: Any = found.get("return_value")
        if hasattr(stream, "get_extra_info"):
            self._socket = stream.get_extra_info("socket")

    def _hang_up(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                # Past TLS, whose state belongs to the thread that waits.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _read_away(self, body: Iterator[bytes]) -> None:
        """Read a short answer, so that the connection serves the next request; a long or slow one costs it."""
        until, left = time.monotonic() + self._timeout_s, _ANSWER_MAX_BYTES
        for piece in body:
            left -= len(piece)
            if left < 0 or time.monotonic() > until:
                return

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def signature(secret: bytes, body: bytes, at: int) -> str:
    """HMAC-SHA256 over the second, a dot and the body; the second lets a server refuse what was recorded long ago."""
    return f"t={at},v1={hmac.digest(secret, b'%d.' % at + body, 'sha256').hex()}"


def verdict(status: int, retry_after: str = "") -> Posted:
    """What a status code means for the document."""
    if 200 <= status < 300:
        return Posted("taken")
    if status in _WORTH_ANOTHER_TRY:
        wished_s = float(retry_after) if re.fullmatch(r"\d{1,5}", retry_after) else 0.0
        return Posted("later", f"it answers {status}", wished_s)
    hint = ", and redirects are not followed" if 300 <= status < 400 else ""
    return Posted("refused", f"it answers {status}{hint}")


def _checked(cannot: str, described: WebhookSink) -> tuple[str, str]:
    """Scheme, host and port of the URL; the host alone. Raises: ContractError."""
    try:
        if len(described.url) > _URL_MAX or not described.url.isascii() or not described.url.isprintable():
            raise ValueError("it has other characters than a URL, or too many")
        parts = urlsplit(described.url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ContractError(cannot, f"its url cannot be read ({error})", "write https://HOST/PATH") from error
    if parts.scheme not in {"http", "https"} or not host:
        raise ContractError(cannot, f"its url begins with {shown(parts.scheme or '')}", "write https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise ContractError(cannot, "its url holds credentials", "put a token into a file and name it in token_file")
    if parts.scheme == "http" and described.token_file is not None and host not in _LOOPBACK:
        raise ContractError(cannot, "its token would cross the network in the clear", "write https://")
    literal = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{literal}" + (f":{port}" if port is not None else ""), host


def _read_secret(cannot: str, path: Path) -> bytes:
    try:
        with path.open("rb") as source:
            secret = source.read(_SECRET_MAX_BYTES).strip()
    except OSError as error:
        raise ContractError(cannot, f"{path} cannot be read ({error.strerror or error})", "check it") from error
    if not _SECRET.fullmatch(secret):
        because = f"{path} does not hold 16 to 512 printable characters without spaces"
        raise ContractError(cannot, because, "write a random one: openssl rand -hex 32")
    return secret


def _trust(cannot: str, described: WebhookSink) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if described.ca_file is None else str(described.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ContractError(cannot, f"ca_file cannot be used ({error})", "check the file") from error
