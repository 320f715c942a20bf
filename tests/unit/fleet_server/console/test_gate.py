"""Nothing behind the gate answers without a session, or to a page of another site."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from fleet_server.console.door import Door
from fleet_server.console.gate import Gate
from fleet_server.console.sessions import COOKIE
from fleet_server.identity.model import Role
from tests.fakes.console import Clock
from tests.fakes.server import LocalFleet

PATHS = (
    "/console",
    "/console/",
    "/console/_nicegui/3.0/static/nicegui.js",
    "/console/_nicegui_ws/socket.io/?EIO=4&transport=polling",
    "/console/anything/else",
    "/_nicegui/3.0/static/nicegui.js",
    "/_nicegui_ws/socket.io/",
)
PAGE = {"Accept": "text/html,*/*"}


async def answer(_request: object) -> HTMLResponse:
    return HTMLResponse("inside")


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    async for words in socket.iter_text():
        await socket.send_text(words)
    await socket.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(fleet: LocalFleet, clock: Clock) -> Door:
    return Door(fleet.context.database, clock=clock)


@pytest.fixture
def browser(door: Door, clock: Clock) -> Iterator[TestClient]:
    everything = [
        WebSocketRoute("/_nicegui_ws/socket.io/", echo),
        Route("/{rest:path}", answer, methods=["GET", "POST"]),
    ]
    app = FastAPI(routes=[Mount("/console", routes=everything), *everything])
    app.add_middleware(Gate, door=door, clock=clock)
    with TestClient(app, base_url="http://fleet.test", follow_redirects=False) as client:
        yield client


def key_of(fleet: LocalFleet) -> str:
    return fleet.key(Role.VIEWER)["Authorization"].removeprefix("Bearer ")


def log_in(fleet: LocalFleet, door: Door, browser: TestClient) -> str:
    key = key_of(fleet)
    browser.cookies.set(COOKIE, door.enter(key, "10.0.0.1"))
    return key


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("cookie", ["", "edgefleet_session=guess", "edgefleet_session=", "\x00broken;;=", "a" * 5000])
def test_without_a_session_every_path_is_closed(browser: TestClient, path: str, cookie: str) -> None:
    headers = {"Cookie": cookie} if cookie.isprintable() else {}

    page = browser.get(path, headers={**PAGE, **headers})
    part = browser.get(path, headers=headers)
    posted = browser.post(path, headers=headers)

    assert (page.status_code, page.headers["location"]) == (303, "/login")
    assert (part.status_code, posted.status_code) == (401, 401)
    assert "inside" not in page.text + part.text + posted.text


@pytest.mark.parametrize("path", ["/console/_nicegui_ws/socket.io/", "/_nicegui_ws/socket.io/"])
def test_without_a_session_the_socket_is_closed(browser: TestClient, path: str) -> None:
    with pytest.raises(WebSocketDisconnect) as closed, browser.websocket_connect(path):
        pass

    assert closed.value.code == 4401


def test_a_session_opens_page_files_and_socket(fleet: LocalFleet, door: Door, browser: TestClient) -> None:
    log_in(fleet, door, browser)

    assert browser.get("/console", headers=PAGE).headers["location"] == "/console/"
    assert all(browser.get(path).text == "inside" for path in PATHS[1:])
    with browser.websocket_connect(
        "ws://fleet.test/console/_nicegui_ws/socket.io/", headers={"Origin": "http://fleet.test"}
    ) as one:
        one.send_text("hello")
        assert one.receive_text() == "hello"


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://fleet.test.evil.test", "http://fleet.test:81"])
def test_a_page_of_another_site_reaches_neither_socket_nor_action(
    fleet: LocalFleet, door: Door, browser: TestClient, origin: str
) -> None:
    log_in(fleet, door, browser)

    with (
        pytest.raises(WebSocketDisconnect),
        browser.websocket_connect("ws://fleet.test/console/_nicegui_ws/socket.io/", headers={"Origin": origin}),
    ):
        pass
    assert browser.post("/console/x", headers={"Origin": origin}).status_code == 403


def test_an_open_socket_ends_soon_after_its_key_is_revoked(
    fleet: LocalFleet, door: Door, browser: TestClient, clock: Clock
) -> None:
    key = log_in(fleet, door, browser)
    with browser.websocket_connect("ws://fleet.test/console/_nicegui_ws/socket.io/") as socket:
        socket.send_text("before")
        assert socket.receive_text() == "before"
        fleet.people.delete(f"/api/v1/keys/{key.split('_')[1]}", headers=fleet.key(Role.ADMIN)).raise_for_status()
        clock.now += 5

        socket.send_text("after")
        with pytest.raises(WebSocketDisconnect):
            socket.receive_text()


def test_no_answer_can_be_framed_sniffed_or_kept(fleet: LocalFleet, door: Door, browser: TestClient) -> None:
    log_in(fleet, door, browser)

    headers = browser.get("/console/").headers

    assert headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert "immutable" in browser.get(PATHS[2]).headers["cache-control"]


def test_the_apis_own_paths_pass_untouched(door: Door, clock: Clock) -> None:
    async def api(_request: object) -> PlainTextResponse:
        return PlainTextResponse("api")

    app = FastAPI(routes=[Route("/api/v1/devices", api), Route("/consoles", api)])
    app.add_middleware(Gate, door=door, clock=clock)
    client = TestClient(app)

    for path in ("/api/v1/devices", "/consoles"):
        assert client.get(path, headers={"Origin": "http://evil.test"}).text == "api"
        assert "content-security-policy" not in client.get(path).headers
