"""Who asks so briskly that it should share a thread."""

from __future__ import annotations

from itertools import pairwise

import pytest

from edge_runtime.doors.pace import HURRIED_US, OFTEN_S, SHORT_S, WINDOW, Pace

QUICK = SHORT_S / 2


def ask(pace: Pace, answers_s: list[float], *, every_s: float, left_us: int = 0) -> Pace:
    for number, answer_s in enumerate(answers_s):
        pace.note(number * every_s, number * every_s + answer_s, left_us)
    return pace


def test_short_questions_without_a_pause_are_brisk() -> None:
    assert ask(Pace(), [QUICK] * WINDOW, every_s=QUICK).is_brisk


@pytest.mark.parametrize(
    ("answers_s", "every_s"),
    [([QUICK] * (WINDOW - 1), QUICK), ([QUICK] * WINDOW, OFTEN_S / WINDOW * 1.1), ([SHORT_S * 1.1] * WINDOW, SHORT_S)],
    ids=["too few", "too seldom", "too long"],
)
def test_others_are_not(answers_s: list[float], every_s: float) -> None:
    assert not ask(Pace(), answers_s, every_s=every_s).is_brisk


@pytest.mark.parametrize(("left_us", "is_brisk"), [(HURRIED_US - 1, False), (HURRIED_US, True)])
def test_who_cannot_wait_for_others_is_not_brisk(left_us: int, is_brisk: bool) -> None:
    assert ask(Pace(), [QUICK] * WINDOW, every_s=QUICK, left_us=left_us).is_brisk == is_brisk


def test_answers_that_were_interrupted_do_not_count() -> None:
    assert ask(Pace(), [QUICK, *[SHORT_S * 9] * (WINDOW - 1)], every_s=QUICK).is_brisk


@pytest.mark.parametrize(("slower", "is_brisk"), [(1.9, True), (2.1, False)])
def test_who_is_brisk_may_become_half_as_fast(slower: float, is_brisk: bool) -> None:
    pace = ask(Pace(), [SHORT_S] * WINDOW, every_s=SHORT_S)

    assert ask(pace, [slower * SHORT_S] * WINDOW, every_s=slower * SHORT_S).is_brisk == is_brisk


def test_it_is_judged_anew_again_and_again() -> None:
    judged = []
    pace = Pace()
    for answer_s in (QUICK, 3 * SHORT_S, QUICK):
        judged.append(ask(pace, [answer_s] * WINDOW, every_s=QUICK).is_brisk)

    assert judged == [True, False, True]
    assert all(one != other for one, other in pairwise(judged))
