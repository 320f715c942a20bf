"""Memory: who has to leave for whom (as properties of the plan), and models that come back when they are asked."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract import reasons
from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.serving.backoff import Backoff
from edge_runtime.serving.calls import Reply
from edge_runtime.serving.events import Event, Happened
from edge_runtime.serving.host import ModelHost
from edge_runtime.serving.residency import Held, plan_room
from tests.fakes.models import Build
from tests.fakes.pixels import write_pixels
from tests.unit.serving.releases import about, brightest

MIB = 1024 * 1024
HELD = st.builds(Held, size_bytes=st.integers(0, 100), last_used=st.floats(0, 10), may_leave=st.booleans())


@given(st.integers(0, 200), st.integers(0, 300), st.lists(HELD, max_size=8))
def test_whoever_leaves_makes_enough_room_and_nobody_leaves_in_vain(needed: int, budget: int, held: list[Held]) -> None:
    leaving = plan_room(needed, budget, held)

    if leaving is None:
        assert needed + sum(one.size_bytes for one in held if not one.may_leave) > budget
        return
    assert all(held[place].may_leave for place in leaving)
    stays = sum(one.size_bytes for place, one in enumerate(held) if place not in leaving)
    assert needed + stays <= budget or not leaving
    if leaving:
        # Without the last of them there would not have been room.
        assert needed + stays + held[leaving[-1]].size_bytes > budget


@given(st.lists(HELD, min_size=1, max_size=8))
def test_the_least_recently_used_leave_first(held: list[Held]) -> None:
    leaving = plan_room(10, sum(one.size_bytes for one in held), held) or []

    newest = max((held[place].last_used for place in leaving), default=0.0)
    assert all(one.last_used >= newest or place in leaving or not one.may_leave for place, one in enumerate(held))


def needy(folder: Path, name: str, mib: int) -> Path:
    layout = folder / name
    write_pixels(layout, "1.0.0", builds=[Build("cpu", needs_bytes=mib * MIB)])
    return layout


def test_a_model_that_has_to_leave_comes_back_with_its_next_call(tmp_path: Path) -> None:
    events: list[Event] = []
    with ModelHost(5 * MIB, on_event=events.append) as host:
        first, second, third = (host.load(needy(tmp_path, name, 2), name=name) for name in ("first", "second", "third"))
        evicted = [first.variant, second.variant, third.variant]
        reply = first.call(about(3))
        now = [first.variant, second.variant, third.variant]

        assert evicted == [None, "cpu", "cpu"]
        assert brightest(reply) == 3
        assert now == ["cpu", None, "cpu"]
        assert host.used_bytes == 4 * MIB
        assert [event.model for event in events if event.what is Happened.EVICTED] == ["first", "second"]


def test_a_submitted_call_brings_its_model_back_as_well(tmp_path: Path) -> None:
    outcomes: SimpleQueue[Reply | EdgeError] = SimpleQueue()
    with ModelHost(3 * MIB) as host:
        first = host.load(needy(tmp_path, "first", 2), name="first")
        host.load(needy(tmp_path, "second", 2), name="second")

        first.submit(about(1), outcomes.put)
        outcome = outcomes.get(timeout=60)

    assert isinstance(outcome, Reply)
    assert outcome.model == "first"


def test_a_model_larger_than_the_budget_is_refused_and_nobody_leaves_for_it(tmp_path: Path) -> None:
    with ModelHost(3 * MIB) as host:
        small = host.load(needy(tmp_path, "small", 2), name="small")

        with pytest.raises(InferenceError, match=r"needs 9\.0 MiB") as refusal:
            host.load(needy(tmp_path, "large", 9), name="large")

        assert refusal.value.code == reasons.MEMORY
        assert small.variant == "cpu"


def test_a_swap_never_evicts_the_version_that_still_answers(tmp_path: Path) -> None:
    with ModelHost(3 * MIB) as host:
        served = host.load(needy(tmp_path, "first", 2))

        with pytest.raises(InferenceError) as refusal:
            host.swap(needy(tmp_path, "second", 2))

        assert refusal.value.code == reasons.MEMORY
        assert served.variant == "cpu"


@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_waits_grow_up_to_the_cap_and_jitter_only_shortens_them(failures: int, jitter: float) -> None:
    backoff = Backoff(first_s=1.0, cap_s=300.0)

    delay_s = backoff.delay_s(failures, jitter)

    longest = backoff.delay_s(failures, 0.0)
    assert longest * 2 / 3 < delay_s <= longest <= 300.0
    assert backoff.delay_s(failures + 1, 0.0) >= longest
