"""The worker: asks what is desired, and steps every slot's update machine; the only thread that changes slots."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from edge_runtime.agent.clock import AgentClock
from edge_runtime.agent.director import Director
from edge_runtime.contract.device_state import Reported, SlotState
from edge_runtime.contract.errors import EdgeError, TransportError
from edge_runtime.contract.ids import SlotId
from edge_runtime.update.executor import SlotMachine, StepOutcome
from edge_runtime.update.journal import Journal
from edge_runtime.update.planner import Answer

_NAP_S: Final = 1.0
_AFTER_ERROR_S: Final = 2.0
_BACKOFF_MAX_S: Final = 300.0
_DOUBLINGS_MAX: Final = 9

log = structlog.get_logger("slots")


@dataclass(frozen=True, slots=True)
class SlotsPorts:
    """What the worker works with."""

    machines: Mapping[SlotId, SlotMachine]
    journal: Journal
    director: Director
    clock: AgentClock
    on_report: Callable[[Reported], None]
    """Called in the worker's thread whenever a slot's revision has grown."""


class SlotsWorker:
    """One thread over all slots.

    Args:
        ports: what it works with.
        poll_interval_s: how often to ask the server without a doorbell.
    """

    def __init__(self, ports: SlotsPorts, poll_interval_s: float) -> None:
        self._ports = ports
        self._poll_interval_s = poll_interval_s
        self._wake = threading.Event()
        self._doorbell = threading.Event()
        self._stopping = threading.Event()
        self._resumed = threading.Event()
        self._revisions: dict[SlotId, int] = {}
        self._failures = 0
        self._next_poll = 0.0
        self._thread = threading.Thread(target=self._run, name="slots", daemon=True)

    def start(self) -> None:
        """Bring back what answered before, then begin to work."""
        self._thread.start()

    @property
    def has_resumed(self) -> bool:
        """Whether what answered before answers again, as far as it can: only then is it known what runs."""
        return self._resumed.is_set()

    def ring(self) -> None:
        """Something may be desired: ask soon."""
        self._doorbell.set()
        self._wake.set()

    def stop(self, timeout_s: float) -> None:
        """End after the step in hand; the next start does not count this end as a crash."""
        self._stopping.set()
        self._wake.set()
        for machine in self._ports.machines.values():
            machine.interrupt()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            for machine in self._ports.machines.values():
                machine.close()

    def _run(self) -> None:
        for slot, machine in self._ports.machines.items():
            while not self._stopping.is_set() and self._guarded(slot, machine, machine.resume) is None:
                # Journal or pointer could not be written: nothing may happen to this slot before that works.
                pass
        self._resumed.set()
        while not self._stopping.is_set():
            now_monotonic = self._ports.clock.monotonic()
            if self._doorbell.is_set() or now_monotonic >= self._next_poll:
                self._try_ask()
            acted = [self._guarded(slot, machine, machine.step) for slot, machine in self._ports.machines.items()]
            if not any(outcome is not None and outcome.acted for outcome in acted):
                self._wake.wait(_NAP_S)
                self._wake.clear()

    def _try_ask(self) -> None:
        """Whatever goes wrong, the device asks again: a doorbell counts as answered only once all is carried out."""
        if self._failures and self._ports.clock.monotonic() < self._next_poll:
            return
        self._doorbell.clear()
        try:
            self._ask()
        except EdgeError as error:
            level = log.info if isinstance(error, TransportError) else log.warning
            level("assignments.unavailable", reason=str(error), retry_in_s=self._delay_next_poll())
        except Exception:
            # A bug here must not end the only thread that could ever take a better release.
            log.exception("assignments.failed", retry_in_s=self._delay_next_poll())
        else:
            self._failures = 0
            self._next_poll = self._ports.clock.monotonic() + self._poll_interval_s * random.uniform(0.9, 1.1)

    def _delay_next_poll(self) -> float:
        """Back off, doorbell or not; returns for how many seconds."""
        self._failures += 1
        longest_s = min(_BACKOFF_MAX_S, max(self._poll_interval_s, 2.0))
        pause_s = min(2.0 ** min(self._failures, _DOUBLINGS_MAX), longest_s) * random.uniform(0.5, 1)
        self._next_poll = self._ports.clock.monotonic() + pause_s
        self._doorbell.set()
        return round(pause_s, 1)

    def _ask(self) -> None:
        # One below: the assignment accepted last may be offered again, which is how a failed one is retried.
        above = {slot: seq - 1 for slot, seq in self._ports.journal.highest_seqs().items()}
        desired = self._ports.director.ask(above)
        for refusal in desired.refused:
            log.warning("assignment.refused", code=refusal.code, reason=str(refusal))
        for assignment in desired.assignments:
            machine = self._ports.machines.get(assignment.slot)
            if machine is None:
                log.warning("assignment.refused", slot=assignment.slot, reason="this device has no such slot")
                continue
            if self._ports.journal.read(assignment.slot).pending == assignment:
                # Waiting to be taken up already: each offer would be another flush.
                continue
            answer = machine.offer(assignment, self._ports.clock.now())
            level = log.info if answer in {Answer.ACCEPTED, Answer.RETRY} else log.debug
            level("assignment.answered", slot=assignment.slot, seq=assignment.seq, answer=answer.value)

    def _guarded(
        self, slot: SlotId, machine: SlotMachine, act: Callable[[float], StepOutcome]
    ) -> StepOutcome | None:
        """Do one thing for a slot and report what changed; None when it could not be done now."""
        try:
            outcome = act(self._ports.clock.now())
            reported = self._report(slot, machine)
        except EdgeError as error:
            log.error("slot.stuck", slot=slot, code=error.code, reason=str(error))
            self._stopping.wait(_AFTER_ERROR_S)
            return None
        except Exception:
            # A bug in one step must not end the device; the deadline ends the attempt.
            log.exception("slot.failed", slot=slot)
            self._stopping.wait(_AFTER_ERROR_S)
            return None
        if outcome.before is not outcome.after or outcome.error is not None:
            log.info(
                "slot.moved",
                slot=slot,
                before=outcome.before.value,
                after=outcome.after.value,
                reason=_why(outcome, reported),
            )
        return outcome

    def _report(self, slot: SlotId, machine: SlotMachine) -> Reported:
        reported = machine.reported()
        if self._revisions.get(slot) != reported.revision:
            self._revisions[slot] = reported.revision
            self._ports.on_report(reported)
        return reported


def _why(outcome: StepOutcome, reported: Reported) -> str | None:
    """What led a slot to where it is now, as far as there is something to say."""
    if outcome.error is not None:
        return str(outcome.error)
    if reported.reason is not None:
        return f"{reported.reason.code}: {reported.reason.detail}"
    if outcome.after is SlotState.TRIALLED and reported.trials:
        trial = reported.trials[-1]
        return f"{trial.variant}: {trial.verdict}" + (f", {trial.detail}" if trial.detail else "")
    return None
