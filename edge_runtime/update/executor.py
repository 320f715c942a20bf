"""The shell of the update machine: runs one planned step of one slot, safe to repeat after a crash at any point."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_runtime.contract import reasons
from edge_runtime.contract.device_state import Assignment, Reported, SlotState, SlotSummary, TrialReport
from edge_runtime.contract.errors import ContractError, EdgeError, TransportError, UpdateError
from edge_runtime.contract.ids import SlotId
from edge_runtime.update.home import Home
from edge_runtime.update.installation import Board, Installation, Ports, reason_code, refusal_report
from edge_runtime.update.journal import SlotRecord
from edge_runtime.update.ledger import SlotLedger
from edge_runtime.update.planner import (
    CRASHES_MAX,
    Activate,
    Admit,
    Answer,
    Build,
    Confirm,
    Empty,
    Facts,
    Fail,
    Fetch,
    Forget,
    Offer,
    Reaffirm,
    Refuse,
    Rest,
    RollBack,
    Soak,
    Step,
    Trial,
    Wait,
    answer_offer,
    plan,
    reason,
)
from edge_runtime.update.ports import Interrupted
from edge_runtime.update.report import make_report, summarise
from edge_runtime.update.states import (
    Activated,
    Activation,
    Admitted,
    Attempt,
    Built,
    Confirmed,
    Fetching,
    Idle,
    Offered,
    Passed,
    Search,
    Shadowing,
    SlotStatus,
    Soaking,
    Trialled,
    UpdateEvent,
    Verified,
)
from edge_runtime.update.switch import Switch
from edge_runtime.update.trial import Refused, Verdict

_E = UpdateEvent


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What one call of `step` did."""

    step: Step
    before: SlotState
    after: SlotState
    error: EdgeError | None = None
    """What went wrong, when something did: it made the slot wait, refuse, fail or go back."""
    rest_until: float | None = None
    """When to call again; None: at once when `acted`, else when something new is offered."""

    @property
    def acted(self) -> bool:
        """Whether there may be more to do at once."""
        return self.rest_until is None and not isinstance(self.step, Rest)


class SlotMachine:
    """One slot of one device.

    `resume` is called once before anything else; `step` and `resume` belong to one worker thread, everything else
    may be called from any thread. A step that raises something else than an EdgeError leaves the journal as it was:
    the caller logs it and calls again after a pause; the deadline ends it at last.

    Args:
        slot: the slot's name.
        home: journal, store and pointers.
        ports: how it acts.
        board: this device.
        jitter: a number in [0, 1) for back-offs.
    """

    def __init__(
        self, slot: SlotId, home: Home, ports: Ports, board: Board, *, jitter: Callable[[], float] = random.random
    ) -> None:
        self.slot = slot
        self._home = home
        self._journal = home.journal
        self._ports = ports
        self._board = board
        self._ledger = SlotLedger(slot, home, jitter)
        self._switch = Switch(self._ledger, home, ports.live)
        self._interrupt = threading.Event()
        self._stopping = threading.Event()
        self._showing = threading.Lock()
        self._last_shown: tuple[int, Activation | None] = (-1, None)
        """Revision of the last report, and what it said was answering."""

    def offer(self, assignment: Assignment, now: float) -> Answer:
        """Take note of an assignment that `trust` has verified; the steps that follow carry it out.

        Raises:
            ContractError: it is for another slot.
            UpdateError: it could not be journalled; it was not accepted.
        """
        if assignment.slot != self.slot:
            raise ContractError(f"offer assignment {assignment.seq} to slot {self.slot}", "it names another slot")
        record = self._journal.read(self.slot)
        quarantined = self._journal.quarantined(self.slot, assignment.release, assignment.seq)
        answer = answer_offer(assignment, record.highest_seq, record.status, quarantined)
        if answer in {Answer.ACCEPTED, Answer.RETRY}:
            self._journal.accept(self.slot, assignment, now)
            self._interrupt.set()
        return answer

    def reported(self) -> Reported:
        """Where the slot stands, for the server. Raises: UpdateError: the journal cannot be read or written."""
        record, answering = self._shown()
        return make_report(self._board.device, record, answering)

    def summary(self) -> SlotSummary:
        """Where the slot stands, for a birth message. Raises: as `reported`."""
        record, answering = self._shown()
        return summarise(record, answering)

    def _shown(self) -> tuple[SlotRecord, Activation | None]:
        """The record, and what really answers, which comes and goes with an engine and without a step."""
        with self._showing:
            record, answering = self._journal.read(self.slot), self._switch.answering()
            revision, answered = self._last_shown
            if record.revision == revision and answering != answered:
                record = self._journal.renew(self.slot)
            self._last_shown = record.revision, answering
            return record, answering

    def interrupt(self) -> None:
        """Make a download in progress return soon, because the agent ends."""
        self._stopping.set()

    def close(self) -> None:
        """Say goodbye: the next start does not count this end as a crash. Raises: UpdateError."""
        self._journal.set_clean(self.slot, clean=True)

    def resume(self, now: float) -> StepOutcome:
        """After a start: bring back what answered, and count a crash where the model may be to blame.

        Raises:
            UpdateError: the journal or a pointer could not be written; call again.
        """
        record = self._ledger.reload()
        status = record.status
        if isinstance(status, (Activated, Soaking)):
            crashes = status.crashes + (0 if record.clean else 1)
            # Written before the model is loaded again: a model that kills the agent must not be loaded for ever.
            self._ledger.note(replace(status, crashes=crashes), now)
        self._journal.set_clean(self.slot, clean=False)
        status = self._ledger.record.status
        if isinstance(status, Activated) or _must_go_back(status):
            return self.step(now)
        error = self._switch.reopen(now)
        if isinstance(status, Soaking) and error is None:
            # The counters of the former process are gone: the watch begins anew, within the same deadline.
            self._ledger.note(replace(status, since=now), now)
        return StepOutcome(Rest(), record.state, self._ledger.record.state, error)

    def step(self, now: float) -> StepOutcome:
        """Run the next planned step.

        Args:
            now: trusted time, seconds since 1970.

        Raises:
            UpdateError: the journal or a pointer could not be written, or another agent works on the same folder.
        """
        self._interrupt.clear()
        record = self._ledger.reload()
        facts = Facts(self._home.pointers.read(self.slot).current, self._ports.live.health(), record.waiting)
        step = plan(record.status, record.pending, now, facts)
        if isinstance(step, (Rest, Wait)):
            return StepOutcome(step, record.state, record.state, rest_until=step.until)
        try:
            self._perform(step, now)
        except Interrupted:
            return StepOutcome(step, record.state, self._ledger.record.state)
        except TransportError as error:
            return self._wait(step, record, error, now)
        except EdgeError as error:
            self._end_badly(error, now)
            return StepOutcome(step, record.state, self._ledger.record.state, error)
        return StepOutcome(step, record.state, self._ledger.record.state)

    def _perform(self, step: Step, now: float) -> None:
        status = self._ledger.record.status
        match step, status:
            case Forget(), _:
                self._ledger.advance(_E.FORGET, Idle(), now)
            case Offer(assignment), _:
                self._ledger.advance(_E.OFFER, Offered(Attempt(assignment, now)), now, taken_up=True)
            case Admit(), Offered(attempt):
                self._admit(attempt, now)
            case Fetch(), Admitted() | Trialled() | Fetching():
                self._fetch(step, status.attempt, now)
            case Build(), Verified(attempt, search):
                self._ledger.advance(_E.BUILD, Built(attempt, search), now)
            case Trial(), Built():
                self._trial(status, now)
            case Refuse(code, detail), Built():
                refused = Refused(code, detail)
                self._judged(status, refused, refusal_report(status.search.candidate, refused), now)
            case Fail(cause), _ if not isinstance(status, Idle):
                self._ledger.fail(status.attempt, cause, now)
            case _:
                self._perform_switch(step, status, now)

    def _perform_switch(self, step: Step, status: SlotStatus, now: float) -> None:
        match step, status:
            case Empty(), Offered(attempt):
                self._switch.empty(attempt, now)
            case Reaffirm(running), Offered(attempt):
                self._switch.reaffirm(attempt, running, now)
            case Activate(candidate), Trialled() | Shadowing() | Activated():
                self._switch.activate(status, candidate, now)
            case Soak(), Activated(attempt, chosen, previous, crashes):
                self._ledger.advance(_E.SOAK, Soaking(attempt, chosen, previous, now, crashes), now)
            case Confirm(), Soaking(attempt):
                self._ledger.advance(_E.CONFIRM, Confirmed(attempt), now)
                self._ledger.collect_garbage()
            case RollBack(cause), Activated() | Soaking():
                self._switch.roll_back(status, cause, now)
            case _:
                state = self._ledger.record.state.value
                raise UpdateError(f"{type(step).__name__.lower()} slot {self.slot}", f"it is {state}")

    def _admit(self, attempt: Attempt, now: float) -> None:
        admission = self._installation(attempt).admit(self._interrupted)
        attempt = replace(attempt, trials=admission.refused)
        if admission.queue:
            self._ledger.advance(_E.ADMIT, Admitted(attempt, admission.queue), now)
            return
        codes = {trial.verdict.removeprefix("refused:") for trial in admission.refused}
        detail = "; ".join(f"{trial.variant}: {trial.detail}" for trial in admission.refused)
        self._ledger.fail(attempt, reason(codes.pop() if len(codes) == 1 else reasons.NO_VARIANT, detail), now)

    def _fetch(self, step: Fetch, attempt: Attempt, now: float) -> None:
        fetching = Fetching(attempt, Search(step.candidate, step.queue, step.passed, step.tried))
        if not isinstance(self._ledger.record.status, Fetching):
            self._ledger.advance(_E.FETCH, fetching, now)
        if not self._installation(attempt).fetch_next(step.candidate, self._interrupted):
            self._ledger.advance(_E.FETCHED, Verified(attempt, fetching.search), now)
        elif self._ledger.record.waiting is not None:
            # Progress ends the back-off.
            self._ledger.note(fetching, now)

    def _trial(self, status: Built, now: float) -> None:
        # Counted before it begins: a candidate that takes the agent down is not asked for ever.
        self._ledger.note(replace(status, starts=status.starts + 1), now)
        installation = self._installation(status.attempt)
        try:
            verdict, report = installation.trial(status.search.candidate, self._switch.answering(), now)
        except Interrupted:
            # It was us who ended it: that says nothing about the candidate.
            self._ledger.note(status, now)
            raise
        self._judged(status, verdict, report, now)

    def _judged(self, status: Built, verdict: Verdict, report: TrialReport, now: float) -> None:
        search = status.search
        passed = search.passed
        if not isinstance(verdict, Refused):
            passed = (*passed, Passed(search.candidate, verdict.p50_ms, verdict.ratio))
        attempt = replace(status.attempt, trials=(*status.attempt.trials, report))
        self._ledger.advance(_E.TRIAL, Trialled(attempt, search.queue, passed, search.tried + 1), now)

    def _end_badly(self, error: EdgeError, now: float) -> None:
        status = self._ledger.record.status
        cause = reason(reason_code(error), str(error))
        if isinstance(status, (Activated, Soaking)) and status.undo is None:
            self._switch.roll_back(status, cause, now)
        elif isinstance(status, (Offered, Admitted, Fetching, Verified, Built, Trialled, Shadowing)):
            self._ledger.fail(status.attempt, cause, now)
        else:
            raise error

    def _wait(self, step: Step, record: SlotRecord, error: TransportError, now: float) -> StepOutcome:
        attempts = 1 if self._ledger.record.waiting is None else self._ledger.record.waiting.attempts + 1
        until = self._ledger.pause(error.code, attempts, now)
        return StepOutcome(step, record.state, self._ledger.record.state, error, until)

    def _installation(self, attempt: Attempt) -> Installation:
        return Installation(attempt.assignment, self._home.store, self._ports, self._board)

    def _interrupted(self) -> bool:
        return self._interrupt.is_set() or self._stopping.is_set()


def _must_go_back(status: SlotStatus) -> bool:
    return isinstance(status, Soaking) and (status.undo is not None or status.crashes >= CRASHES_MAX)
