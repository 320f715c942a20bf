"""Rollouts as people ask for them over HTTP."""

import io
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from rich.console import Console

from edge_runtime.contract.device_state import Birth, SlotSummary, Status
from edge_runtime.contract.ids import DeviceId
from fleet_server import problems
from fleet_server.cli.rollout_view import dashboard
from fleet_server.identity import api_keys
from fleet_server.identity.model import Role
from fleet_server.rollouts import api
from fleet_server.rollouts.model import RolloutId
from tests.fakes import documents
from tests.fakes.fleet import SLOT, PlayedFleet, make_fleet

ORDER = {"model": "digits", "version": "1.0.0", "waves": ["1", "100%"], "soak_s": 2, "deadline_s": 60}


def client(fleet: PlayedFleet, role: Role = Role.OPERATOR) -> TestClient:
    app = FastAPI()
    problems.install(app)
    app.state.database = fleet.database
    app.state.rollouts = api.RolloutPorts(fleet.database, fleet.rollouts, lambda: fleet.now)
    app.include_router(api.router)
    with fleet.database.session() as session:
        _, secret = api_keys.create(session, "ben", role, by="test", now=fleet.now)
    return TestClient(app, headers={"Authorization": f"Bearer {secret}"}, raise_server_exceptions=False)


def fail_first_wave(fleet: PlayedFleet, http: TestClient) -> str:
    rollout = str(http.post("/api/v1/rollouts", json=ORDER).json()["rollout"]["id"])
    fleet.tick()
    fleet.devices["cam-1"].report("failed", "memory")
    fleet.tick()
    return rollout


def test_the_example_of_the_openapi_schema_is_accepted(fleet: PlayedFleet) -> None:
    http = client(fleet)
    schema = http.get("/openapi.json").json()["components"]["schemas"]["RolloutRequest"]

    answer = http.post("/api/v1/rollouts", json={**schema["example"], "selector": "site=lab"})

    assert answer.status_code == 201
    assert answer.json()["rollout"]["matched_at_start"] == 3


def test_a_rollout_shows_waves_members_and_history(fleet: PlayedFleet) -> None:
    http = client(fleet)
    rollout = http.post("/api/v1/rollouts", json=ORDER).json()["rollout"]["id"]
    fleet.tick()
    fleet.devices["cam-1"].report("trialled")

    found = http.get(f"/api/v1/rollouts/{rollout}").json()

    assert [wave["state"] for wave in found["waves"]] == ["open", "planned"]
    assert found["waves"][0]["verdict"] == "inconclusive"
    assert [(one["device"], one["outcome"], one["state"]) for one in found["members"]] == [
        ("cam-1", "pending", "trialled")
    ]
    assert [entry["name"] for entry in found["history"]] == ["rollout.created", "rollout.wave_opened"]
    assert http.get("/api/v1/rollouts").json()["items"][0]["id"] == rollout


def test_a_slot_that_no_device_has_is_refused_once_all_have_reported_theirs(fleet: PlayedFleet) -> None:
    http = client(fleet)

    early = http.post("/api/v1/rollouts/preview", json={**ORDER, "slot": "side"})
    for name in fleet.devices:
        summary = {SLOT: SlotSummary(seq=0, state="idle", revision=0)}
        birth = Birth(device=DeviceId(name), session="s-2", agent="0.1.0", facts=documents.facts(), slots=summary)
        with fleet.database.session() as session:
            fleet.inventory.apply_birth(session, birth, fleet.now)
    refused = http.post("/api/v1/rollouts", json={**ORDER, "slot": "side"})

    assert early.status_code == 200
    assert refused.status_code == 422
    assert refused.json()["detail"] == "cannot start the rollout: no device has a slot side; name one of main"


def test_whoever_waits_for_a_device_sees_that_it_is_away(fleet: PlayedFleet) -> None:
    http = client(fleet)
    rollout = http.post("/api/v1/rollouts", json=ORDER).json()["rollout"]["id"]
    fleet.tick()

    assert "60 s left" in terminal(fleet, http.get(f"/api/v1/rollouts/{rollout}").json())

    with fleet.database.session() as session:
        lost = Status(device=DeviceId("cam-1"), state="lost", session="s-1")
        fleet.inventory.apply_status(session, lost, fleet.now)

    assert "away; 60 s left" in terminal(fleet, http.get(f"/api/v1/rollouts/{rollout}").json())


def terminal(fleet: PlayedFleet, found: dict[str, object]) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(dashboard(found, fleet.now, devices=10))
    return console.export_text()


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"version": "9.9"}, 404, "it was never pushed here; edge-fleet releases list"),
        ({"selector": "site=mars"}, 422, "no active device matches 'site=mars'"),
        ({"selector": "site=lab,"}, 422, "it ends with a comma"),
        ({"waves": []}, 422, "it has no waves"),
        ({"waves": ["0"]}, 422, "wave 0 reaches no device"),
        ({"waves": ["120%"]}, 422, "wave 120% is no share of a fleet"),
        ({"waves": ["nan%"]}, 422, "is no share of a fleet"),
        ({"waves": ["all"]}, 422, "'all' is neither a count nor a percentage"),
        ({"waves": ["50%", "10%"]}, 422, "a later wave is smaller"),
        ({"max_failed_ratio": 1.0}, 422, "a failed share of 1.0"),
        ({"max_failed_ratio": -0.1}, 422, "a failed share of -0.1"),
        ({"deadline_s": 1}, 422, "no device can soak 2 s within a deadline of 1 s"),
        ({"soak_s": -1}, 422, "soak_s is -1"),
        ({"deadline_s": 0}, 422, "deadline_s is 0"),
        ({"max_trials": 0}, 422, "max_trials is 0"),
        ({"on_failure": "explode"}, 422, "'pause' or 'revert_all'"),
        ({"slot": "../main"}, 422, "as a slot"),
        ({"percent": 1}, 422, "percent"),
    ],
)
def test_an_order_that_makes_no_sense_gets_one_clear_problem(
    fleet: PlayedFleet, change: dict[str, object], status: int, says: str
) -> None:
    answer = client(fleet).post("/api/v1/rollouts", json={**ORDER, **change})

    assert answer.status_code == status
    assert answer.headers["content-type"] == problems.MEDIA_TYPE
    assert says in answer.json()["detail"]
    with fleet.database.reading() as session:
        assert fleet.rollouts.newest(session) == []


def test_a_rollout_to_a_fleet_of_nobody_is_told_that_nobody_enrolled(tmp_path: Path) -> None:
    nobody = make_fleet(tmp_path)

    answer = client(nobody).post("/api/v1/rollouts", json=ORDER)

    nobody.database.close()
    assert answer.status_code == 422
    assert "no device has enrolled yet" in answer.json()["detail"]


def test_whoever_resumes_after_a_failed_wave_accepts_it_by_name(fleet: PlayedFleet) -> None:
    http = client(fleet)
    rollout = fail_first_wave(fleet, http)
    assert http.get(f"/api/v1/rollouts/{rollout}").json()["rollout"]["state"] == "paused"

    answer = http.post(f"/api/v1/rollouts/{rollout}/resume").json()
    fleet.tick()

    assert answer["rollout"]["sentence"].startswith("resumed by ben, who accepts it as it is: wave 1 failed")
    assert set(fleet.reached(RolloutId(rollout))) == {"cam-1", "cam-2", "cam-3"}
    accepted = [entry for entry in fleet.audit(RolloutId(rollout)) if entry.action == "rollout.resumed"]
    assert [entry.who for entry in accepted] == ["ben"]
    assert "wave 1 failed" in accepted[0].detail


def test_a_pause_by_a_person_accepts_nothing(fleet: PlayedFleet) -> None:
    http = client(fleet)
    rollout = http.post("/api/v1/rollouts", json=ORDER).json()["rollout"]["id"]
    fleet.tick()

    http.post(f"/api/v1/rollouts/{rollout}/pause")
    fleet.tick()
    http.post(f"/api/v1/rollouts/{rollout}/resume")
    fleet.tick()

    assert list(fleet.reached(RolloutId(rollout))) == ["cam-1"]


def test_a_cancelled_rollout_reaches_nobody_else_and_takes_nothing_back(fleet: PlayedFleet) -> None:
    http = client(fleet)
    rollout = http.post("/api/v1/rollouts", json=ORDER).json()["rollout"]["id"]
    fleet.tick()

    http.post(f"/api/v1/rollouts/{rollout}/cancel")
    fleet.devices["cam-1"].confirm()
    fleet.tick()

    assert fleet.devices["cam-1"].desired.kind == "model"
    assert list(fleet.reached(RolloutId(rollout))) == ["cam-1"]


def test_a_revert_by_a_person_takes_everybody_back(fleet: PlayedFleet) -> None:
    http = client(fleet)
    rollout = http.post("/api/v1/rollouts", json=ORDER).json()["rollout"]["id"]
    fleet.tick()

    http.post(f"/api/v1/rollouts/{rollout}/revert")
    fleet.tick()

    assert fleet.devices["cam-1"].desired.kind == "none"


def test_what_cannot_happen_now_is_a_conflict_that_says_when_it_can(fleet: PlayedFleet) -> None:
    http = client(fleet)
    rollout = http.post("/api/v1/rollouts", json=ORDER).json()["rollout"]["id"]

    answer = http.post(f"/api/v1/rollouts/{rollout}/resume")

    assert answer.status_code == 409
    assert "it is running; this works only while it is paused" in answer.json()["detail"]


def test_a_viewer_looks_and_does_not_act(fleet: PlayedFleet) -> None:
    rollout = client(fleet).post("/api/v1/rollouts", json=ORDER).json()["rollout"]["id"]
    http = client(fleet, Role.VIEWER)

    assert http.get(f"/api/v1/rollouts/{rollout}").status_code == 200
    assert http.post("/api/v1/rollouts/preview", json=ORDER).status_code == 200
    for act in ("", f"/{rollout}/pause", f"/{rollout}/resume", f"/{rollout}/cancel", f"/{rollout}/revert"):
        assert http.post(f"/api/v1/rollouts{act}", json=ORDER).status_code == 403


def test_a_rollout_nobody_made_is_not_found(fleet: PlayedFleet) -> None:
    http = client(fleet)

    for path in ("/r-0", "/r-0/events?wait_s=0"):
        assert http.get(f"/api/v1/rollouts{path}").status_code == 404
    assert "edge-fleet rollouts list" in http.post("/api/v1/rollouts/r-0/pause").json()["detail"]


def test_events_come_once_and_in_order(fleet: PlayedFleet) -> None:
    http = client(fleet)
    rollout = http.post("/api/v1/rollouts", json=ORDER).json()["rollout"]["id"]
    first = http.get(f"/api/v1/rollouts/{rollout}/events", params={"wait_s": 0}).json()
    fleet.tick()

    second = http.get(f"/api/v1/rollouts/{rollout}/events", params={"after": first["next_cursor"]}).json()
    third = http.get(f"/api/v1/rollouts/{rollout}/events", params={"after": second["next_cursor"], "wait_s": 0}).json()

    assert [entry["name"] for entry in first["items"]] == ["rollout.created"]
    assert [entry["name"] for entry in second["items"]] == ["rollout.wave_opened"]
    assert third == {"items": [], "next_cursor": second["next_cursor"]}


def test_a_preview_names_order_reasons_and_devices_that_no_variant_fits(fleet: PlayedFleet) -> None:
    with fleet.database.session() as session:
        known = fleet.inventory.device(session, DeviceId("cam-3"))
        fleet.inventory.register(session, known.id, labels={}, facts=documents.facts(engines=[]), now=fleet.now)

    found = client(fleet).post("/api/v1/rollouts/preview", json={**ORDER, "waves": ["1", "50%"]}).json()

    first, _, last = found["devices"]
    assert [one["variant"] for one in first["candidates"]] == ["ort-int8", "ort-fp32"]
    assert "is a guess until the device has tried it" in first["candidates"][0]["because"]
    assert [device["wave"] for device in found["devices"]] == [1, 2, None]
    assert found["without_variant"] == ["cam-3"]
    assert {one["because"] for one in last["rejected"]} == {"the device has no onnxruntime"}
    assert found["bytes_first"] == 2 * len(documents.MODEL_FILE)
    assert fleet.bells.rung == []
