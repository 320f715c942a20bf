"""A model as doors see it, and a submitted call on its way through swaps."""

from __future__ import annotations

from dataclasses import replace

from edge_runtime.contract.errors import EdgeError
from edge_runtime.inference.requests.refusals import Cancelled
from edge_runtime.inference.tuned_settings import TunedSettings
from edge_runtime.serving.calls import Call, Reply, TensorMeta, Ticket, UnknownVersion
from edge_runtime.serving.deployment import Deployment, Done
from edge_runtime.serving.seating import Retired, ServedState
from edge_runtime.serving.shadow import Shadow
from edge_runtime.serving.statistics import ServedStatistics


class Place:
    """Where a name or one version of it stands; swapping is one assignment to `live`."""

    __slots__ = ("draining", "forgotten", "live", "shadow")

    def __init__(self, live: Deployment) -> None:
        self.live = live
        self.shadow: Shadow | None = None
        """Sees the live answers."""
        self.draining: tuple[Deployment, ...] = ()
        """Versions that were replaced and have sequences to bring to their end."""
        self.forgotten: frozenset[int | str] = frozenset()
        """Sequences of the version before, which begin anew with their next step."""

    def home_of(self, call: Call) -> tuple[Deployment, Call]:
        """Who answers a call, and what it is asked: a sequence stays with the version that it began on."""
        live, step = self.live, call.sequence
        if step is None or not live.is_sequential or step.start or step.id in live.seating.open_sequences():
            return live, call
        for one in self.draining:
            if step.id in one.seating.open_sequences():
                return one, call
        if step.id in self.forgotten:
            self.forgotten -= {step.id}
            return live, replace(call, sequence=replace(step, start=True))
        return live, call


class Served:
    """A served model: found by name alone it follows every swap, found with a version it stays with that."""

    __slots__ = ("_place",)

    def __init__(self, place: Place) -> None:
        self._place = place

    def __repr__(self) -> str:
        """Which model, and how it is."""
        return f"<Served {self.name}:{self.version}, {self.state.value}>"

    @property
    def name(self) -> str:
        """Name by which it is served."""
        return self._place.live.name

    @property
    def version(self) -> str:
        """Version that answers now."""
        return self._place.live.version

    @property
    def state(self) -> ServedState:
        """What clients may expect now."""
        return self._place.live.seating.state

    @property
    def variant(self) -> str | None:
        """Variant that answers now; None while it is out of memory."""
        seat = self._place.live.seating.seat
        return None if seat is None else seat.instance.variant.id

    @property
    def tuned(self) -> TunedSettings | None:
        """What the variant that answers now takes of what was tuned on this machine."""
        seating = self._place.live.seating
        seat = seating.seat
        return None if seat is None else seating.origin.tuned.get(seat.instance.variant.id)

    @property
    def waiting(self) -> int:
        """Calls that wait for it now."""
        seat = self._place.live.seating.seat
        return 0 if seat is None else seat.admission.waiting

    @property
    def is_busy(self) -> bool:
        """Whether one more call would have to wait, for others or for the model to come into memory."""
        seat = self._place.live.seating.seat
        return seat is None or seat.admission.running >= seat.admission.slots

    @property
    def inputs(self) -> tuple[TensorMeta, ...]:
        """Public inputs."""
        return self._place.live.inputs

    @property
    def outputs(self) -> tuple[TensorMeta, ...]:
        """Canonical output tensors, then public outputs."""
        return self._place.live.outputs

    def labels(self, output: str) -> tuple[str, ...]:
        """What the classes of an output tensor are called; empty where the release names none.

        Raises:
            ContractError: its label list is missing or broken.
            DigestMismatch: it is not the promised one.
        """
        return self._place.live.labels.get(output, ())

    def statistics(self) -> ServedStatistics:
        """What the version that answers now has done so far."""
        return self._place.live.statistics()

    def call(self, call: Call) -> Reply:
        """The answer, worked out in this thread.

        Raises:
            BadInput: the call is to blame.
            UnknownVersion: this version was unloaded.
            InferenceError: there is no answer; `code` says why (`deadline`, `overloaded`, `engine_failed`, …).
        """
        place = self._place
        while True:
            home, asked = (place.live, call) if call.sequence is None else place.home_of(call)
            try:
                reply = home.call(asked)
            except Retired:
                if place.live is home:
                    raise _unloaded(home) from None
                continue
            if (shadow := place.shadow) is not None:
                shadow.offer(call, reply)
            return reply

    def submit(self, call: Call, done: Done) -> Ticket:
        """Have the answer worked out on a worker thread; never blocks.

        Args:
            call: the question.
            done: is told the reply or the error, once: on a worker thread, or here when it is refused at once.
        """
        shadow = self._place.shadow
        submitted = _Submitted(self._place, call, done if shadow is None else _shadowed(shadow, call, done))
        submitted.go()
        return submitted


class _Submitted:
    def __init__(self, place: Place, call: Call, done: Done) -> None:
        self._place = place
        self._call = call
        self._done = done
        self._ticket: Ticket | None = None
        self._is_cancelled = False

    def go(self) -> None:
        """Submit it to whatever answers now; again, when that went away before the call began."""
        while True:
            if self._is_cancelled:
                self._done(Cancelled())
                return
            home, asked = self._place.home_of(self._call)
            self._ticket = None
            try:
                # Without one it went on elsewhere by now, perhaps, and has the ticket of that place.
                if (ticket := home.submit(asked, self._done, self.go)) is not None:
                    self._ticket = ticket
            except EdgeError as error:
                self._done(error)
            except Retired:
                if self._place.live is not home:
                    continue
                self._done(_unloaded(home))
            return

    def cancel(self) -> bool:
        self._is_cancelled = True
        ticket = self._ticket
        # Without a ticket it waits for the model to come into memory, and meets the mark before it runs.
        return True if ticket is None else ticket.cancel()


def _shadowed(shadow: Shadow, call: Call, done: Done) -> Done:
    """Whoever waits for the answer hears of it first."""

    def tell(outcome: Reply | EdgeError) -> None:
        done(outcome)
        if isinstance(outcome, Reply):
            shadow.offer(call, outcome)

    return tell


def _unloaded(live: Deployment) -> UnknownVersion:
    return UnknownVersion(f"ask model {live.name} {live.version}", "it was unloaded", "ask another version")
