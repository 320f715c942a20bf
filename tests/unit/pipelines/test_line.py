"""The waiting line: files wait for room, live frames push out the oldest."""

from __future__ import annotations

import threading

from edge_runtime.pipelines.line import Line


def taken(line: Line[int]) -> list[int]:
    line.end()
    return list(iter(line.take, None))


def test_the_newest_live_item_pushes_out_the_oldest_and_that_is_counted() -> None:
    line: Line[int] = Line(2)

    for item in range(5):
        line.put(item, is_live=True)

    assert line.dropped == 3
    assert taken(line) == [3, 4]


def test_an_item_that_must_not_be_lost_waits_until_there_is_room() -> None:
    line: Line[int] = Line(1)
    line.put(0, is_live=False)
    waiting = threading.Thread(target=lambda: line.put(1, is_live=False))
    waiting.start()

    first = line.take()
    waiting.join(10)

    assert (first, line.dropped) == (0, 0)
    assert taken(line) == [1]


def test_a_live_item_never_pushes_out_one_that_must_not_be_lost() -> None:
    line: Line[int] = Line(2)
    line.put(0, is_live=False)
    line.put(1, is_live=True)

    line.put(2, is_live=True)

    assert line.dropped == 1
    assert taken(line) == [0, 2]


def test_the_end_frees_whoever_waits() -> None:
    line: Line[int] = Line(1)
    line.put(0, is_live=False)
    waiting = threading.Thread(target=lambda: line.put(1, is_live=False))
    waiting.start()

    line.end()
    waiting.join(10)

    assert not waiting.is_alive()
    assert line.take() == 0
    assert line.take() is None
