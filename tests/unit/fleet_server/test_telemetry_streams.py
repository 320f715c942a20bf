"""How far a stream of telemetry is acknowledged: never beyond what is stored or declared lost."""

from __future__ import annotations

from fleet_server.telemetry.model import Extent, StreamState, advance

START = StreamState()
A_MONTH_S = 30 * 86400.0


def test_a_stream_begins_at_zero_and_nothing_is_acknowledged_before_its_beginning() -> None:
    assert advance(START, [Extent(0, 1, 0)], 1.0) == StreamState(1)
    assert advance(START, [Extent(1, 1, 0)], 1.0) == StreamState(0, gap_since=1.0)


def test_a_gap_is_never_passed_however_long_it_lasts() -> None:
    waiting = advance(StreamState(3), [Extent(4, 2, 0)], 10.0)

    assert waiting == StreamState(3, gap_since=10.0)
    assert advance(waiting, [Extent(4, 2, 0)], 10.0 + A_MONTH_S) == waiting
    assert advance(waiting, [Extent(3, 1, 0), Extent(4, 2, 0)], 20.0) == StreamState(6)


def test_a_declared_gap_is_passed_and_counted() -> None:
    assert advance(StreamState(3), [Extent(5, 1, 2)], 1.0) == StreamState(6, missing=2)


def test_more_declared_than_missing_counts_only_what_is_missing() -> None:
    assert advance(StreamState(3), [Extent(5, 1, 5)], 1.0) == StreamState(6, missing=2)


def test_a_later_batch_declares_what_an_earlier_one_waited_for() -> None:
    # 5 arrived but its answer did not; then the device gave up 3, 4 and 5, and says so with 6.
    assert advance(StreamState(3), [Extent(5, 1, 0), Extent(6, 1, 3)], 1.0) == StreamState(7, missing=2)
    assert advance(StreamState(3), [Extent(5, 1, 0), Extent(6, 1, 2)], 1.0) == StreamState(3, gap_since=1.0)
