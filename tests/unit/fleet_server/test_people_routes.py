"""The people's listener: roles, problems, and no route without a key."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.dependencies.models import Dependant

from fleet_server.app import OPEN_PATHS, create_people_app
from fleet_server.identity.access import Requires
from fleet_server.identity.model import Role
from tests.fakes.server import LocalFleet, every_route


def needed_role(dependant: Dependant) -> Role | None:
    for inner in dependant.dependencies:
        if isinstance(inner.call, Requires):
            return inner.call.role
        if (found := needed_role(inner)) is not None:
            return found
    return None


def routes(fleet: LocalFleet) -> Iterator[tuple[str, str, Role]]:
    for route in every_route(create_people_app(fleet.context).routes):
        if route.path not in OPEN_PATHS:
            role = needed_role(route.dependant)
            assert role is not None, f"{route.path} is open to everybody"
            path = route.path
            for part in ("device", "model", "version", "prefix", "rollout"):
                path = path.replace("{" + part + "}", "x")
            for method in route.methods:
                yield method, path.replace("{digest}", "sha256:" + "0" * 64), role


def test_every_route_refuses_a_request_without_a_key(fleet: LocalFleet) -> None:
    walked = list(routes(fleet))
    assert len(walked) > 15

    for method, path, _ in walked:
        for headers in ({}, {"Authorization": "Bearer ef_0123abcd_nonsense"}):
            answer = fleet.people.request(method, path, headers=headers)
            assert answer.status_code == 401, f"{method} {path}"


def test_every_route_refuses_a_key_of_too_small_a_role(fleet: LocalFleet) -> None:
    headers = {role: fleet.key(role) for role in Role}
    order = list(Role)

    for method, path, role in routes(fleet):
        for smaller in order[: order.index(role)]:
            answer = fleet.people.request(method, path, headers=headers[smaller])
            assert answer.status_code == 403, f"{method} {path} as {smaller.value}"


def test_a_revoked_key_is_refused(fleet: LocalFleet) -> None:
    admin, victim = fleet.key(Role.ADMIN), fleet.key(Role.VIEWER)
    prefix = victim["Authorization"].split("_")[1]

    assert fleet.people.delete(f"/api/v1/keys/{prefix}", headers=admin).status_code == 204

    assert fleet.people.get("/api/v1/devices", headers=victim).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/devices/nobody", 404),
        ("GET", "/api/v1/devices/NOT-A-NAME", 422),
        ("GET", "/api/v1/devices?selector=a%20b%20c", 422),
        ("GET", "/api/v1/devices?limit=0", 422),
        ("POST", "/api/v1/claims", 422),
        ("GET", "/api/v1/no-such-thing", 404),
        ("GET", "/api/v1/releases/digits/9.9", 404),
        ("PUT", "/api/v1/releases/blobs/md5:1", 422),
    ],
)
def test_a_bad_request_is_answered_with_a_problem_document(
    fleet: LocalFleet, method: str, path: str, status: int
) -> None:
    answer = fleet.people.request(method, path, headers=fleet.key(Role.ADMIN), content=b"{")

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].startswith("cannot ")
    assert "Traceback" not in answer.text


def test_the_audit_log_names_who_did_what_and_its_chain_is_intact(fleet: LocalFleet) -> None:
    headers = fleet.key(Role.OPERATOR)
    fleet.people.post("/api/v1/claims", headers=headers, json={"device": "audited-1"})

    newest = fleet.people.get("/api/v1/audit", headers=headers).json()["items"][0]

    assert (newest["who"], newest["action"]) == ("test operator", "claim.created")
    assert "secret" not in str(newest)
    assert fleet.people.get("/api/v1/audit/verdict", headers=headers).json()["intact"]


def test_metrics_count_devices(fleet: LocalFleet) -> None:
    fleet.enrol("counted-1")

    text = fleet.people.get("/metrics", headers=fleet.key(Role.VIEWER)).text

    assert 'edgefleet_devices{connection="unknown",standing="active"}' in text


def test_devices_are_listed_page_by_page(fleet: LocalFleet) -> None:
    for name in ("page-a", "page-b", "page-c"):
        fleet.enrol(name)
    headers = fleet.key(Role.VIEWER)
    query = {"selector": "id in (page-a,page-b,page-c)", "limit": 2}

    first = fleet.people.get("/api/v1/devices", params=query, headers=headers).json()
    rest = fleet.people.get("/api/v1/devices", params={**query, "after": first["next_cursor"]}, headers=headers).json()

    assert [item["id"] for item in first["items"] + rest["items"]] == ["page-a", "page-b", "page-c"]
    assert rest["next_cursor"] is None
