"""Which variant of one version is in memory: the one that is meant, a stand-in for it, or none."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Collection
from copy import copy
from dataclasses import dataclass
from enum import Enum
from typing import Final

from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.reasons import HUNG, MEMORY
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.blame import EngineFault
from edge_runtime.inference.opening import estimate_peak_bytes
from edge_runtime.inference.requests.accounting import EXPIRED, REJECTED, Accounting
from edge_runtime.inference.requests.admission import Admission
from edge_runtime.inference.requests.refusals import DeadlinePassed, Overloaded
from edge_runtime.serving.backoff import Backoff
from edge_runtime.serving.caretaker import Caretaker
from edge_runtime.serving.events import Event, Happened, Listener
from edge_runtime.serving.instance import Open, is_out_of_memory
from edge_runtime.serving.load_failures import all_refused, ask_golden, leads_on, load_failure
from edge_runtime.serving.residency import Residency
from edge_runtime.serving.seat import Seat
from edge_runtime.serving.variants import Origin, is_accelerated, last_resort, stand_in

_PATIENCE_S: Final = 30.0
"""How long calls in flight may take before whoever swaps or unloads goes on without them."""
_LOAD_PACE_S: Final = 0.5
"""How long a model is taken to need to come back into memory, for whoever asks when to try again."""
_RESTART_AFTER_S: Final = 10.0
"""Between two deaths of a process after which it is started again at once: a call that kills it must not keep it busy.
"""


class ServedState(Enum):
    """What clients may expect of a version."""

    LOADING = "loading"
    READY = "ready"
    """Answers, or is loaded again by the next call."""
    DEGRADED = "degraded"
    """Answers, on another variant than meant."""
    FAILED = "failed"


class Retired(Exception):
    """The version was taken out of service before the call began: ask the one that replaced it."""


@dataclass(frozen=True, slots=True)
class Keeper:
    """What all versions of a host share."""

    residency: Residency
    caretaker: Caretaker
    tell: Listener
    backoff: Backoff
    queue_limit: int
    asks_golden: bool = True
    """False only for controls: variants answer without having been asked their golden questions."""


class Seating:
    """Brings variants of one version into memory, and takes them out again.

    Args:
        name: under which it is served.
        origin: release and fitting variants.
        open_variant: loads one of them.
        keeper: what the host's versions share.
        accounting: of the version.
    """

    def __init__(self, name: str, origin: Origin, open_variant: Open, keeper: Keeper, accounting: Accounting) -> None:
        self.name = name
        self.version = str(origin.release.manifest.version)
        self.origin = origin
        self.state = ServedState.LOADING
        self.seat: Seat | None = None
        self.last_used = 0.0
        self._open_variant = open_variant
        self._keeper = keeper
        self._accounting = accounting
        # Guards every change of `seat`; never held while calls in flight are waited for.
        self._changing = threading.Lock()
        self._waiting = 0
        """Calls that wait for the model to come into memory."""
        self._is_retired = False
        self._checked: set[VariantId] = set()
        """Variants that answered their golden questions since they last failed."""
        self._broken: set[VariantId] = set()
        """Variants that failed, until they are tried again."""
        self._failures = 0
        self._tries_later = False
        self._started_again = -math.inf
        """When a process that died was last started again at once."""
        self._verdict: InferenceError | None = None
        """Why nobody can answer, while that is so."""

    @property
    def may_leave(self) -> bool:
        """Whether nothing would be lost if it left memory; see `residency.Resident`."""
        return not self.open_sequences()

    def open_sequences(self) -> Collection[int | str]:
        """Ids of the sequences that the loaded variant remembers."""
        seat = self.seat
        return () if seat is None else seat.instance.open_sequences()

    @property
    def is_in_use(self) -> bool:
        """Whether a call is being answered or waits, or a sequence is open."""
        seat = self.seat
        return seat is not None and bool(
            seat.admission.running or seat.admission.waiting or seat.instance.open_sequences()
        )

    def load(self, beside: Seating | None = None, *, only: VariantId | None = None) -> None:
        """Bring it into memory and ask its golden set, while `beside` goes on answering.

        Args:
            beside: what answers meanwhile, and makes room for it.
            only: no other variant may take its place now, as it may when its engine fails later.

        Raises:
            InferenceError: no variant can be loaded, with all reasons, or (code `golden_failed`) it answers wrongly.
            ContractError: the golden set breaks the contract.
            DigestMismatch: a file is not the promised one.
        """
        with self._changing:
            try:
                self.seat = self._open_first(beside, only)
            except BaseException:
                self._is_retired = True
                raise

    def check_room(self) -> None:
        """Refuse one more call that would wait for memory when enough wait already. Raises: Retired, Overloaded."""
        if self._is_retired:
            raise Retired
        if self._waiting >= self._keeper.queue_limit:
            self._accounting.record().count(REJECTED)
            raise Overloaded(self._waiting, _LOAD_PACE_S)

    def seated(self, deadline: float | None) -> Seat:
        """The seat, brought into memory when it is not there. Raises: Retired, Refused, InferenceError."""
        self.check_room()
        self._waiting += 1
        try:
            left = -1.0 if deadline is None else min(max(deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
            if not self._changing.acquire(timeout=left):
                self._accounting.record().count(EXPIRED)
                raise DeadlinePassed
        finally:
            self._waiting -= 1
        try:
            if self._is_retired:
                raise Retired
            if self._verdict is not None:
                # Each caller raises an error of its own: one object would gather all their tracebacks.
                raise copy(self._verdict)
            if self.seat is None:
                self.seat = self._open_again()
            return self.seat
        finally:
            self._changing.release()

    def vacate(self) -> None:
        """Leave memory; the next call brings it back. See `residency.Resident`."""
        with self._changing:
            seat, self.seat = self.seat, None
            self._keeper.residency.give_back(self)
        if seat is not None:
            seat.vacate(_PATIENCE_S)
            self._tell(Happened.EVICTED, reason=MEMORY)

    def retire(self, patience_s: float | None = None) -> str:
        """Leave memory for good when calls in flight have ended; later calls raise Retired. Safe to repeat.

        Returns:
            What did not come back in time, and frees the memory should it ever do so (`2 calls`); else nothing.
        """
        was_retired, self._is_retired = self._is_retired, True
        left = self._leave(_PATIENCE_S if patience_s is None else patience_s)
        if not was_retired:
            self._tell(Happened.UNLOADED)
        return left

    def replace(self, seat: Seat, fault: EngineFault) -> bool:
        """Put a stand-in where an engine failed; False when there is none, and the fault is the answer."""
        with self._changing:
            if self._is_retired or self.seat is not seat:
                return True
            failed = seat.instance.variant
            self._checked.discard(failed.id)
            fresh = self._open_stand_in(seat, stand_in(self.origin, failed, self._broken))
            if fresh is None and (fresh := self._start_again(seat, fault)) is not None:
                self.seat = fresh
                self._tell(Happened.RECOVERED, fresh, reason=fault.code, detail=f"started again: {fault.because}")
                self._keeper.caretaker.soon(lambda: seat.vacate(_PATIENCE_S))
                return True
            if fresh is None and seat.instance.is_gone:
                fresh = self._open_stand_in(seat, last_resort(self.origin, failed, self._broken))
            if fresh is not None:
                self.seat = fresh
                self._broken.add(failed.id)
                self._degrade(fresh, failed, fault)
            elif seat.instance.is_gone:
                self.seat = None
                self._give_up(fault)
        if fresh is None and not seat.instance.is_gone:
            return False
        # Calls in flight may hang in the engine that failed: nobody waits for them here.
        self._keeper.caretaker.soon(lambda: seat.vacate(_PATIENCE_S))
        return fresh is not None

    def _leave(self, patience_s: float) -> str:
        if not self._changing.acquire(timeout=patience_s):
            # Whatever it loads there: should it ever come back, it leaves.
            self._keeper.caretaker.soon(lambda: self._leave(threading.TIMEOUT_MAX))
            return "1 load"
        seat, self.seat = self.seat, None
        self._changing.release()
        left = 0 if seat is None else seat.vacate(patience_s)
        self._keeper.residency.give_back(self)
        return f"{left} call{'s' * (left > 1)}" if left else ""

    def _open_stand_in(self, seat: Seat, other: VariantManifest | None) -> Seat | None:
        failed = seat.instance.variant
        if other is None:
            return None
        residency = self._keeper.residency
        try:
            residency.take(self, estimate_peak_bytes(other))
            fresh = self._open(other)
        except EdgeError as error:
            # Not asked for again at each fault; the failed one is, while it still answers at times.
            self._broken.add(other.id)
            residency.hold(self, estimate_peak_bytes(failed))
            self._tell(Happened.REFUSED, reason=error.code, detail=f"stand-in {other.id} for {failed.id}: {error}")
            self._try_again_later()
            return None
        residency.hold(self, estimate_peak_bytes(other))
        return fresh

    def _start_again(self, seat: Seat, fault: EngineFault) -> Seat | None:
        """The same variant in a fresh process, at once, where its own died; not where one did a moment ago."""
        now = time.monotonic()
        if not seat.instance.is_gone or fault.code == HUNG or now - self._started_again < _RESTART_AFTER_S:
            return None
        self._started_again = now
        try:
            # It takes the place of the one that died: no more memory than that had.
            return self._open(seat.instance.variant)
        except EdgeError:
            return None  # the fault is the answer, and it is tried again later

    def _open_again(self) -> Seat:
        try:
            return self._open_first(None)
        except InferenceError as error:
            # Room may be there for the next call; an engine that refuses is left alone for a while.
            if error.code != MEMORY:
                self._give_up(error)
            raise

    def _open_first(self, beside: Seating | None, only: VariantId | None = None) -> Seat:
        """The first variant that loads, those that failed before last; `_changing` is held."""
        refusals: list[tuple[VariantManifest, EdgeError]] = []
        for variant in sorted(self.origin.variants, key=lambda one: one.id in self._broken):
            if only not in {None, variant.id}:
                continue
            try:
                self._keeper.residency.take(self, estimate_peak_bytes(variant), beside=beside)
                seat = self._open(variant)
            except EdgeError as error:
                self._keeper.residency.give_back(self)
                if not leads_on(error):
                    raise
                refusals.append((variant, error))
                continue
            self._keeper.residency.hold(self, estimate_peak_bytes(variant))
            self._opened(seat, refusals)
            return seat
        raise all_refused(self._what, refusals)

    def _open(self, variant: VariantManifest) -> Seat:
        try:
            instance = self._open_variant(self.origin, variant.id)
        except Exception as error:
            if isinstance(error, EdgeError) and not is_out_of_memory(error):
                raise
            raise load_failure(variant, error) from error
        try:
            if self._keeper.asks_golden and variant.id not in self._checked:
                ask_golden(instance, self._what)
        except BaseException:
            instance.close()
            raise
        self._checked.add(variant.id)
        admission = Admission(instance.slots, self._keeper.queue_limit, self._accounting)
        return Seat(instance, admission, is_stand_in=variant.id != self.origin.variants[0].id)

    def _opened(self, seat: Seat, refusals: list[tuple[VariantManifest, EdgeError]]) -> None:
        self.last_used = time.monotonic()
        failed = [(one, error) for one, error in refusals if is_accelerated(one) and error.code != MEMORY]
        if failed:
            self._broken.update(one.id for one, _ in failed)
            self._degrade(seat, *failed[0])
        elif not self._broken:
            self.state = ServedState.READY
            tuned = self.origin.tuned.get(seat.instance.variant.id)
            self._tell(Happened.LOADED, seat, detail=str(tuned or ""))

    def _degrade(self, seat: Seat, failed: VariantManifest, error: EdgeError) -> None:
        self.state = ServedState.DEGRADED
        self._tell(Happened.DEGRADED, seat, reason=error.code, detail=f"variant {failed.id}: {error.because}")
        self._try_again_later()

    def _give_up(self, error: InferenceError) -> None:
        """Answer every call with the reason until what failed works again; `_changing` is held."""
        self._verdict = error
        self.state = ServedState.FAILED
        self._keeper.residency.give_back(self)
        self._tell(Happened.FAILED, reason=error.code, detail=error.because)
        self._try_again_later()

    def _try_again_later(self) -> None:
        if self._tries_later:
            return
        self._tries_later = True
        self._failures += 1
        delay_s = self._keeper.backoff.delay_s(self._failures, random.random())
        self._keeper.caretaker.after(delay_s, self._try_again)

    def _try_again(self) -> None:
        """Open the variant that is meant, beside its stand-in, and go back to it when it answers rightly."""
        former, meant = self.seat, self.origin.variants[0]
        fresh: Seat | None = None
        is_working = True
        # Out of memory without a verdict: whoever calls next tries it, because it no longer counts as broken.
        if former is not None and former.instance.open_sequences():
            is_working = False  # they would lose their place; it is tried again when they have ended
        elif former is not None or self._verdict is not None:
            kept = 0 if former is None else estimate_peak_bytes(former.instance.variant)
            try:
                self._keeper.residency.take(self, kept + estimate_peak_bytes(meant))
                fresh = self._open(meant)
            except Exception:  # noqa: BLE001 - whatever it is, it does not work yet
                is_working = False
        with self._changing:
            self._tries_later = False
            is_wanted = is_working and not self._is_retired and self.seat is former
            if is_wanted:
                self.seat = fresh
                self._broken.clear()
                self._verdict, self._failures = None, 0
                self.state = ServedState.READY
            elif not self._is_retired:
                self._try_again_later()
            self._account_for_seat()
            if is_wanted and fresh is not None:
                # Before anybody can tell of its next fault.
                self._tell(Happened.RECOVERED, fresh)
        leaving = former if is_wanted else fresh
        if leaving is not None:
            leaving.vacate(_PATIENCE_S)

    def _account_for_seat(self) -> None:
        if self.seat is None or self._is_retired:
            self._keeper.residency.give_back(self)
        else:
            self._keeper.residency.hold(self, estimate_peak_bytes(self.seat.instance.variant))

    @property
    def _what(self) -> str:
        return f"{self.name} {self.version}"

    def _tell(self, what: Happened, seat: Seat | None = None, *, reason: str | None = None, detail: str = "") -> None:
        variant = None if seat is None else seat.instance.variant.id
        self._keeper.tell(Event(what, self.name, self.version, variant, reason, detail))
