"""The way in and out: a plain form, rendered here, that works without any script."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path
from string import Template
from typing import Final
from urllib.parse import parse_qs, quote

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from fleet_server.console.door import Door, TooManyAttempts
from fleet_server.console.gate import CONSOLE, LOGIN, LOGOUT, session_token
from fleet_server.console.sessions import COOKIE, LIFE_S
from fleet_server.errors import Unauthenticated

_HERE: Final = Path(__file__).parent
STYLE: Final = (_HERE / "style.css").read_text()
"""One style sheet for form and page."""
ICON: Final = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'><rect width='32' height='32' rx='8' fill='#2563eb'/>"
    "<path d='M8 10h16M8 16h11M8 22h6' stroke='#fff' stroke-width='3.2' stroke-linecap='round'/></svg>"
)
_REFUSED: Final = "This key is not known or no longer valid."
_BODY_MAX: Final = 4096
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)


def add_login(app: FastAPI, door: Door) -> None:
    """Add `/`, `/login` and `/logout` to the people's application."""

    async def home(_request: Request) -> Response:
        return RedirectResponse(CONSOLE, 303)

    async def form(request: Request) -> Response:
        known = await run_in_threadpool(door.who, session_token(Headers(scope=request.scope)))
        return _page() if known is None else RedirectResponse(CONSOLE, 303)

    async def enter(request: Request) -> Response:
        return await _enter(door, request)

    async def leave(request: Request) -> Response:
        door.leave(session_token(Headers(scope=request.scope)))
        response = RedirectResponse(LOGIN, 303)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response

    app.add_route("/", home, ["GET"], include_in_schema=False)
    app.add_route(LOGIN, form, ["GET"], include_in_schema=False)
    app.add_route(LOGIN, enter, ["POST"], include_in_schema=False)
    app.add_route(LOGOUT, leave, ["POST"], include_in_schema=False)


async def _enter(door: Door, request: Request) -> Response:
    source = request.client.host if request.client else "unknown"
    key = await _sent_key(request)
    try:
        token = await run_in_threadpool(door.enter, key, source)
    except Unauthenticated:
        return _page(_REFUSED, 401)
    except TooManyAttempts as error:
        refused = _page(f"Too many failed attempts. Try again in {error.wait_s} s.", 429)
        refused.headers["Retry-After"] = str(error.wait_s)
        return refused
    response = RedirectResponse(CONSOLE, 303)
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(LIFE_S),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


async def _sent_key(request: Request) -> str:
    """The form's field; empty when the body is no form of ours."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_MAX:
            return ""
    try:
        fields = parse_qs(body.decode("ascii"), max_num_fields=8)
    except ValueError:
        return ""
    return fields.get("key", [""])[0]


def _page(problem: str = "", status: int = 200) -> HTMLResponse:
    shown = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    page = Template((_HERE / "login.html").read_text()).substitute(icon=quote(ICON), style=STYLE, problem=shown)
    return HTMLResponse(page, status, {"Content-Security-Policy": _POLICY})
