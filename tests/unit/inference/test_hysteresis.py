"""From scores to segments: thresholds, pauses, padding, and that nothing said is taken back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.contract.answer_steps import Hysteresis
from edge_runtime.inference.postprocessing.hysteresis import SegmentFinder, segment_overlap
from edge_runtime.inference.postprocessing.stream_results import Segment

STEP_S = 0.1


def hysteresis(**told: float) -> Hysteresis:
    usual = {"on": 0.5, "off": 0.3, "min_on_ms": 0.0, "min_off_ms": 0.0, "pad_ms": 0.0}
    return Hysteresis(from_="p", **{**usual, **told})


def found(scores: list[float], **told: float) -> list[tuple[float, float]]:
    finder = SegmentFinder(hysteresis(**told), STEP_S)
    for score in scores:
        finder.push(score)
    finder.finish(len(scores) * STEP_S)
    return [(round(one.start_s, 6), round(one.end_s, 6)) for one in finder.take()]


@pytest.mark.parametrize(
    ("scores", "told", "segments"),
    [
        ([0, 1, 1, 0], {}, [(0.1, 0.3)]),
        ([0.4, 0.5, 0.4, 0.29], {}, [(0.1, 0.3)]),
        ([1, 1], {}, [(0.0, 0.2)]),
        ([1, 0, 1], {"min_off_ms": 200}, [(0.0, 0.3)]),
        ([1, 0, 0, 1], {"min_off_ms": 200}, [(0.0, 0.1), (0.3, 0.4)]),
        ([1, 0, 0, 1, 1], {"min_on_ms": 200}, [(0.3, 0.5)]),
        ([1, 0, 1, 0, 0], {"min_on_ms": 300, "min_off_ms": 200}, [(0.0, 0.3)]),
        ([0, 1, 0, 0], {"pad_ms": 30, "min_off_ms": 100}, [(0.07, 0.23)]),
        ([1, 1], {"pad_ms": 30, "min_off_ms": 100}, [(0.0, 0.2)]),
        ([1, float("nan"), 1], {}, [(0.0, 0.1), (0.2, 0.3)]),
        ([0, 0.1], {}, []),
    ],
)
def test_segments_are_these(scores, told, segments) -> None:
    assert found(scores, **told) == segments


def runs(scores: list[float], on: float, off: float) -> list[list[int]]:
    """Segments by the definition, read off the whole sequence at once: [first, end) of each run that is on."""
    pieces: list[list[int]] = []
    is_on = False
    for position, score in enumerate(scores):
        was, is_on = is_on, score >= (off if is_on else on)
        if is_on and not was:
            pieces.append([position, position + 1])
        elif is_on:
            pieces[-1][1] = position + 1
    return pieces


@settings(max_examples=300, deadline=None)
@given(scores=st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.9]), max_size=60),
       min_off=st.integers(1, 5), min_on=st.integers(0, 5))  # fmt: skip
def test_score_after_score_finds_what_the_whole_sequence_holds(scores, min_off, min_on) -> None:
    joined: list[list[int]] = []
    for piece in runs(scores, 0.5, 0.3):
        if joined and piece[0] - joined[-1][1] < min_off:
            joined[-1][1] = piece[1]
        else:
            joined.append(piece)
    long = [piece for piece in joined if piece[1] - piece[0] >= min_on]

    segments = found(scores, min_off_ms=min_off * 100, min_on_ms=min_on * 100)

    assert segments == [(round(first * STEP_S, 6), round(end * STEP_S, 6)) for first, end in long]


@settings(max_examples=100, deadline=None)
@given(scores=st.lists(st.floats(0, 1), max_size=40), cut=st.integers(0, 40))
def test_what_was_said_is_never_taken_back_and_segments_lie_apart(scores, cut) -> None:
    step = hysteresis(min_off_ms=200, pad_ms=100, min_on_ms=100)
    whole, early = SegmentFinder(step, STEP_S), SegmentFinder(step, STEP_S)
    for score in scores:
        whole.push(score)
    for score in scores[:cut]:
        early.push(score)
    whole.finish(len(scores) * STEP_S)

    said, all_of_them = early.take(), whole.take()

    assert all_of_them[: len(said)] == said
    for before, after in pairwise(all_of_them):
        assert before.end_s <= after.start_s + 1e-9


def test_a_segment_under_way_is_known_once_it_is_long_enough() -> None:
    finder = SegmentFinder(hysteresis(min_on_ms=200), STEP_S, offset_s=5.0)

    since = []
    for score in (0, 1, 1, 0):
        finder.push(score)
        since.append(finder.open_since_s)

    assert since == [None, None, pytest.approx(5.1), None]


@pytest.mark.parametrize(
    ("first", "second", "both", "either"),
    [
        ([(0, 1)], [(0, 1)], 1, 1),
        ([(0, 2), (3, 4)], [(1, 3.5)], 1.5, 4),
        ([(0, 1)], [], 0, 1),
        ([], [], 0, 0),
        ([(0, 10)], [(1, 2), (3, 4), (9, 12)], 3, 12),
    ],
)
def test_overlap_in_time(first, second, both, either) -> None:
    one, other = ([Segment(*piece) for piece in pieces] for pieces in (first, second))

    assert segment_overlap(one, other) == (pytest.approx(both), pytest.approx(either))
    assert segment_overlap(other, one) == (pytest.approx(both), pytest.approx(either))
