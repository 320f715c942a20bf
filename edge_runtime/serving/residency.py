"""Which models may be in memory: a budget by estimate, and who has to go when another one comes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.reasons import MEMORY


class Resident(Protocol):
    """Something in memory that can be asked to leave."""

    @property
    def last_used(self) -> float:
        """`time.monotonic()` of the last call."""

    @property
    def may_leave(self) -> bool:
        """Whether nothing would be lost with it."""

    def vacate(self) -> None:
        """Leave memory when calls in flight have ended; the next call brings it back."""


@dataclass(frozen=True, slots=True)
class Held:
    """What one resident holds, as the plan sees it."""

    size_bytes: int
    last_used: float
    may_leave: bool


def plan_room(needed_bytes: int, budget_bytes: int, held: Sequence[Held]) -> list[int] | None:
    """Places in `held` of those who have to leave, least recently used first; None when that would not be enough."""
    free = budget_bytes - sum(one.size_bytes for one in held)
    leaving: list[int] = []
    for place in sorted(range(len(held)), key=lambda place: held[place].last_used):
        if free >= needed_bytes:
            break
        if held[place].may_leave:
            leaving.append(place)
            free += held[place].size_bytes
    return leaving if free >= needed_bytes else None


class Residency:
    """The memory of all models of one host.

    Args:
        budget_bytes: how much all together may need; None: no bound.
    """

    def __init__(self, budget_bytes: int | None) -> None:
        self.budget_bytes = budget_bytes
        self._lock = threading.Lock()
        self._sizes: dict[Resident, int] = {}
        self._settled: set[Resident] = set()
        """Those who may be asked to leave: loaded, and not being replaced just now."""

    @property
    def used_bytes(self) -> int:
        """What all residents need by estimate."""
        return sum(self._sizes.values())

    def take(self, resident: Resident, size_bytes: int, *, beside: Resident | None = None) -> None:
        """Reserve memory, in place of what this resident held; others leave for it before this returns.

        Args:
            resident: for whom; may not be asked to leave before `hold`.
            size_bytes: how much it needs at its peak, by estimate.
            beside: must not leave for it: the version that answers until this one takes over.

        Raises:
            InferenceError: code `memory`; nothing has changed.
        """
        leaving: list[Resident] = []
        with self._lock:
            if self.budget_bytes is not None:
                others = [one for one in self._sizes if one is not resident]
                held = [Held(self._sizes[one], one.last_used, self._may_leave(one, beside)) for one in others]
                places = plan_room(size_bytes, self.budget_bytes, held)
                if places is None:
                    raise _no_room(size_bytes, self.budget_bytes, held)
                leaving = [others[place] for place in places]
            for one in leaving:
                self._forget(one)
            self._sizes[resident] = size_bytes
            self._settled.discard(resident)
        for one in leaving:
            one.vacate()

    def hold(self, resident: Resident, size_bytes: int) -> None:
        """It is loaded and needs this much, come what may; from now on it may be asked to leave."""
        with self._lock:
            self._sizes[resident] = size_bytes
            self._settled.add(resident)

    def give_back(self, resident: Resident) -> None:
        """It holds nothing any more; safe to repeat."""
        with self._lock:
            self._forget(resident)

    def _may_leave(self, resident: Resident, beside: Resident | None) -> bool:
        return resident in self._settled and resident is not beside and resident.may_leave

    def _forget(self, resident: Resident) -> None:
        self._sizes.pop(resident, None)
        self._settled.discard(resident)


def _no_room(needed_bytes: int, budget_bytes: int, held: Sequence[Held]) -> InferenceError:
    staying = sum(one.size_bytes for one in held if not one.may_leave)
    mib = 1024 * 1024
    others = f", {staying / mib:.1f} MiB of which must stay" if staying else ""
    return InferenceError(
        "load the model",
        f"it needs {needed_bytes / mib:.1f} MiB and the models together may have {budget_bytes / mib:.1f} MiB{others}",
        "raise the memory budget, unload another model, or build a smaller variant",
        code=MEMORY,
    )
