"""Trusted time on a device whose own clock may say anything."""

from __future__ import annotations

import time

import pytest

from edge_runtime.agent.build import BUILD_S
from edge_runtime.agent.clock import AgentClock
from edge_runtime.trust.trusted_time import TimeFloor

DEAD_S = -time.time() + 1000.0
YEAR_S = 365 * 86400.0


def clock(offset_s: float, floor_s: float = 0.0, kept: list[float] | None = None) -> AgentClock:
    return AgentClock(offset_s, TimeFloor(BUILD_S, floor_s), (kept if kept is not None else []).append)


def test_a_clock_at_1970_is_replaced_by_what_was_proven_until_the_director_speaks() -> None:
    dead = clock(DEAD_S, floor_s=BUILD_S + 50.0)

    assert dead.system() < 10_000
    assert dead.now() == dead.certain() == BUILD_S + 50.0

    dead.learn(BUILD_S + 5000.0)

    assert BUILD_S + 5000.0 <= dead.now() < BUILD_S + 5060.0


def test_a_clock_that_runs_ahead_does_not_judge_whoever_could_correct_it() -> None:
    early = clock(BUILD_S + YEAR_S - time.time())

    assert early.now() > BUILD_S + YEAR_S - 60
    assert early.certain() == BUILD_S

    early.learn(BUILD_S + 100.0)

    assert early.now() == pytest.approx(BUILD_S + 100.0, abs=60)
    assert early.certain() == pytest.approx(BUILD_S + 100.0, abs=60)


def test_the_floor_is_kept_when_it_rises_by_an_hour_and_never_falls() -> None:
    kept: list[float] = []
    learner = clock(DEAD_S, kept=kept)

    for signed_s in (BUILD_S + 7200.0, BUILD_S + 7300.0, BUILD_S + 100.0, BUILD_S + 20_000.0):
        learner.learn(signed_s)

    assert kept == [BUILD_S + 7200.0, BUILD_S + 20_000.0]


def test_a_floor_that_cannot_be_stored_is_not_relied_on() -> None:
    def fail(_raised_s: float) -> None:
        raise OSError("disk")

    broken = AgentClock(DEAD_S, TimeFloor(BUILD_S), fail)

    with pytest.raises(OSError, match="disk"):
        broken.learn(BUILD_S + 7200.0)

    assert broken.now() == BUILD_S
