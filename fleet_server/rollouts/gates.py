"""Does a wave pass? A census of its devices, as a verdict with numbers and a sentence (pure)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fleet_server.rollouts.model import OutcomeGate, WaveCensus


@dataclass(frozen=True, slots=True)
class Verdict:
    """Pass, fail, or inconclusive: inconclusive waits and never passes."""

    result: Literal["pass", "fail", "inconclusive"]
    sentence: str


def judge(gate: OutcomeGate, census: WaveCensus) -> Verdict:
    """The verdict over one wave.

    It fails as soon as the share can no longer hold, and passes only when every reached device is
    decided or past its deadline.
    """
    allowed = math.floor(gate.max_failed_ratio * census.counted + 1e-9)
    wave = f"wave {census.index + 1}"
    if census.bad > allowed:
        return Verdict("fail", f"{wave} failed: {_bad(census)}, {_tolerance(allowed)}")
    if census.undecided > 0:
        return Verdict(
            "inconclusive",
            f"{wave} is open: {census.confirmed} of {device_count(census.counted)} confirmed,"
            f" {census.undecided} undecided",
        )
    if census.counted == 0:
        return Verdict("pass", f"{wave} passed: it has no device of its own to wait for")
    tolerated = f", {_bad(census)} ({_tolerance(allowed)})" if census.bad else ""
    return Verdict("pass", f"{wave} passed: {census.confirmed} of {device_count(census.counted)} confirmed{tolerated}")


def _bad(census: WaveCensus) -> str:
    parts = [
        f"{number} {what}"
        for number, what in (
            (census.failed, "refused the release"),
            (census.rolled_back, "rolled back"),
            (census.silent, "silent past the deadline"),
        )
        if number
    ]
    named = ", ".join(f"{device}: {reason}" for device, reason in census.reasons[:3])
    return f"of {device_count(census.counted)} {' and '.join(parts)}" + (f" ({named})" if named else "")


def _tolerance(allowed: int) -> str:
    return f"{allowed} tolerated" if allowed else "none tolerated"


def device_count(number: int) -> str:
    """A number of devices, in words."""
    return f"{number} device" if number == 1 else f"{number} devices"
