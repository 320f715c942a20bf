"""The way in: a key opens a session, which ends by itself, with its key, and by logging out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from fleet_server.app import create_people_app
from fleet_server.console.attempts import AttemptLimits, Attempts
from fleet_server.console.door import Door, TooManyAttempts
from fleet_server.console.mount import guard
from fleet_server.console.sessions import COOKIE, IDLE_S, LIFE_S
from fleet_server.errors import Unauthenticated
from fleet_server.identity.model import Role
from tests.fakes.console import Clock, ports_of
from tests.fakes.server import LocalFleet

REFUSED = "This key is not known or no longer valid."


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def door(fleet: LocalFleet, clock: Clock) -> Door:
    return Door(fleet.context.database, clock=clock)


@pytest.fixture
def browser(fleet: LocalFleet, door: Door) -> Iterator[TestClient]:
    app = create_people_app(fleet.context)
    guard(app, ports_of(fleet), door)
    with TestClient(app, base_url="http://fleet.test", follow_redirects=False) as client:
        yield client


def secret(fleet: LocalFleet, role: Role = Role.VIEWER) -> str:
    return fleet.key(role)["Authorization"].removeprefix("Bearer ")


def log_in(browser: TestClient, key: str, **headers: str) -> Response:
    return browser.post("/login", data={"key": key}, headers=headers)


def test_the_form_is_plain_html_without_script(browser: TestClient) -> None:
    answer = browser.get("/login")

    assert answer.status_code == 200
    assert '<form method="post" action="/login">' in answer.text
    assert "<script" not in answer.text
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_right_key_opens_a_session_in_a_cookie_that_scripts_and_other_sites_cannot_use(
    fleet: LocalFleet, browser: TestClient
) -> None:
    answer = log_in(browser, secret(fleet))

    assert (answer.status_code, answer.headers["location"]) == (303, "/console")
    parts = {part.strip().lower() for part in answer.headers["set-cookie"].split(";")}
    assert {"httponly", "samesite=strict", "path=/"} <= parts
    assert "secure" not in parts
    assert browser.get("/login").headers["location"] == "/console"


def test_over_https_the_cookie_never_travels_in_the_clear(fleet: LocalFleet, browser: TestClient) -> None:
    browser.base_url = "https://fleet.test"  # type: ignore[assignment]

    assert "secure" in log_in(browser, secret(fleet)).headers["set-cookie"].lower()


@pytest.mark.parametrize("key", ["", "nonsense", "ef_0123abcd_nonsense", "ef_<script>_x", "ü" * 300, "x" * 9000])
def test_whatever_is_wrong_with_a_key_the_answer_is_the_same(browser: TestClient, key: str) -> None:
    answer = log_in(browser, key)

    assert answer.status_code == 401
    assert REFUSED in answer.text
    assert "set-cookie" not in answer.headers
    assert "<script" not in answer.text


def test_the_token_is_kept_only_as_a_hash(fleet: LocalFleet, door: Door) -> None:
    token = door.enter(secret(fleet), "10.0.0.1")

    assert token not in repr(vars(door._sessions))


def test_too_many_failures_of_one_source_make_it_wait_even_with_a_right_key(
    fleet: LocalFleet, browser: TestClient, clock: Clock
) -> None:
    for _ in range(10):
        assert log_in(browser, "ef_0123abcd_guess").status_code == 401

    waiting = log_in(browser, secret(fleet))

    assert waiting.status_code == 429
    assert int(waiting.headers["retry-after"]) == 60
    clock.now += 60
    assert log_in(browser, secret(fleet)).status_code == 303


def test_another_source_is_not_made_to_wait_until_there_are_too_many_of_them(fleet: LocalFleet, clock: Clock) -> None:
    limits = AttemptLimits(per_source=2, overall=5)
    door = Door(fleet.context.database, attempts=Attempts(limits), clock=clock)
    for source in ("10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"):
        with pytest.raises(Unauthenticated):
            door.enter("guess", source)

    with pytest.raises(TooManyAttempts):
        door.enter("guess", "10.0.0.1")
    door.enter(secret(fleet), "10.0.0.3")
    with pytest.raises(Unauthenticated):
        door.enter("guess", "10.0.0.4")
    with pytest.raises(TooManyAttempts):
        door.enter(secret(fleet), "10.0.0.5")


def test_a_revoked_key_ends_its_sessions_at_the_next_look(fleet: LocalFleet, door: Door) -> None:
    key = secret(fleet, Role.OPERATOR)
    token = door.enter(key, "10.0.0.1")
    principal = door.who(token)
    assert principal is not None
    assert principal.role is Role.OPERATOR

    fleet.people.delete(f"/api/v1/keys/{key.split('_')[1]}", headers=fleet.key(Role.ADMIN)).raise_for_status()

    assert door.who(token) is None


def test_an_idle_session_ends_and_a_used_one_ends_after_its_life(fleet: LocalFleet, door: Door, clock: Clock) -> None:
    idle, used = door.enter(secret(fleet), "10.0.0.1"), door.enter(secret(fleet), "10.0.0.1")
    began = clock.now

    while clock.now < began + LIFE_S - IDLE_S:
        clock.now += IDLE_S / 2
        assert door.who(used) is not None

    assert door.who(idle) is None
    clock.now = began + LIFE_S - 1
    assert door.who(used) is not None
    clock.now = began + LIFE_S
    assert door.who(used) is None


def test_logging_out_ends_the_session_on_the_server(fleet: LocalFleet, browser: TestClient, door: Door) -> None:
    log_in(browser, secret(fleet))
    token = browser.cookies[COOKIE]

    answer = browser.post("/logout")

    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert door.who(token) is None


def test_logging_in_is_in_the_audit_log(fleet: LocalFleet, browser: TestClient) -> None:
    log_in(browser, secret(fleet))

    newest = fleet.people.get("/api/v1/audit", headers=fleet.key(Role.VIEWER)).json()["items"]

    assert ("console.entered", "testclient") in [(entry["action"], entry["subject"]) for entry in newest]


def test_another_sites_form_is_refused(fleet: LocalFleet, browser: TestClient) -> None:
    for origin in ("http://evil.test", "null", "http://fleet.test.evil.test", "http://fleet.test:81"):
        assert log_in(browser, secret(fleet), Origin=origin).status_code == 403, origin

    assert log_in(browser, secret(fleet), Origin="http://fleet.test").status_code == 303


def test_a_key_younger_than_the_picture_an_open_page_shows_is_let_stay(fleet: LocalFleet, door: Door) -> None:
    token = door.enter(secret(fleet, Role.OPERATOR), "here")

    principal = door.still(token, principals={})

    assert principal is not None
    assert principal.role is Role.OPERATOR


def test_a_key_that_a_picture_still_shows_is_good_until_the_next_picture_and_then_no_longer(
    fleet: LocalFleet, door: Door
) -> None:
    key = secret(fleet)
    token = door.enter(key, "here")
    principal = door.who(token)
    assert principal is not None
    prefix = key.split("_")[1]
    fleet.people.delete(f"/api/v1/keys/{prefix}", headers=fleet.key(Role.ADMIN)).raise_for_status()

    assert door.still(token, {prefix: principal}) == principal
    assert door.still(token, {}) is None
