"""Stands before everything: no console page, file or socket without a session, and none for a foreign site's page."""

from __future__ import annotations

from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Final
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet_server.console.door import Door
from fleet_server.console.sessions import COOKIE

CONSOLE: Final = "/console"
LOGIN: Final = "/login"
LOGOUT: Final = "/logout"
OPEN_PATHS: Final = frozenset({"/", LOGIN, LOGOUT})
"""Paths that answer without a session: the way to the form, the form, and the way out."""

CONTENT_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
"""NiceGUI starts from an inline script and compiles its templates in the browser, hence inline and eval."""

# With no-referrer browsers would send "Origin: null" even for our own form.
_ALWAYS: Final = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": CONTENT_POLICY,
}
_GUARDED: Final = (CONSOLE, "/_nicegui", "/_nicegui_ws")
_LOOK_AGAIN_S: Final = 2.0
_SESSION_ENDED: Final = 4401


class Gate:
    """ASGI middleware of the people's application; the API's own paths pass untouched."""

    def __init__(self, app: ASGIApp, door: Door, clock: Callable[[], float]) -> None:
        self._app = app
        self._door = door
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse, or pass on."""
        if scope["type"] not in {"http", "websocket"} or not _concerns(scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_foreign = not _is_own_origin(headers)
        token = session_token(headers)
        if scope["type"] == "websocket":
            if is_foreign or await run_in_threadpool(self._door.who, token) is None:
                await receive()
                await send({"type": "websocket.close", "code": _SESSION_ENDED})
                return
            await self._app(scope, self._while_welcome(receive, token), send)
            return
        sending = _with_headers(send, scope["path"])
        if is_foreign and scope["method"] not in {"GET", "HEAD"}:
            await PlainTextResponse("cannot do this: it was asked by another site's page", 403)(scope, receive, sending)
        elif scope["path"] in OPEN_PATHS or await run_in_threadpool(self._door.who, token) is not None:
            # NiceGUI lives below this path; a relative redirect holds behind any proxy.
            inner = RedirectResponse(f"{CONSOLE}/", 303) if scope["path"] == CONSOLE else self._app
            await inner(scope, receive, sending)
        elif scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
            await RedirectResponse(LOGIN, 303)(scope, receive, sending)
        else:
            await PlainTextResponse("cannot answer: log in first", 401)(scope, receive, sending)

    def _while_welcome(self, receive: Receive, token: str | None) -> Receive:
        """Pass a socket's messages on, and end it soon after its session has ended: a page can stay open for days."""
        looked_at = self._clock()

        async def receive_or_end() -> Message:
            nonlocal looked_at
            message = await receive()
            if self._clock() >= looked_at + _LOOK_AGAIN_S:
                looked_at = self._clock()
                if await run_in_threadpool(self._door.who, token) is None:
                    return {"type": "websocket.disconnect", "code": _SESSION_ENDED}
            return message

        return receive_or_end


def session_token(headers: Headers) -> str | None:
    """The session's token among a request's cookies."""
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(headers.get("cookie", ""))
    except CookieError:
        return None
    return jar[COOKIE].value if COOKIE in jar else None


def _concerns(path: str) -> bool:
    return path in OPEN_PATHS or any(path == start or path.startswith(f"{start}/") for start in _GUARDED)


def _is_own_origin(headers: Headers) -> bool:
    """Whether a browser asks for a page of this host; programs send no Origin and are judged by their session."""
    origin = headers.get("origin")
    if origin is None:
        return True
    parts = urlsplit(origin)
    if parts.scheme not in {"http", "https"}:
        return False
    usual = ":443" if parts.scheme == "https" else ":80"
    return parts.netloc.removesuffix(usual) == headers.get("host", "").removesuffix(usual)


def _with_headers(send: Send, path: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _ALWAYS.items():
                headers.setdefault(name, value)
            # NiceGUI's own files carry its version in their path; everything else is of one person and one moment.
            lasting = "/_nicegui/" in path and "/dynamic_resources/" not in path and message["status"] == 200
            headers["Cache-Control"] = "private, max-age=31536000, immutable" if lasting else "no-store"
        await send(message)

    return sending
