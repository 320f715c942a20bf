"""The way to a server's API: address and key from options or environment, problems as one clear sentence."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Self, cast

import httpx
import typer

from edge_runtime.contract.errors import TransportError
from fleet_server.errors import Conflict, FleetError, Forbidden, NotFound, Unauthenticated

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"
_API_KEY: Final = re.compile(r"ef_[0-9a-f]{8}_[A-Za-z0-9_-]{20,100}")
_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
_UPLOAD_TIMEOUT: Final = httpx.Timeout(120.0, connect=5.0)

ServerOption = Annotated[str | None, typer.Option("--server", help="URL of the server (EDGEFLEET_SERVER).")]
KeyOption = Annotated[
    str | None, typer.Option("--api-key", help="API key (EDGEFLEET_API_KEY), or @FILE that holds it.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

Json = dict[str, object]


class Remote:
    """One server, asked with one key."""

    def __init__(self, server: str | None, api_key: str | None) -> None:
        self.url = (server or os.environ.get("EDGEFLEET_SERVER") or DEFAULT_SERVER).rstrip("/")
        key = read_api_key(api_key or os.environ.get("EDGEFLEET_API_KEY") or "")
        # Loopback and private fleets: a proxy of the environment would only see the key.
        self._client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=_TIMEOUT, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, params: Mapping[str, str | int | float | list[str]] | None = None) -> Json:
        """A JSON object. Raises: FleetError families, TransportError."""
        return cast("Json", self._send("GET", path, params=dict(params or {})).json())

    def get_list(self, path: str) -> list[Json]:
        """A JSON list. Raises: as `get`."""
        return cast("list[Json]", self._send("GET", path).json())

    def items(self, path: str, params: Mapping[str, str | int] | None = None) -> list[Json]:
        """All items of a paged list that is followed by `after`. Raises: as `get`."""
        found: list[Json] = []
        query: dict[str, str | int | float | list[str]] = dict(params or {})
        while True:
            page = self.get(path, query)
            found += cast("list[Json]", page["items"])
            if page.get("next_cursor") is None:
                return found
            query["after"] = str(page["next_cursor"])

    def get_bytes(self, path: str) -> bytes:
        """A document, verbatim. Raises: as `get`."""
        return self._send("GET", path).content

    def post(self, path: str, body: Mapping[str, object] | None = None) -> Json:
        """The JSON answer to a request; empty when there is none. Raises: as `get`."""
        response = self._send("POST", path, json=dict(body or {}))
        return cast("Json", response.json()) if response.content else {}

    def put(self, path: str, body: Mapping[str, object]) -> Json:
        """The JSON answer to a replacement. Raises: as `get`."""
        return cast("Json", self._send("PUT", path, json=dict(body)).json())

    def delete(self, path: str) -> None:
        """Take something away. Raises: as `get`."""
        self._send("DELETE", path)

    def has(self, path: str) -> bool:
        """Whether something is there. Raises: as `get`, but for "not found"."""
        try:
            self._send("HEAD", path)
        except NotFound:
            return False
        return True

    def upload(self, path: str, pieces: Iterable[bytes]) -> None:
        """Send a body in pieces. Raises: as `get`."""
        self._send("PUT", path, content=pieces, timeout=_UPLOAD_TIMEOUT)

    def _send(self, method: str, path: str, **options: object) -> httpx.Response:
        try:
            response = self._client.request(method, path, **options)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            raise TransportError(
                f"reach the server at {self.url}", str(error) or type(error).__name__, "is it running? see --server"
            ) from error
        if response.is_error:
            raise _refusal(method, path, response)
        return response


def read_api_key(text: str) -> str:
    """An API key as an option names it: itself, or `@FILE` that holds it.

    Raises:
        FleetError: there is none, or what is there is none. What it is instead is never said: it may be another secret.
    """
    where = "--api-key"
    if text.startswith("@"):
        path = Path(text[1:])
        where = str(path)
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            because = getattr(error, "strerror", None) or "it is no text"
            raise FleetError(f"read the API key in {path}", because, "check --api-key") from error
    if not text:
        because = "no API key is given" if where == "--api-key" else f"{where} is empty"
        raise Unauthenticated("ask the server", because, "set EDGEFLEET_API_KEY or give --api-key @FILE")
    if not _API_KEY.fullmatch(text):
        remedy = "write @FILE for a key in a file; make one with edge-fleet keys create"
        raise Unauthenticated("ask the server", f"what {where} gives is no API key (ef_…)", remedy)
    return text


def _refusal(method: str, path: str, response: httpx.Response) -> FleetError:
    kind = {401: Unauthenticated, 403: Forbidden, 404: NotFound, 409: Conflict}.get(response.status_code, FleetError)
    try:
        problem = response.json()
        detail, code = str(problem["detail"]), str(problem["code"])
    except (ValueError, KeyError, TypeError):
        return kind(f"{method} {path}", f"the server answered {response.status_code}")
    sentence, _, remedy = detail.removeprefix("cannot ").partition("; ")
    what, _, because = sentence.partition(": ")
    return kind(what, because, remedy, code=code)
