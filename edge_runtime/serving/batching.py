"""Which waiting calls run together, and when: decides, runs nothing.

A batch begins with the most urgent call and takes those behind it that fit; nothing overtakes a call of its own kind.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from edge_runtime.contract.errors import ContractError
from edge_runtime.contract.ids import shown

ANY_MODEL: Final = "*"
"""Stands for every model that has no policy of its own."""

_WRITTEN: Final = re.compile(r"(\d{1,4})(?::(\d{1,6}(?:\.\d+)?)(us|ms))?")
_UNITS_S: Final = {"us": 1e-6, "ms": 1e-3}
_DELAY_MAX_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How far a model's calls may be gathered."""

    max_rows: int
    """Samples in one run of the engine."""
    delay_s: float = 0.0
    """How long a call may wait for others; 0: it joins only those that wait already, because the engine is busy."""

    def __str__(self) -> str:
        """As people write it."""
        return _ALONE if self.max_rows == 1 else f"{self.max_rows}:{self.delay_s * 1e6:.0f}us"


_ALONE: Final = "off"
ALONE: Final = BatchPolicy(1)
"""Every call runs by itself, whatever was tuned."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call that waits."""

    kind: Hashable
    """Calls of one kind can run together: same inputs, dtypes, shapes behind the first axis, and wanted outputs."""
    rows: int
    """Samples that it brings."""
    arrived: float
    """Seconds of the monotonic clock, as all moments here."""
    priority: int = 0
    """Higher is more urgent."""
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, by position among the calls that wait."""

    late: tuple[int, ...] = ()
    """Never run these: their deadline has passed."""
    batch: tuple[int, ...] = ()
    """Run these together, rows in this order; empty: nothing yet."""
    look_again_at: float | None = None
    """When there is more to decide, if nothing else happens; None: when another call comes."""


def parse_policy(text: str) -> BatchPolicy:
    """Read `8:500us`, `8:2ms`, `8` or `off`. Raises: ContractError."""
    if text == _ALONE:
        return ALONE
    found = _WRITTEN.fullmatch(text)
    max_rows = int(found[1]) if found else 0
    delay_s = float(found[2]) * _UNITS_S[found[3]] if found and found[2] else 0.0
    if max_rows < 2 or delay_s > _DELAY_MAX_S:
        raise ContractError(
            f"batch as {shown(text)}",
            "it is not a number of samples above 1, and a delay up to 1 s",
            "write it like 8:500us, or off",
        )
    return BatchPolicy(max_rows, delay_s)


def parse_policies(texts: Iterable[str]) -> dict[str, BatchPolicy]:
    """Read `MODEL=8:500us`, or `8:500us` for all other models (`*`); `off` for either. Raises: ContractError."""
    policies: dict[str, BatchPolicy] = {}
    for text in texts:
        model, named, written = text.rpartition("=")
        policies[model if named else ANY_MODEL] = parse_policy(written)
    return policies


def next_batch(waiting: Sequence[Waiting], now: float, policy: BatchPolicy, run_s: float = 0.0) -> Decision:
    """The batch to run now, or how long to wait for a fuller one.

    Args:
        waiting: in the order in which they came.
        now: seconds of the monotonic clock.
        policy: of the model.
        run_s: how long a run takes about; a batch is not held back past the moment at which a deadline in it leaves
            just that.
    """
    late = tuple(place for place, call in enumerate(waiting) if call.deadline is not None and now >= call.deadline)
    line = sorted(
        (place for place in range(len(waiting)) if place not in late), key=lambda place: -waiting[place].priority
    )
    if not line:
        return Decision(late)
    batch, is_full = _gather(waiting, line, policy.max_rows)
    until = min(waiting[place].arrived for place in batch) + policy.delay_s
    for place in batch:
        deadline = waiting[place].deadline
        if deadline is not None:
            until = min(until, deadline - run_s)
    # A call of another kind, or one that does not fit, gains nothing from waiting for ours to fill up.
    if is_full or now >= until or len(batch) < len(line):
        return Decision(late, tuple(batch))
    return Decision(late, look_again_at=until)


def _gather(waiting: Sequence[Waiting], line: Sequence[int], max_rows: int) -> tuple[list[int], bool]:
    """Places of the first call's kind until one does not fit, and whether there is room for no more."""
    first = waiting[line[0]]
    batch, rows = [line[0]], first.rows
    for place in line[1:]:
        call = waiting[place]
        if call.kind != first.kind:
            continue
        if rows + call.rows > max_rows:
            return batch, True
        batch.append(place)
        rows += call.rows
    return batch, rows >= max_rows
