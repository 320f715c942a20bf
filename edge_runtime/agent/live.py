"""A slot's model, live in this process: the update machine swaps it, and whoever has a question asks it.

It is served like any other model, so that calls move over to what takes over, and another build of the release answers
when an engine fails. What the update machine is told stays strict about the build that it activated (ADR 0022).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from edge_runtime.agent.workload import EngineLimits
from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.ids import SlotId, VariantId
from edge_runtime.installed import read_build
from edge_runtime.update.ports import Health
from edge_runtime.update.states import Activation
from edge_runtime.update.store import ContentStore

# What serves is imported with the first model: an agent without one stays small.
if TYPE_CHECKING:
    from edge_runtime.inference.backend import Registry
    from edge_runtime.serving.calls import Call
    from edge_runtime.serving.caretaker import Caretaker
    from edge_runtime.serving.deployment import Deployment
    from edge_runtime.serving.events import Event
    from edge_runtime.serving.opener import Opener

_QUEUE_LIMIT: Final = 64

log = structlog.get_logger("live")


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, and who gave it."""

    activation: Activation
    """Names the build that really answered."""
    answer: Mapping[str, Any] | None
    """By public output, as JSON; None when there is none, for the reason `error`."""
    error: str | None
    elapsed_ms: float


class _Live:
    """One activation and what answers for it; whatever happens to another one is not its business."""

    deployment: Deployment
    caretaker: Caretaker

    def __init__(self, activation: Activation) -> None:
        self.activation = activation
        self.why_degraded = ""

    def retire(self) -> None:
        """Move calls over, and free the memory when those in flight have ended."""
        self.caretaker.close()
        self.deployment.seating.retire()

    @property
    def variant(self) -> VariantId | None:
        """The one in memory."""
        seat = self.deployment.seating.seat
        return None if seat is None else seat.instance.variant.id

    @property
    def answering(self) -> Activation:
        """What was activated, or its stand-in."""
        return self.by(self.variant)

    def by(self, variant: VariantId | None) -> Activation:
        """The activation as it is when that variant answers."""
        if variant in {None, self.activation.variant}:
            return self.activation
        entries = self.deployment.seating.origin.release.index.variants
        entry = next(entry for entry in entries if entry.id == variant)
        return replace(self.activation, variant=entry.id, variant_digest=entry.digest)

    def question(self, content: bytes) -> Call:
        from edge_runtime.serving.calls import BYTES, Call

        answers = tuple(output.name for output in self.deployment.outputs if output.dtype == BYTES)
        return Call({self.deployment.inputs[0].name: [content]}, answers)


class LiveModel:
    """The slot's model in this process (`update.ports.LiveSlot`); any thread may ask it.

    Args:
        slot: which of the device's models.
        store: where releases are.
        limits: engines and threads.
        facts: this device.
        check_golden: whether a model must answer the golden set before it takes over.
        on_fault: is told the build and the reason when its engine failed and another build answers in its place.
        registry: backends by name; None: all.
    """

    def __init__(
        self,
        slot: SlotId,
        store: ContentStore,
        limits: EngineLimits,
        facts: DeviceFacts,
        *,
        check_golden: bool = True,
        on_fault: Callable[[Activation, str], None] | None = None,
        registry: Registry | None = None,
    ) -> None:
        self._slot = slot
        self._store = store
        self._limits = limits
        self._facts = facts
        self._check_golden = check_golden
        self._on_fault = on_fault
        self._registry = registry
        # Swapping is one assignment: who asks meanwhile is answered by the one or by the other.
        self._live: _Live | None = None

    def activate(self, activation: Activation) -> None:
        """Load beside, ask the golden set, swap between requests, drain; see `LiveSlot.activate`."""
        former = self._live
        if former is not None and former.activation.same_build(activation) and former.variant == activation.variant:
            former.activation = activation
            return
        self._live = self._opened(activation, former)
        if former is not None:
            former.retire()

    def deactivate(self) -> None:
        """Stop answering; safe to repeat."""
        former, self._live = self._live, None
        if former is not None:
            former.retire()

    def health(self) -> Health:
        """Counters since the loaded build was activated; see `LiveSlot.health`."""
        live = self._live
        if live is None:
            return Health(loaded=None)
        answering, faults = live.answering, live.deployment.faults
        is_meant = answering.variant == live.activation.variant
        return Health(
            loaded=answering.variant_digest,
            requests=live.deployment.answered + faults,
            errors=faults,
            detail="" if is_meant else live.why_degraded,
            stand_in=None if is_meant else answering,
        )

    @property
    def activation(self) -> Activation | None:
        """What was activated last."""
        live = self._live
        return None if live is None else live.activation

    def ask_encoded(self, content: bytes) -> Answered | None:
        """The answer to one encoded input (PNG, JPEG) of a model with a single input; None when nothing runs."""
        while (live := self._live) is not None:
            from edge_runtime.serving.seating import Retired

            started = time.perf_counter()
            answer: dict[str, Any] | None = None
            code: str | None = None
            try:
                reply = live.deployment.call(live.question(content))
            except Retired:
                continue  # another one has taken over
            except Exception as error:  # noqa: BLE001 - a model may raise anything, and the device goes on
                by = live.answering
                code = error.code if isinstance(error, EdgeError) else InferenceError.default_code
            else:
                by = live.by(reply.variant)
                answer = {
                    name: msgspec.json.decode(documents[0])
                    for name, documents in reply.tensors.items()
                    if isinstance(documents, list) and documents
                }
            return Answered(by, answer, code, (time.perf_counter() - started) * 1000)
        return None

    def _opened(self, activation: Activation, former: _Live | None) -> _Live:
        from edge_runtime.serving.backoff import Backoff
        from edge_runtime.serving.caretaker import Caretaker
        from edge_runtime.serving.deployment import Deployment
        from edge_runtime.serving.residency import Residency
        from edge_runtime.serving.seating import Keeper

        release = (read_build(self._store, activation), self._store)
        # The builds that may stand in for it later come after it.
        origin = self._opener.read(release, None, first=activation.variant)
        live, caretaker = _Live(activation), Caretaker()
        tell = partial(self._heard, live)  # not whatever is live by then
        keeper = Keeper(Residency(None), caretaker, tell, Backoff(), _QUEUE_LIMIT, self._check_golden)
        live.caretaker = caretaker
        live.deployment = Deployment(self._slot, origin, self._opener.opens("thread"), keeper)
        live.deployment.seating.load(None if former is None else former.deployment.seating, only=activation.variant)
        return live

    @cached_property
    def _opener(self) -> Opener:
        from edge_runtime.inference.backend import BACKENDS, allowed
        from edge_runtime.serving.opener import Opener
        from edge_runtime.serving.worker_limits import WorkerLimits

        usable = allowed(self._registry or BACKENDS, self._limits.backends)
        return Opener(usable, self._limits.threads, self._facts, "off", WorkerLimits())

    def _heard(self, live: _Live, event: Event) -> None:
        from edge_runtime.serving.events import Happened

        say = log.debug if event.reason is None else log.warning
        say(
            event.what.value,
            slot=self._slot,
            version=event.version,
            variant=event.variant,
            code=event.reason,
            reason=event.detail,
        )
        if event.what is Happened.DEGRADED and event.reason is not None:
            live.why_degraded = f"{event.detail}; {event.variant} answers in its place"
            if self._on_fault is not None:
                self._on_fault(live.activation, event.reason)
