from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from converters.caching.cache import Cache
from converters.caching.stages import Stage, Stages, environment_here
from converters.planning.age import KEPT_FOR, age_notes, is_recent, stamp

NOW = datetime(2026, 5, 17, 12, 0, tzinfo=timezone.utc)


def ago(**time: float) -> str:
    return stamp(NOW - timedelta(**time))


@pytest.mark.parametrize(
    ("at", "counts"),
    [(ago(hours=0), True), (ago(days=30), True), (ago(days=30, seconds=1), False), (ago(hours=-1), False), ("", False)],
)
def test_a_measurement_counts_for_thirty_days(at: str, counts: bool) -> None:
    assert is_recent(at, NOW) is counts
    assert KEPT_FOR.days == 30


def test_the_report_says_how_old_its_oldest_latency_is_and_nothing_of_fresh_ones() -> None:
    assert age_notes([ago(minutes=59), ago(seconds=1)], NOW) == []
    (note,) = age_notes([ago(minutes=1), ago(hours=5), ago(days=9)], NOW)
    assert note.startswith("2 of the latencies were measured by an earlier build, the oldest 9 days ago")
    assert "older than 30 days is measured anew" in note
    assert "the oldest 5 h ago" in age_notes([ago(hours=5)], NOW)[0]


def test_what_does_not_count_any_more_is_made_anew_and_kept(tmp_path: Path) -> None:
    stage, made = Stage("measure", "v", {}), []

    def asked(value: int) -> int:
        stages = Stages(environment_here({}), Cache(tmp_path))
        return stages.run(stage, int, lambda: made.append(value) or value, lambda found: found > 1)

    assert [asked(1), asked(2), asked(3)] == [1, 2, 2]
    assert made == [1, 2]
