"""Everything that changes which model answers in a slot, each act beside its undo."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from edge_runtime.contract import reasons
from edge_runtime.contract.device_state import Candidate, Reason, TrialReport
from edge_runtime.contract.errors import EdgeError, InferenceError, UpdateError
from edge_runtime.update.home import Home
from edge_runtime.update.installation import activation_of, reason_code
from edge_runtime.update.ledger import SlotLedger
from edge_runtime.update.planner import reason
from edge_runtime.update.ports import LiveSlot
from edge_runtime.update.states import (
    Activated,
    Activation,
    Attempt,
    Confirmed,
    RolledBack,
    Shadowing,
    Soaking,
    Trialled,
    UpdateEvent,
)

_E = UpdateEvent


class Switch:
    """The points of one slot.

    Args:
        ledger: the slot's page in the journal.
        home: store and pointers.
        live: the slot that answers.
    """

    def __init__(self, ledger: SlotLedger, home: Home, live: LiveSlot) -> None:
        self._ledger = ledger
        self._home = home
        self._live = live

    def empty(self, attempt: Attempt, now: float) -> None:
        """Let nothing answer. Raises: UpdateError."""
        self._home.pointers.clear(self._ledger.slot)
        self._live.deactivate()
        self._ledger.advance(_E.EMPTY, Confirmed(attempt), now)
        self._ledger.collect_garbage()

    def reaffirm(self, attempt: Attempt, running: Activation, now: float) -> None:
        """Confirm what runs under a new sequence number. Raises: EdgeError; what ran goes on."""
        assignment = attempt.assignment
        renewed = replace(running, seq=assignment.seq, target=assignment.target, parameters=assignment.parameters)
        self._live.activate(renewed)
        self._home.pointers.activate(self._ledger.slot, renewed)
        self._ledger.advance(_E.REAFFIRM, Confirmed(attempt), now)

    def activate(self, status: Trialled | Shadowing | Activated, candidate: Candidate, now: float) -> None:
        """Let a candidate take over; undone by `roll_back`. Raises: EdgeError when it cannot; then roll back."""
        if not isinstance(status, Activated):
            chosen = activation_of(status.attempt.assignment, candidate)
            attempt = replace(status.attempt, trials=_with_choice(status, candidate))
            status = Activated(attempt, chosen, previous=self._home.pointers.read(self._ledger.slot).current)
            self._ledger.advance(_E.ACTIVATE, status, now)
        self._home.pointers.activate(self._ledger.slot, status.chosen)
        self._live.activate(status.chosen)
        if self._live.health().loaded != status.chosen.variant_digest:
            raise InferenceError(f"activate variant {status.chosen.variant}", "something else answers in its slot")

    def roll_back(self, status: Activated | Soaking, cause: Reason, now: float) -> None:
        """Let what was there before answer again; the undo of `activate`. Raises: UpdateError; call again."""
        if status.undo is None:
            status = replace(status, undo=cause)
            self._ledger.note(status, now)
        self._home.pointers.restore(self._ledger.slot, status.previous)
        try:
            if status.previous is None:
                self._live.deactivate()
            else:
                self._live.activate(status.previous)
        except EdgeError as error:
            # Nothing is left to go back to; the report's `running` says so.
            self._live.deactivate()
            cause = Reason(code=cause.code, detail=f"{cause.detail}; then: {error}", retryable=cause.retryable)
        self._ledger.conclude(_E.ROLL_BACK, RolledBack(status.attempt, cause), now)

    def reopen(self, now: float) -> EdgeError | None:
        """After a start, let what the pointers name answer, or else what they named before.

        Returns:
            What was wrong with the current release; None when it answers, or nothing shall.

        Raises:
            UpdateError: journal or pointer could not be written.
        """
        slot = self._ledger.slot
        pointed = self._home.pointers.read(slot)
        if pointed.current is None and not pointed.damaged:
            return None
        error = self._try_open(pointed.current)
        if error is None:
            return None
        if pointed.previous is not None and self._try_open(pointed.previous) is None:
            self._home.pointers.restore(slot, pointed.previous)
        else:
            self._live.deactivate()
        cause = reason(reason_code(error), str(error))
        status = self._ledger.record.status
        if isinstance(status, Confirmed):
            self._ledger.conclude(_E.ROLL_BACK, RolledBack(status.attempt, cause), now)
        elif isinstance(status, Soaking):
            self.roll_back(status, cause, now)
        return error

    def _try_open(self, activation: Activation | None) -> EdgeError | None:
        slot = self._ledger.slot
        if activation is None:
            return UpdateError(f"open slot {slot}", "its pointer is damaged", code=reasons.DIGEST_MISMATCH)
        try:
            self._home.check(activation)
            self._live.activate(activation)
        except EdgeError as error:
            return error
        return None

    def answering(self) -> Activation | None:
        """What the slot's pointer names, if it is what is really loaded, or what stands in for it; else None."""
        current = self._home.pointers.read(self._ledger.slot).current
        health = self._live.health()
        if current is None or current.variant_digest == health.loaded:
            return current
        stand_in = health.stand_in
        return stand_in if stand_in is not None and stand_in.seq == current.seq else None


def _with_choice(status: Trialled | Shadowing, candidate: Candidate) -> tuple[TrialReport, ...]:
    reports = tuple(
        msgspec.structs.replace(trial, verdict="chosen") if trial.digest == candidate.digest else trial
        for trial in status.attempt.trials
    )
    untried = status.queue if isinstance(status, Trialled) else ()
    return (*reports, *(TrialReport(variant=one.id, digest=one.digest, verdict="skipped") for one in untried))
