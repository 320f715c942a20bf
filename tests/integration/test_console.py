"""The console of a real server: closed to strangers and foreign sites, and read by a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from fleet_server.console.sessions import COOKIE
from tests.fakes.browser import Browser, chromium
from tests.fakes.console import HOSTILE, PlayedConsole, play
from tests.fakes.ports import free_port
from tests.fakes.server import FleetProcess

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
SOCKET = "/console/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
SENTENCE = "wave 2 is open: 0 of 4 devices confirmed, 3 undecided"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> PlayedConsole:
    made = play(tmp_path_factory.mktemp("console") / "fleet")
    made.fleet.database.close()
    return made


@pytest.fixture(scope="module")
def server(played: PlayedConsole) -> Iterator[FleetProcess]:
    running = FleetProcess(played.fleet.folder, "embedded", free_port(), free_port(), free_port())
    try:
        running.start()
        yield running
    finally:
        running.stop()


def key(server: FleetProcess, role: str) -> str:
    with server.api as api:
        return str(api.post("/api/v1/keys", json={"name": f"{role} of the test", "role": role}).json()["secret"])


@contextmanager
def person(server: FleetProcess, role: str | None) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60.0, trust_env=False) as client:
        if role is not None:
            assert client.post("/login", data={"key": key(server, role)}).status_code == 303
            assert COOKIE in client.cookies
        yield client


def files_of(page: str) -> set[str]:
    return {path for path in re.findall(r"/console/_nicegui/[^\"'`)\s]+", page) if not path.endswith("/")}


def test_every_file_and_page_is_closed_without_a_session(server: FleetProcess) -> None:
    with person(server, "viewer") as viewer, person(server, None) as stranger:
        page = viewer.get("/console/")
        files = files_of(page.text)
        assert len(files) > 5
        assert all(viewer.get(path).status_code == 200 for path in files)

        for path in (*files, "/console/", "/console/nothing", "/_nicegui/x", SOCKET.replace("websocket", "polling")):
            assert stranger.get(path).status_code == 401, path
            assert stranger.get(path, headers={"Accept": "text/html"}).headers["location"] == "/login"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    sources = re.findall(r"""(?:src|href|from|url)\s*[=(]?\s*["'](https?:)?//[^"']*""", page.text)
    assert sources == [], "nothing may come from elsewhere"


def test_the_socket_opens_only_for_a_session_and_this_sites_page(server: FleetProcess) -> None:
    address = server.url.replace("http", "ws") + SOCKET
    with person(server, "viewer") as viewer:
        cookie = {"Cookie": f"{COOKIE}={viewer.cookies[COOKIE]}"}
    for origin, headers in ((server.url, {}), ("http://evil.test", cookie), ("null", cookie)):
        with (
            pytest.raises(InvalidStatus, match="403"),
            connect(address, origin=origin, additional_headers=headers),  # type: ignore[arg-type]
        ):
            pass

    with connect(address, origin=server.url, additional_headers=cookie) as socket:  # type: ignore[arg-type]
        assert str(socket.recv(timeout=60)).startswith("0{")


def test_a_revoked_key_ends_an_open_socket(server: FleetProcess) -> None:
    secret = key(server, "viewer")
    with httpx.Client(base_url=server.url, timeout=60.0, trust_env=False) as viewer:
        viewer.post("/login", data={"key": secret})
        cookie = {"Cookie": f"{COOKIE}={viewer.cookies[COOKIE]}"}
    address = server.url.replace("http", "ws") + SOCKET
    with connect(address, origin=server.url, additional_headers=cookie) as socket:  # type: ignore[arg-type]
        socket.recv(timeout=60)
        with server.api as api:
            api.delete(f"/api/v1/keys/{secret.split('_')[1]}").raise_for_status()
        with pytest.raises(ConnectionClosed):
            _play_along(socket)


def _play_along(socket: ClientConnection) -> None:
    """Answer the server's pings, as a page does."""
    while True:
        if socket.recv(timeout=60) == "2":
            socket.send("3")


def test_nothing_but_serving_loads_the_console() -> None:
    probe = (
        "import sys, fleet_server.cli.main, fleet_server.app, fleet_server.cli.serve, fleet_server.cli.listeners\n"
        "assert 'nicegui' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", probe], check=True, timeout=300)


def log_in(browser: Browser, server: FleetProcess, role: str) -> None:
    browser.open(server.url)
    browser.wait("document.querySelector('#key') !== null")
    browser.evaluate(f"document.querySelector('#key').value = '{key(server, role)}'")
    browser.evaluate("document.querySelector('form button').click()")
    browser.wait(f"document.body.innerText.includes({SENTENCE!r})")


@pytest.mark.needs_chromium
def test_a_person_logs_in_reads_the_rollout_and_pauses_it(
    server: FleetProcess, played: PlayedConsole, tmp_path: Path
) -> None:
    with chromium(tmp_path / "profile") as browser:
        browser.resize(1280, 900)
        log_in(browser, server, "viewer")

        # A device's words are words: they are read, and run nothing.
        browser.wait(f"document.body.innerText.includes({HOSTILE!r})")
        assert browser.evaluate("document.title") == "edgefleet console"
        assert browser.evaluate("document.querySelectorAll('img[src=x]').length") == 0
        assert browser.evaluate("document.querySelectorAll('.action').length") == 0
        assert "role operator" in browser.text()

        browser.evaluate("document.querySelector('.logout').click()")
        browser.wait("document.querySelector('#key') !== null")
        log_in(browser, server, "operator")
        browser.wait("document.querySelector('.action-pause') !== null")
        browser.evaluate("document.querySelector('.action-pause').click()")
        browser.wait("document.querySelector('.dialog-text')?.innerText.includes('until someone resumes')")
        browser.evaluate("document.querySelector('.dialog .act').click()")
        browser.wait("document.body.innerText.includes('paused by operator of the test')")

        hosts = {urllib.parse.urlsplit(url).netloc for url in browser.requested() if url.startswith(("http", "ws"))}
        assert hosts == {urllib.parse.urlsplit(server.url).netloc}
        assert browser.complaints() == []
        for width in (1280, 390):
            browser.resize(width, 844)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
        with server.api as api:
            (mine,) = [one for one in api.get("/api/v1/keys").json() if one["name"] == "operator of the test"]
            api.delete(f"/api/v1/keys/{mine['prefix']}").raise_for_status()
        browser.wait("document.querySelector('#key') !== null")
        assert browser.evaluate("location.pathname") == "/login"
    with server.api as api:
        assert api.get(f"/api/v1/rollouts/{played.running}").json()["rollout"]["state"] == "paused"
