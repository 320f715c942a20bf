"""What the executor does to a fleet, also when it is killed, late, or not the only one."""

import pytest

from edge_runtime.contract.ids import DeviceId
from fleet_server.rollouts.planner import OpenWave
from fleet_server.rollouts.service import Rollouts
from fleet_server.rollouts.store import StaleGeneration
from tests.fakes import documents
from tests.fakes.fleet import SLOT, PlayedFleet, PowerCut, target


def test_waves_open_one_after_the_other_and_the_last_completes_the_rollout(fleet: PlayedFleet) -> None:
    rollout = fleet.create(waves="1,50%,100%")

    for name in ("cam-1", "cam-2", "cam-3"):
        fleet.tick()
        assert list(fleet.reached(rollout))[-1] == name
        fleet.devices[name].confirm()
    fleet.tick()

    assert fleet.state(rollout) == "completed"
    assert set(fleet.reached(rollout).values()) == {"confirmed"}


def test_an_unconfirmed_device_holds_the_next_wave_back(fleet: PlayedFleet) -> None:
    rollout = fleet.create()
    fleet.tick()
    fleet.devices["cam-1"].report("soaking")

    fleet.tick()

    assert list(fleet.reached(rollout)) == ["cam-1"]


def test_a_failed_wave_sends_every_reached_device_back_to_what_it_had_confirmed(fleet: PlayedFleet) -> None:
    fleet.everywhere("1.0.0")
    before = fleet.devices["cam-1"].running
    rollout = fleet.create("2.0.0")
    fleet.tick()
    failed_seq = fleet.devices["cam-1"].desired.seq

    fleet.devices["cam-1"].report("failed", "truth_failed")
    fleet.tick()

    back = fleet.devices["cam-1"].desired
    assert (back.seq, back.target, back.rollout) == (failed_seq + 1, target("1.0.0"), rollout)
    assert before is not None
    assert [candidate.digest for candidate in back.candidates] == [before.variant_digest]
    assert fleet.state(rollout) == "reverting"
    fleet.devices["cam-1"].confirm()
    fleet.tick()
    assert fleet.state(rollout) == "reverted"
    assert list(fleet.reached(rollout)) == ["cam-1"]


def test_a_device_that_ran_nothing_goes_back_to_nothing(fleet: PlayedFleet) -> None:
    rollout = fleet.create()
    fleet.tick()

    fleet.devices["cam-1"].report("failed", "golden_failed")
    fleet.tick()

    assert fleet.devices["cam-1"].desired.kind == "none"
    fleet.devices["cam-1"].confirm()
    fleet.tick()
    assert fleet.state(rollout) == "reverted"


def test_what_is_only_being_watched_is_not_what_a_device_goes_back_to(fleet: PlayedFleet) -> None:
    fleet.everywhere("1.0.0")
    fleet.create("2.0.0", "1", on_failure="pause")
    fleet.tick()
    fleet.devices["cam-1"].take()
    fleet.devices["cam-1"].report("soaking")

    rollout = fleet.create("1.0.0", "1")
    fleet.tick()

    previous = fleet.status(rollout).members[0].member.previous
    assert previous is not None
    assert previous.target == target("1.0.0")


def test_a_silent_device_fails_the_wave_at_its_deadline(fleet: PlayedFleet) -> None:
    rollout = fleet.create(on_failure="pause")
    fleet.tick()

    fleet.tick(after_s=59.0)
    assert fleet.state(rollout) == "running"
    fleet.tick(after_s=1.0)

    assert fleet.state(rollout) == "paused"
    assert "1 silent past the deadline (cam-1: silent)" in fleet.status(rollout).sentence


def test_a_report_of_another_number_changes_nothing(fleet: PlayedFleet) -> None:
    fleet.everywhere("1.0.0")
    rollout = fleet.create("2.0.0")
    fleet.tick()

    fleet.devices["cam-1"].report("confirmed", seq=fleet.devices["cam-1"].desired.seq - 1)
    fleet.tick()

    assert fleet.reached(rollout) == {"cam-1": "pending"}


def test_a_wiped_device_has_not_confirmed_what_it_does_not_run(fleet: PlayedFleet) -> None:
    rollout = fleet.create()
    fleet.tick()

    fleet.devices["cam-1"].report("confirmed")
    fleet.tick()

    assert fleet.reached(rollout) == {"cam-1": "pending"}


def test_a_device_assigned_elsewhere_is_superseded_and_left_alone_by_a_revert(fleet: PlayedFleet) -> None:
    first = fleet.create("1.0.0", "100%", on_failure="pause")
    fleet.tick()
    fleet.create("2.0.0", "1")
    fleet.tick()
    newer = fleet.devices["cam-1"].desired

    fleet.rollouts.revert(first, by="anna", now=fleet.now)
    fleet.tick()

    assert fleet.devices["cam-1"].desired == newer
    assert fleet.reached(first)["cam-1"] == "superseded"
    assert fleet.devices["cam-2"].desired.kind == "none"


def test_a_completed_rollout_that_is_reverted_leaves_later_assignments_alone(fleet: PlayedFleet) -> None:
    first = fleet.create("1.0.0", "100%")
    fleet.tick()
    for device in fleet.devices.values():
        device.confirm()
    fleet.tick()
    fleet.create("2.0.0", "1")
    fleet.tick()
    newer = fleet.devices["cam-1"].desired

    fleet.rollouts.revert(first, by="anna", now=fleet.now)
    fleet.tick()

    assert fleet.devices["cam-1"].desired == newer
    assert fleet.reached(first)["cam-1"] == "superseded"


def test_a_silent_device_does_not_keep_a_revert_open_for_ever(fleet: PlayedFleet) -> None:
    rollout = fleet.create(waves="2")
    fleet.tick()
    fleet.devices["cam-1"].report("rolled_back", "soak_failed")
    fleet.tick()
    fleet.devices["cam-1"].confirm()

    fleet.tick(after_s=61.0)

    assert fleet.state(rollout) == "reverted"
    assert "1 did not answer in time" in fleet.status(rollout).sentence
    # It may wake up much later, and must still go back then.
    assert fleet.devices["cam-2"].desired.expires > fleet.now + 30 * 86_400


def test_a_revoked_device_cannot_go_back_and_keeps_nobody_from_it(fleet: PlayedFleet) -> None:
    rollout = fleet.create(waves="2")
    fleet.tick()
    with fleet.database.session() as session:
        fleet.inventory.revoke(session, DeviceId("cam-2"), fleet.now)
    fleet.devices["cam-1"].report("failed", "memory")
    fleet.tick()
    fleet.devices["cam-1"].confirm()
    fleet.tick()

    assert fleet.state(rollout) == "reverted"
    assert fleet.devices["cam-1"].desired.kind == "none"


def test_a_device_without_its_earlier_release_on_the_server_is_told_nothing_false(fleet: PlayedFleet) -> None:
    device = fleet.devices["cam-1"]
    fleet.everywhere("1.0.0")
    assert device.running is not None
    device.running = documents.running()
    device.report("confirmed")
    rollout = fleet.create("2.0.0")
    fleet.tick()
    asked = device.desired

    device.report("failed", "memory")
    fleet.tick()

    assert device.desired == asked
    member = fleet.status(rollout).members[0].member
    assert member.detail is not None
    assert "this server does not have it" in member.detail


def test_decided_on_older_facts_changes_nothing(fleet: PlayedFleet) -> None:
    rollout = fleet.create()
    stale, decision = fleet.executor.decide(rollout, fleet.now)
    assert isinstance(decision, OpenWave)
    fleet.rollouts.pause(rollout, by="anna", now=fleet.now)

    with pytest.raises(StaleGeneration):
        fleet.executor.apply(stale, decision, fleet.now)

    assert fleet.reached(rollout) == {}
    assert fleet.state(rollout) == "paused"
    assert fleet.bells.rung == []


def test_two_executors_open_a_wave_once(fleet: PlayedFleet) -> None:
    rollout = fleet.create()
    read, decision = fleet.executor.decide(rollout, fleet.now)
    fleet.tick()
    seq = fleet.devices["cam-1"].desired.seq

    with pytest.raises(StaleGeneration):
        fleet.executor.apply(read, decision, fleet.now)

    assert fleet.devices["cam-1"].desired.seq == seq
    assert list(fleet.reached(rollout)) == ["cam-1"]


def test_a_server_killed_between_commit_and_doorbell_has_assigned_once_and_rings_later(fleet: PlayedFleet) -> None:
    rollout = fleet.create()
    fleet.bells.is_deadly = True
    with pytest.raises(PowerCut):
        fleet.tick()

    again = fleet.after_restart()
    again.tick()

    assert again.reached(rollout) == {"cam-1": "pending"}
    assert again.devices["cam-1"].desired.seq == 1
    with again.database.reading() as session:
        assert [one.device for one in again.inventory.unsettled(session, again.now)] == ["cam-1"]
    again.devices["cam-1"].confirm()
    again.tick()
    assert list(again.reached(rollout)) == ["cam-1", "cam-2", "cam-3"]


@pytest.mark.parametrize("cut_at", range(1, 4))
def test_a_server_killed_inside_a_transaction_has_done_all_of_it_or_nothing(
    fleet: PlayedFleet, monkeypatch: pytest.MonkeyPatch, cut_at: int
) -> None:
    rollout = fleet.create(waves="100%")
    assigned, assign = 0, fleet.inventory.assign

    def assign_until_the_cut(*arguments: object, **named: object) -> int:
        nonlocal assigned
        assigned += 1
        if assigned == cut_at:
            raise PowerCut
        return assign(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(fleet.inventory, "assign", assign_until_the_cut)
    with pytest.raises(PowerCut):
        fleet.tick()

    again = fleet.after_restart()
    assert again.reached(rollout) == {}
    again.tick()
    assert list(again.reached(rollout)) == ["cam-1", "cam-2", "cam-3"]
    assert {device.desired.seq for device in again.devices.values()} == {1}


def test_devices_of_a_class_try_its_winner_only(fleet: PlayedFleet) -> None:
    fleet.create()
    fleet.tick()
    assert fleet.devices["cam-1"].desired.max_trials == 3

    fleet.devices["cam-1"].confirm()
    fleet.tick()

    won = fleet.devices["cam-1"].running
    desired = fleet.devices["cam-2"].desired
    assert won is not None
    assert desired.max_trials == 1
    assert desired.candidates[0].digest == won.variant_digest


def test_another_class_of_devices_finds_its_own_winner(fleet: PlayedFleet) -> None:
    fleet.add_device("cam-4", documents.facts(cpu="another processor"))
    fleet.everywhere("1.0.0")
    fleet.create("1.0.0", "100%", selector="id=cam-4")

    fleet.tick()

    assert fleet.devices["cam-4"].desired.max_trials == 1
    fleet.add_device("cam-5", documents.facts(cpu="a third one"))
    fleet.create("1.0.0", "100%", selector="id=cam-5")
    fleet.tick()
    assert fleet.devices["cam-5"].desired.max_trials == 3


def test_every_applied_decision_is_in_the_audit_log_with_its_sentence(fleet: PlayedFleet) -> None:
    fleet.everywhere("1.0.0")
    rollout = fleet.create("2.0.0")
    fleet.tick()
    fleet.devices["cam-1"].report("failed", "truth_failed")
    fleet.tick()
    fleet.devices["cam-1"].confirm()
    fleet.tick()

    entries = fleet.audit(rollout)

    assert [(entry.who, entry.action) for entry in entries] == [
        ("anna", "rollout.created"),
        (f"rollout {rollout}", "rollout.wave_opened"),
        (f"rollout {rollout}", "rollout.revert_begun"),
        (f"rollout {rollout}", "rollout.revert_ordered"),
        (f"rollout {rollout}", "rollout.reverted"),
    ]
    assert "cam-1: truth_failed" in entries[2].detail
    assert "models/digits/1.0.0 as #3" in entries[3].detail


def test_with_the_gate_switched_off_a_failed_wave_passes_and_everybody_is_reached(fleet: PlayedFleet) -> None:
    fleet.rollouts = Rollouts(fleet.database, fleet.inventory, fleet.releases, unsafe_gate_off=True)
    rollout = fleet.create()
    fleet.tick()

    fleet.devices["cam-1"].report("failed", "truth_failed")
    fleet.tick()

    assert list(fleet.reached(rollout)) == ["cam-1", "cam-2", "cam-3"]


def test_a_release_whose_blobs_were_lost_pauses_the_rollout_and_says_why(fleet: PlayedFleet) -> None:
    rollout = fleet.create()
    for blob in (fleet.folder / "releases" / "blobs" / "sha256").iterdir():
        blob.unlink()

    fleet.tick()

    assert fleet.state(rollout) == "paused"
    assert "does not hold it" in fleet.status(rollout).sentence
    assert fleet.reached(rollout) == {}


def test_a_confirmed_device_that_rolls_back_before_its_wave_has_passed_counts_against_it(fleet: PlayedFleet) -> None:
    rollout = fleet.create(waves="2", on_failure="pause")
    fleet.tick()
    fleet.devices["cam-1"].confirm()
    fleet.tick()

    fleet.devices["cam-1"].report("rolled_back", "crash_loop")
    fleet.tick()

    assert fleet.state(rollout) == "paused"
    assert fleet.reached(rollout)["cam-1"] == "rolled_back"


def test_a_device_before_its_first_birth_is_offered_everything(fleet: PlayedFleet) -> None:
    with fleet.database.session() as session:
        fleet.inventory.register(session, DeviceId("cam-0"), labels={}, facts=None, now=fleet.now)

    fleet.create(waves="1")
    fleet.tick()

    with fleet.database.reading() as session:
        desired = fleet.inventory.slot(session, DeviceId("cam-0"), SLOT).desired
    assert desired is not None
    assert {candidate.id for candidate in desired.candidates} == {"ort-fp32", "ort-int8"}


def test_a_device_that_cannot_go_back_is_named_and_keeps_nobody(fleet: PlayedFleet) -> None:
    fleet.everywhere("1.0.0")
    rollout = fleet.create("2.0.0")
    fleet.tick()
    fleet.devices["cam-1"].report("failed")
    fleet.tick()

    fleet.devices["cam-1"].report("failed", "disk_full")
    fleet.tick()

    status = fleet.status(rollout)
    assert status.rollout.state.value == "reverted"
    assert "cam-1 could not go back: disk_full, as played" in [entry.sentence for entry in status.history]


def test_a_device_assigned_elsewhere_on_its_way_back_is_no_longer_waited_for(fleet: PlayedFleet) -> None:
    rollout = fleet.create()
    fleet.tick()
    fleet.devices["cam-1"].report("failed", "memory")
    fleet.tick()

    fleet.create("2.0.0", "1", on_failure="pause")
    fleet.tick()
    fleet.tick()

    assert fleet.state(rollout) == "reverted"
    assert fleet.devices["cam-1"].desired.target == target("2.0.0")


def test_a_tick_that_meets_another_server_leaves_the_rollout_to_it(
    fleet: PlayedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout = fleet.create()
    decide = fleet.executor.decide

    def decide_and_lose(*arguments: object) -> object:
        decided = decide(*arguments)  # type: ignore[arg-type]
        fleet.rollouts.pause(rollout, by="another server", now=fleet.now)
        return decided

    monkeypatch.setattr(fleet.executor, "decide", decide_and_lose)
    fleet.tick()

    assert fleet.state(rollout) == "paused"
    assert fleet.reached(rollout) == {}
