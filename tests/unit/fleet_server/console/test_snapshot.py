"""What pages show is counted and worded from the services; who steers is judged on the server."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from fleet_server.console.door import Door
from fleet_server.console.snapshot import Photographer, Snapshot
from fleet_server.console.steering import EXPLAINED, Action, possible, steer
from fleet_server.console.words import age, mark, member_mark, milliseconds, percent, release_name, span
from fleet_server.errors import Forbidden, Unauthenticated
from fleet_server.identity import api_keys
from fleet_server.identity.model import Role
from fleet_server.rollouts.model import IllegalTransition, RolloutState
from tests.fakes.console import HOSTILE, PlayedConsole, play, ports_of


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlayedConsole]:
    made = play(tmp_path_factory.mktemp("console") / "data")
    yield made
    made.fleet.database.close()


@pytest.fixture(scope="module")
def snapshot(played: PlayedConsole) -> Snapshot:
    return Photographer(ports_of(played.fleet)).take(frozenset())


def session(played: PlayedConsole, door: Door, role: Role) -> str:
    with played.fleet.database.session() as opened:
        _, key = api_keys.create(opened, f"{role.value} of the test", role, by="test", now=time.time())
    return door.enter(key, "10.0.0.1")


def test_the_fleet_is_counted(snapshot: Snapshot) -> None:
    counts = snapshot.counts

    assert (counts.devices, counts.ready, counts.away, counts.confirmed, counts.failing) == (5, 5, 0, 3, 1)
    assert counts.by_release == (("digits 1.0.0", 4), ("digits 2.0.0", 1))


def test_the_rollout_that_moves_is_shown_and_others_on_request(played: PlayedConsole, snapshot: Snapshot) -> None:
    assert set(snapshot.details) == {played.running}

    asked = Photographer(ports_of(played.fleet)).take(frozenset({played.done, "r-nonsense"}))

    assert set(asked.details) == {played.running, played.done}


def test_a_row_has_accuracy_and_latency_of_what_the_device_runs_now(snapshot: Snapshot) -> None:
    rows = {row.device: row for row in snapshot.devices}

    assert rows["gate-1"].accuracy is None, "measured with the release it no longer runs"
    assert rows["gate-3"].accuracy == pytest.approx(391 / 400)
    assert rows["gate-3"].latency_p95_ms == pytest.approx(1.9, rel=0.1)
    assert rows["gate-2"].detail == HOSTILE
    assert rows["gate-2"].reason is not None
    assert "golden set" in rows["gate-2"].reason


@pytest.mark.parametrize("role", [None, Role.VIEWER])
def test_whoever_may_not_steer_cannot_by_calling_what_the_button_calls(
    played: PlayedConsole, role: Role | None
) -> None:
    ports = ports_of(played.fleet)
    door = Door(ports.database)
    token = None if role is None else session(played, door, role)

    for action in Action:
        with pytest.raises(Unauthenticated if role is None else Forbidden):
            steer(ports, door, token, action, played.running)

    assert played.fleet.state(played.running) == "running"


def test_an_operator_pauses_and_resumes_in_their_own_name(played: PlayedConsole) -> None:
    ports = ports_of(played.fleet)
    door = Door(ports.database)
    token = session(played, door, Role.OPERATOR)

    steer(ports, door, token, Action.PAUSE, played.running)
    assert played.fleet.state(played.running) == "paused"
    with pytest.raises(IllegalTransition):
        steer(ports, door, token, Action.PAUSE, played.running)
    steer(ports, door, token, Action.RESUME, played.running)

    assert [(one.who, one.action) for one in played.fleet.audit(played.running)[-2:]] == [
        ("operator of the test", "rollout.paused"),
        ("operator of the test", "rollout.resumed"),
    ]


def test_only_what_makes_sense_is_offered_and_each_says_what_it_does() -> None:
    assert possible("running") == (Action.PAUSE, Action.CANCEL, Action.REVERT)
    assert possible("paused") == (Action.RESUME, Action.CANCEL, Action.REVERT)
    assert possible("completed") == (Action.REVERT,)
    assert possible("reverted") == possible("cancelled") == ()
    assert set(EXPLAINED) == set(Action)


@pytest.mark.parametrize("state", [state.value for state in RolloutState])
def test_each_state_has_a_sign_and_a_word_besides_its_colour(state: str) -> None:
    assert mark(state).icon != "help"
    assert mark(state).word


def test_a_state_newer_than_this_software_is_named_as_it_is() -> None:
    assert mark("levitating").word == "levitating"


def test_a_pending_member_past_its_deadline_is_called_silent(played: PlayedConsole, snapshot: Snapshot) -> None:
    member = next(one for one in snapshot.details[played.running].members if one.device == "gate-4")

    assert member_mark(member, member.deadline_at - 1).word == "assigned"
    assert member_mark(member, member.deadline_at + 1).word == "silent"


def test_numbers_are_said_with_their_units() -> None:
    assert [age(0.2), age(12), span(150), span(7200), span(400_000)] == ["just now", "12 s ago", "2 min", "2 h", "4 d"]
    assert [percent(1.0), percent(0.9999), percent(0.0)] == ["100 %", "99.9 %", "0 %"]
    assert [milliseconds(1.234), milliseconds(12.34), milliseconds(1234)] == ["1.23 ms", "12.3 ms", "1234 ms"]
    assert [release_name("models/digits/1.0.0"), release_name("sha256:" + "a" * 64), release_name(None)] == [
        "digits 1.0.0", "sha256:aaaaaaaaaaaa", None,
    ]  # fmt: skip
