"""Things measured in turns in one process, so that whatever slows the machine slows all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from tests.bench.figures import ratio

QUIET = 0.5
"""Load average up to which a median means something; above, the 10th percentile stands for it."""


def in_turns(programs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Microseconds of each call, sorted."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        program()
    for _ in range(rounds):
        for name, call in programs.items():
            began = time.perf_counter_ns()
            call()
            times[name].append((time.perf_counter_ns() - began) / 1000)
    return {name: sorted(found) for name, found in times.items()}


def rows(
    times: Mapping[str, Sequence[float]], base: str, bounds: Mapping[str, float], unit: float = 1
) -> list[list[str]]:
    """One row for each: median and 10th percentile (divided by `unit`), ratios to the base, and whether a bound holds.

    The bound is held to the median on a quiet machine, else to the 10th percentile.
    """
    is_quiet = os.getloadavg()[0] <= QUIET
    first = times[base]
    found = []
    for name, values in times.items():
        middle, low = median(values), _tenth(values)
        decisive = middle / median(first) if is_quiet else low / _tenth(first)
        bound = bounds.get(name)
        said = "–" if bound is None else f"{'kept' if decisive <= bound else '**not kept**'} (≤ {bound:.2f} x)"
        found.append(
            [
                name,
                f"{middle / unit:.1f}",
                ratio(middle, median(first)),
                f"{low / unit:.1f}",
                ratio(low, _tenth(first)),
                said,
            ]
        )
    return found


def heads(unit: str) -> list[str]:
    """Heads of the columns that `rows` fills."""
    return ["", f"median {unit}", "to the first", f"10th percentile {unit}", "to the first", "asked"]


def load_note() -> str:
    """How busy the machine is, as a sentence."""
    load = os.getloadavg()[0]
    held = "the median" if load <= QUIET else "the 10th percentile, for the machine is busy"
    return f"Load average {load:.2f}: what is asked is held against {held}."


def _tenth(values: Sequence[float]) -> float:
    return values[len(values) // 10]
