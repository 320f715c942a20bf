"""Which settings are tried, and which of them wins (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from edge_runtime.contract.ids import VariantId

MARGIN: Final = 0.03
"""What is not faster by more than this counts as equally fast: two runs of the same thing differ by as much."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to run a release."""

    variant: VariantId
    threads: int | None
    """Inside one call; None: as the variant and its engine would have it."""
    provider: str | None = None
    """None: as the variant lists them."""


@dataclass(frozen=True, slots=True)
class Fitting:
    """A variant that fits this machine."""

    variant: VariantId
    leaves_threads_open: bool
    providers: tuple[str, ...] = ()
    """Of its engine, as it lists them."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one candidate."""

    candidate: Candidate
    refusal: str | None = None
    """Why it cannot win: it did not load, failed the golden check, or was not tried; None: it may."""
    p50_ms: float | None = None
    ratio: float | None = None
    """Of its time to what would run without tuning, in pairs; None where it was not measured."""
    cpu_ms: float | None = None
    """CPU time of one answer, all threads."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who wins, and a sentence for each."""

    winner: Measured | None
    """None: nobody may run."""
    reasons: tuple[str, ...]
    """In the order of what was measured."""
    sentence: str


def plan_candidates(fitting: Sequence[Fitting], cores: int) -> list[Candidate]:
    """What is tried, in this order: what would run without tuning, then each variant on each of its providers with
    each number of threads.

    Args:
        fitting: variants that fit this machine, best guess first.
        cores: that this process may use.
    """
    counts = sorted({count for count in (1, 2, 4, 8, 16, 32, 64) if count < cores} | {cores})
    planned = [Candidate(one.variant, None) for one in fitting[:1]]
    for one in fitting:
        settings = counts if one.leaves_threads_open else [None]
        # A single one is what runs anyway.
        providers = one.providers if len(one.providers) > 1 else (None,)
        planned += [Candidate(one.variant, threads, provider) for provider in providers for threads in settings]
    return list(dict.fromkeys(planned))


def decide(measured: Sequence[Measured], margin: float = MARGIN) -> Verdict:
    """Choose among candidates; the first of them is what would run without tuning.

    Who is faster by more than the margin wins; among those within the margin of the fastest, what runs without tuning,
    else who needs the least CPU time.
    """
    sound = [one for one in measured if one.refusal is None and one.ratio is not None]
    if not sound:
        sentence = "no candidate may run here"
        return Verdict(None, tuple(one.refusal or "" for one in measured), sentence)
    fastest = min(sound, key=_ratio)
    near = [one for one in sound if _ratio(one) <= _ratio(fastest) / (1 - margin)]
    usual = measured[0] if measured[0] in near else None
    winner = usual or min(near, key=lambda one: (one.cpu_ms or 0.0, measured.index(one)))
    reasons = tuple(_reason(one, winner, near) for one in measured)
    return Verdict(winner, reasons, _sentence(winner, measured[0], near, margin))


def _ratio(one: Measured) -> float:
    return one.ratio if one.ratio is not None else float("inf")


def _reason(one: Measured, winner: Measured, near: Iterable[Measured]) -> str:
    if one.refusal is not None:
        return one.refusal
    if one is winner:
        return "taken"
    if one in near:
        return "as fast, and no reason to change" if _is_usual(winner) else "as fast, with more CPU time"
    return f"{_ratio(one) / _ratio(winner) - 1:.0%} slower"


def _is_usual(one: Measured) -> bool:
    return one.candidate.threads is None and one.candidate.provider is None


def _sentence(winner: Measured, usual: Measured, near: Sequence[Measured], margin: float) -> str:
    if winner is usual:
        return f"nothing is faster by more than {margin:.0%} than what runs without tuning"
    gain = f"{1 / _ratio(winner):.2f} times as fast as what runs without tuning"
    if usual.refusal is not None:
        gain = f"taken because what would run without tuning may not: {usual.refusal}"
    others = len(near) - 1
    are = "1 other is" if others == 1 else f"{others} others are"
    tied = f"; {are} within {margin:.0%} and would take more CPU time" if others else ""
    return f"{name_of(winner.candidate)}: {gain}{tied}"


def name_of(candidate: Candidate) -> str:
    """A candidate in a few words."""
    where = "" if candidate.provider is None else f" on {candidate.provider}"
    if candidate.threads is None:
        return f"{candidate.variant}{where} as it comes"
    return f"{candidate.variant}{where} with {candidate.threads} thread{'s' * (candidate.threads > 1)}"
