"""How long a measured latency counts: updates, a new governor or a fan that fails change what a machine does; pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Final

KEPT_FOR: Final = timedelta(days=30)
"""After this a candidate is measured anew, whatever the cache holds."""
_WORTH_SAYING: Final = timedelta(hours=1)
_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"


def stamp(now: datetime) -> str:
    """A moment as evidence carries it: RFC 3339, UTC."""
    return now.astimezone(timezone.utc).strftime(_FORMAT)


def is_recent(at: str, now: datetime) -> bool:
    """Whether what was measured at that moment still counts; a moment that is still to come is a wrong clock's."""
    age = _age(at, now)
    return age is not None and timedelta(0) <= age <= KEPT_FOR


def age_notes(moments: Iterable[str], now: datetime) -> list[str]:
    """What the report says of latencies that an earlier build measured; nothing where this one did."""
    ages = [age for at in moments if (age := _age(at, now)) is not None and age >= _WORTH_SAYING]
    if not ages:
        return []
    told = f"{len(ages)} of the latencies were measured by an earlier build, the oldest {_words(max(ages))} ago"
    return [f"{told}; what is older than {KEPT_FOR.days} days is measured anew, with --no-cache everything is"]


def _age(at: str, now: datetime) -> timedelta | None:
    try:
        return now - datetime.strptime(at, _FORMAT).replace(tzinfo=timezone.utc)
    except ValueError:
        return None


def _words(age: timedelta) -> str:
    hours = int(age.total_seconds() // 3600)
    return f"{hours} h" if hours < 48 else f"{hours // 24} days"
