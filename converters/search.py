"""Which planned candidates need not be built, because one that passed is at least as good; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from converters.planner import Candidate
from converters.recipe import Prefer


@dataclass(frozen=True, slots=True)
class Tried:
    """How one candidate ended."""

    candidate: Candidate
    ships: bool
    lost: float
    """Accuracy lost; without labels the share of answers that differ from the source model's."""


def find_better(candidate: Candidate, tried: Iterable[Tried], prefer: Prefer) -> str:
    """Why a candidate need not be built; empty when it must be.

    Candidates come in the order of hope, so one that passed beats every later one of its engine that stores numbers in
    as few bits. Who prefers accuracy goes on while something is lost.
    """
    if not candidate.method.is_quantised:
        return ""
    for other in tried:
        is_alike = (
            other.candidate.engine == candidate.engine
            and other.candidate.method.typing == candidate.method.typing
            and other.candidate.method.is_quantised
        )
        if not is_alike or not other.ships or not set(candidate.profiles) <= set(other.candidate.profiles):
            continue
        if prefer == "accuracy" and other.lost > 0:
            continue
        # One scale for each channel takes more room than one for each tensor.
        if prefer == "size" and other.candidate.method.per_channel and not candidate.method.per_channel:
            continue
        return f"{other.candidate.id} passed, and {prefer} prefers it"
    return ""
