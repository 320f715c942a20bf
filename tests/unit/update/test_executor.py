"""One slot, from an offer to its outcome, over a real journal, store and disk."""

from dataclasses import replace

import pytest

from edge_runtime.contract import reasons
from edge_runtime.contract.device_state import Policy, SlotState
from edge_runtime.contract.digest import digest_of, hex_of
from edge_runtime.contract.errors import ContractError, UpdateError
from edge_runtime.contract.ids import SlotId, VariantId
from edge_runtime.update.planner import Answer
from edge_runtime.update.ports import TrialFailure
from edge_runtime.update.states import Activated, Soaking
from tests.fakes.documents import SLOT
from tests.fakes.update_world import START, FakeRelease, PowerCut, Quality, World

GOOD = Quality()


def confirmed(world: World, version: str = "1") -> FakeRelease:
    """A world whose first release is confirmed."""
    release = world.publish(version, GOOD)
    world.offer(world.assignment(1, release))
    assert world.run() is SlotState.CONFIRMED
    return release


def reason_of(world: World) -> str:
    reason = world.machine.reported().reason
    assert reason is not None
    return reason.code


def step_until(world: World, state: SlotState) -> None:
    for _ in range(60):
        if world.state is state:
            return
        world.machine.step(world.now)
    raise AssertionError(f"never {state}")


def test_a_good_release_is_confirmed_after_its_soak(world: World) -> None:
    release = world.publish("1", GOOD)

    assert world.offer(world.assignment(1, release)) is Answer.ACCEPTED
    assert world.run() is SlotState.CONFIRMED

    report = world.machine.reported()
    assert world.answering == release.candidates[0].digest
    assert report.running is not None
    assert (report.seq, report.release, report.running.release) == (1, release.digest, release.digest)
    assert [trial.verdict for trial in report.trials] == ["chosen"]
    assert report.trials[0].evidence is not None
    assert world.now >= START + 30


def test_a_build_whose_engine_failed_is_rolled_back_though_another_one_answers_in_its_place(world: World) -> None:
    old = confirmed(world)
    world.offer(world.assignment(2, world.publish("2", GOOD)))
    step_until(world, SlotState.SOAKING)
    assert world.live.loaded is not None

    world.live.stand_in = replace(world.live.loaded, variant=VariantId("cpu"), variant_digest=digest_of(b"cpu"))
    world.machine.step(world.now)
    world.live.stand_in = None

    assert world.run() is SlotState.ROLLED_BACK
    reason = world.machine.reported().reason
    assert reason is not None
    assert (reason.code, reason.detail) == (reasons.SOAK_FAILED, "its engine failed")
    assert world.answering == old.candidates[0].digest


def test_what_stands_in_for_a_confirmed_build_is_reported_as_running(world: World) -> None:
    confirmed(world)
    assert world.live.loaded is not None
    meant = world.live.loaded

    world.live.stand_in = replace(meant, variant=VariantId("cpu"), variant_digest=digest_of(b"cpu"))
    running = world.machine.reported().running
    world.live.stand_in = replace(meant, seq=99, variant=VariantId("cpu"), variant_digest=digest_of(b"cpu"))
    foreign = world.machine.reported().running

    assert running is not None
    assert (running.variant, running.release) == ("cpu", meant.release)
    assert foreign is None


def test_equal_revisions_mean_equal_reports_though_nothing_but_what_answers_has_changed(world: World) -> None:
    confirmed(world)
    meant = world.live.loaded
    assert meant is not None
    stand_in = replace(meant, variant=VariantId("cpu"), variant_digest=digest_of(b"cpu"))
    reports = [world.machine.reported()]

    for answering in (stand_in, stand_in, None):
        world.live.stand_in = answering
        reports.append(world.machine.reported())
        summary = world.machine.summary()
        assert (summary.revision, summary.running) == (reports[-1].revision, reports[-1].running)

    first = reports[0].revision
    assert [report.revision - first for report in reports] == [0, 1, 1, 2]
    assert [report.running and report.running.variant for report in reports] == [
        meant.variant, "cpu", "cpu", meant.variant,
    ]  # fmt: skip
    assert world.machine.reported() == reports[-1]


def test_the_fastest_candidate_that_passes_is_kept(world: World) -> None:
    release = world.publish(
        "1", Quality(failing=frozenset({"own", "float"}), p50_ms=1), Quality(p50_ms=5), Quality(p50_ms=4)
    )

    world.offer(world.assignment(1, release))
    world.run()

    assert world.answering == release.candidates[2].digest
    verdicts = [trial.verdict for trial in world.machine.reported().trials]
    assert verdicts == ["refused:kernel_mismatch", "passed", "chosen"]


def test_no_more_candidates_are_tried_than_the_assignment_allows(world: World) -> None:
    release = world.publish("1", Quality(p50_ms=5), Quality(p50_ms=1))

    world.offer(world.assignment(1, release, max_trials=1))
    world.run()

    assert world.answering == release.candidates[0].digest
    assert [trial.verdict for trial in world.machine.reported().trials] == ["chosen", "skipped"]
    model = f"model {release.candidates[1].id}".encode() * 40
    assert not any(world.blobs[digest] == model for digest in world.fetched)


@pytest.mark.parametrize(
    ("quality", "code"),
    [
        (Quality(failing=frozenset({"float"})), "golden_failed"),
        (Quality(failing=frozenset({"own"})), "kernel_mismatch"),
        (Quality(failing=frozenset({"truth"})), "truth_failed"),
        (Quality(p95_ms=99.0), "too_slow"),
        (Quality(peak_bytes=10**12), "memory"),
        (Quality(failure=TrialFailure("load_failed", "odd opset")), "load_failed"),
    ],
)
def test_a_release_that_fails_its_trial_never_answers(world: World, quality: Quality, code: str) -> None:
    old = confirmed(world)
    bad = world.publish("2", quality)

    world.offer(world.assignment(2, bad))

    assert world.run() is SlotState.FAILED
    assert reason_of(world) == code
    assert world.answering == old.candidates[0].digest
    assert bad.candidates[0].digest not in world.live.answered


@pytest.mark.parametrize(
    ("quality", "code"),
    [
        (Quality(opens=False), "load_failed"),
        (Quality(error_share=0.5), "soak_failed"),
        (Quality(kills_agent=True), "crash_loop"),
    ],
)
def test_a_release_that_fails_when_live_is_rolled_back_to_the_old_one(
    world: World, quality: Quality, code: str
) -> None:
    old = confirmed(world)
    bad = world.publish("2", quality)

    world.offer(world.assignment(2, bad))

    assert world.run() is SlotState.ROLLED_BACK
    assert reason_of(world) == code
    assert world.answering == old.candidates[0].digest
    running = world.machine.reported().running
    assert running is not None
    assert running.seq == 1


def test_a_first_release_that_fails_when_live_leaves_the_slot_empty(world: World) -> None:
    world.offer(world.assignment(1, world.publish("1", Quality(error_share=1.0))))

    assert world.run() is SlotState.ROLLED_BACK
    assert world.answering is None
    assert world.machine.reported().running is None


def test_without_a_network_the_device_waits_and_then_goes_on(world: World) -> None:
    release = world.publish("1", GOOD)
    world.online = False
    world.offer(world.assignment(1, release))

    pauses = []
    for _ in range(8):
        outcome = world.machine.step(world.now)
        if outcome.rest_until is not None:
            pauses.append(outcome.rest_until - world.now)
            world.now = outcome.rest_until

    assert world.state is SlotState.OFFERED
    assert world.machine.reported().waiting_for == "network"
    assert pauses == sorted(pauses)
    world.online = True
    assert world.run() is SlotState.CONFIRMED
    assert world.machine.reported().waiting_for is None


def test_a_broken_download_is_continued_not_begun_again(world: World) -> None:
    release = world.publish("1", GOOD)
    world.offer(world.assignment(1, release))
    step_until(world, SlotState.ADMITTED)
    world.cut_after_bytes = 3

    outcome = world.machine.step(world.now)
    world.boot()

    assert outcome.error is not None
    stage = world.folder / "state" / "stage"
    assert [path.stat().st_size for path in stage.iterdir()] == [3]
    assert world.run() is SlotState.CONFIRMED
    assert list(stage.iterdir()) == []


def test_a_device_that_waits_past_its_deadline_fails(world: World) -> None:
    world.online = False
    world.offer(world.assignment(1, world.publish("1", GOOD)))

    assert world.run() is SlotState.FAILED
    assert reason_of(world) == "deadline"


def test_a_device_that_cannot_confirm_in_time_goes_back_by_itself(world: World) -> None:
    old = confirmed(world)
    release = world.publish("2", GOOD)

    world.offer(world.assignment(2, release, policy=Policy(soak_s=500.0, deadline_s=100.0)))

    assert world.run() is SlotState.ROLLED_BACK
    assert reason_of(world) == "deadline"
    assert world.answering == old.candidates[0].digest


def test_an_expired_assignment_is_not_begun_and_what_runs_goes_on(world: World) -> None:
    old = confirmed(world)

    world.offer(world.assignment(2, world.publish("2", GOOD), expires=world.now))

    assert world.run() is SlotState.FAILED
    assert reason_of(world) == "expired"
    assert world.answering == old.candidates[0].digest


def test_a_newer_assignment_replaces_one_that_is_being_tried(world: World) -> None:
    first, second = world.publish("1", GOOD), world.publish("2", GOOD)
    world.offer(world.assignment(1, first))
    step_until(world, SlotState.VERIFIED)

    world.offer(world.assignment(2, second))

    assert world.machine.reported().state == "offered"
    assert world.machine.reported().seq == 2
    assert world.run() is SlotState.CONFIRMED
    assert world.answering == second.candidates[0].digest


def test_a_newer_assignment_takes_a_soaking_release_back_first(world: World) -> None:
    old = confirmed(world)
    second = world.publish("2", GOOD)
    world.offer(world.assignment(2, second))
    step_until(world, SlotState.SOAKING)

    world.offer(world.assignment(3, world.publish("3", Quality(failing=frozenset({"truth"})))))

    assert world.run() is SlotState.FAILED
    assert world.answering == old.candidates[0].digest


def test_what_runs_already_is_confirmed_again_without_fetching(world: World) -> None:
    release = confirmed(world)
    world.fetched.clear()
    world.trials.clear()
    world.online = False

    world.offer(world.assignment(2, release, parameters={"threshold": 0.7}))

    assert world.run() is SlotState.CONFIRMED
    assert (world.fetched, world.trials) == ([], [])
    running = world.machine.reported().running
    assert running is not None
    assert (world.machine.reported().seq, running.seq) == (2, 2)
    assert world.live.loaded is not None
    assert world.live.loaded.parameters == {"threshold": 0.7}


def test_an_order_to_run_nothing_empties_the_slot_and_the_store(world: World) -> None:
    confirmed(world)

    world.offer(world.assignment(2, None))

    assert world.run() is SlotState.CONFIRMED
    assert world.answering is None
    assert world.machine.reported().running is None
    assert list((world.folder / "state" / "objects").iterdir()) == []
    world.boot()
    assert world.answering is None


def test_an_older_sequence_number_is_stale_for_ever(world: World) -> None:
    release = confirmed(world)

    assert world.offer(world.assignment(0, release)) is Answer.STALE
    assert world.offer(world.assignment(1, release)) is Answer.KNOWN
    assert world.home.journal.highest_seqs() == {SLOT: 1}


def test_a_quarantined_release_is_tried_again_only_under_a_new_sequence_number(world: World) -> None:
    bad = world.publish("1", Quality(failing=frozenset({"float"})))
    assignment = world.assignment(1, bad)
    world.offer(assignment)
    world.run()
    world.trials.clear()

    assert world.offer(assignment) is Answer.QUARANTINED
    assert world.run() is SlotState.FAILED
    assert world.trials == []

    world.offer(world.assignment(2, bad))
    world.run()
    assert len(world.trials) == 1


def test_a_retryable_failure_is_tried_again_when_offered_again_after_a_pause(world: World) -> None:
    release = world.publish("1", GOOD)
    model = next(digest for digest, content in world.blobs.items() if content.startswith(b"model v0-1"))
    content = world.blobs.pop(model)
    assignment = world.assignment(1, release)
    world.offer(assignment)
    assert world.run() is SlotState.FAILED
    assert reason_of(world) == "blob_missing"
    world.blobs[model] = content

    assert world.offer(assignment) is Answer.RETRY
    assert world.machine.step(world.now).rest_until is not None
    assert world.run() is SlotState.CONFIRMED


def test_bytes_that_are_not_the_promised_ones_are_never_kept(world: World) -> None:
    release = world.publish("1", GOOD)
    model = next(digest for digest, content in world.blobs.items() if content.startswith(b"model v0-1"))
    world.blobs[model] = bytes(reversed(world.blobs[model]))
    world.offer(world.assignment(1, release))

    assert world.run() is SlotState.FAILED
    assert reason_of(world) == "digest_mismatch"
    assert not (world.folder / "state" / "objects" / hex_of(model)).exists()


def test_a_release_that_does_not_fit_the_disk_is_refused_before_it_is_fetched(world: World) -> None:
    world.disk.free_bytes = lambda folder: 100  # type: ignore[method-assign]
    world.offer(world.assignment(1, world.publish("1", GOOD)))

    assert world.run() is SlotState.FAILED
    assert reason_of(world) == "disk_full"


def test_a_release_without_a_fitting_variant_is_refused(world: World) -> None:
    release = world.publish("1", GOOD)
    assignment = world.assignment(1, release, candidates=[])

    world.offer(assignment)

    assert world.run() is SlotState.FAILED
    assert reason_of(world) == "no_variant"


def test_the_previous_release_answers_when_the_current_is_damaged_at_start(world: World) -> None:
    old = confirmed(world)
    world.offer(world.assignment(2, world.publish("2", GOOD)))
    assert world.run() is SlotState.CONFIRMED
    model = next(digest for digest, content in world.blobs.items() if content.startswith(b"model v0-2"))
    path = world.home.store.path_of(model)
    path.chmod(0o644)
    path.write_bytes(b"x" * path.stat().st_size)

    world.boot()

    assert world.answering == old.candidates[0].digest
    assert world.state is SlotState.ROLLED_BACK
    assert reason_of(world) == "digest_mismatch"


def test_a_damaged_pointer_falls_back_to_the_previous_release(world: World) -> None:
    old = confirmed(world)
    world.offer(world.assignment(2, world.publish("2", GOOD)))
    world.run()
    (world.folder / "state" / "slots" / SLOT / "current.json").write_bytes(b"{")

    world.boot()

    assert world.answering == old.candidates[0].digest


def test_an_orderly_restart_does_not_count_as_a_crash(world: World) -> None:
    world.offer(world.assignment(1, world.publish("1", GOOD)))
    step_until(world, SlotState.SOAKING)

    for _ in range(5):
        world.machine.close()
        world.boot()

    status = world.home.journal.read(SLOT).status
    assert isinstance(status, Soaking)
    assert status.crashes == 0
    assert world.run() is SlotState.CONFIRMED


def test_an_agent_that_dies_twice_while_soaking_goes_back(world: World) -> None:
    old = confirmed(world)
    world.offer(world.assignment(2, world.publish("2", GOOD)))
    step_until(world, SlotState.SOAKING)

    world.boot()
    assert world.state is SlotState.SOAKING
    world.boot()

    assert world.state is SlotState.ROLLED_BACK
    assert reason_of(world) == "crash_loop"
    assert world.answering == old.candidates[0].digest


def test_a_candidate_that_takes_the_agent_down_in_its_trial_is_given_up(world: World) -> None:
    world.offer(world.assignment(1, world.publish("1", GOOD)))
    step_until(world, SlotState.BUILT)

    for _ in range(2):
        world.fuse.left = 3
        with pytest.raises(PowerCut):
            world.machine.step(world.now)
        world.boot()

    assert world.run() is SlotState.FAILED
    assert reason_of(world) == "crash_loop"


def test_a_second_agent_on_the_same_folder_is_refused(world: World) -> None:
    world.offer(world.assignment(1, world.publish("1", GOOD)))
    stale = world.home.journal.read(SLOT)
    world.machine.step(world.now)

    with pytest.raises(UpdateError, match="someone else moved it"):
        world.home.journal.note(stale, stale.status, world.now)


def test_an_assignment_for_another_slot_is_refused(world: World) -> None:
    assignment = world.assignment(1, None, slot=SlotId("other"))

    with pytest.raises(ContractError, match="another slot"):
        world.offer(assignment)


def test_reports_of_one_revision_are_equal_and_revisions_grow(world: World) -> None:
    world.offer(world.assignment(1, world.publish("1", GOOD)))
    revisions = []
    while world.state is not SlotState.CONFIRMED:
        report = world.machine.reported()
        assert report == world.machine.reported()
        revisions.append(report.revision)
        outcome = world.machine.step(world.now)
        world.now = outcome.rest_until or world.now

    assert revisions == sorted(revisions)
    assert world.machine.reported().revision > revisions[-1]


def test_the_way_back_survives_a_crash_in_its_middle(world: World) -> None:
    old = confirmed(world)
    world.offer(world.assignment(2, world.publish("2", Quality(opens=False))))
    step_until(world, SlotState.TRIALLED)
    world.disk.rename = _fails_on(2)  # type: ignore[method-assign]

    with pytest.raises(UpdateError):
        world.machine.step(world.now)
    status = world.home.journal.read(SLOT).status
    assert isinstance(status, Activated)
    assert status.undo is not None
    assert status.undo.code == reasons.INTERNAL
    del world.disk.rename

    world.boot()

    assert world.state is SlotState.ROLLED_BACK
    assert world.answering == old.candidates[0].digest


def _fails_on(first: int):  # type: ignore[no-untyped-def]
    calls = 0

    def rename(source: object, target: object) -> None:
        nonlocal calls
        calls += 1
        if calls >= first:
            raise OSError(5, "Input/output error")
        source.replace(target)  # type: ignore[attr-defined]

    return rename
