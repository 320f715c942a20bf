"""An open release that answers: from any thread, within deadlines, as many at once as its engine takes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, final

from edge_runtime.contract.device_profile import DeviceFacts
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.layout import OpenRelease, OpenVariant
from edge_runtime.contract.variant_choice import Rejected
from edge_runtime.inference.backend import (
    BACKENDS,
    Array,
    BackendOptions,
    Registry,
    Tensors,
    concurrency_for,
    threads_for,
)
from edge_runtime.inference.opening import Opened, Release, Wishes, open_release
from edge_runtime.inference.postprocessing.results import Answer
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.preprocessing.preprocess import Batch, Inputs
from edge_runtime.inference.requests.accounting import Accounting
from edge_runtime.inference.requests.admission import Admission
from edge_runtime.inference.requests.asker import Asker

if TYPE_CHECKING:
    from concurrent.futures import Future

    from edge_runtime.contract.evidence import CheckResult
    from edge_runtime.inference.checks.golden import GoldenSet
    from edge_runtime.inference.requests.drift import DriftSketches
    from edge_runtime.inference.requests.finite import NanPolicy
    from edge_runtime.inference.requests.lease import Lease, LeasePool
    from edge_runtime.inference.requests.statistics import Statistics
    from edge_runtime.inference.requests.turns import Ticket
    from edge_runtime.inference.streams import ModelSession
    from edge_runtime.inference.tuned import TunedFrom
    from edge_runtime.inference.tuned_choice import TunedChoice

QUEUE_LIMIT: Final = 128
"""Requests that may wait for a model unless its owner says otherwise."""

_T = TypeVar("_T")


@final
class Model:
    """A release with one variant loaded; use it as a context manager. Any thread may ask."""

    __slots__ = ("_accounting", "_admission", "_asker", "_leases", "_opened", "sessions")

    def __init__(self, opened: Opened, *, concurrency: int, queue_limit: int, nan: NanPolicy) -> None:
        self._opened = opened
        self._accounting = Accounting()
        self._admission = Admission(concurrency, queue_limit, self._accounting)
        self._asker = Asker(opened.predictor, self._accounting, nan, opened.batch)
        self._leases: LeasePool | None = None
        self.sessions = self._asker.sessions(self._turn)
        """Streams that are open; None for a model that keeps nothing between calls."""

    def __repr__(self) -> str:
        """Which release and which build; what it holds would fill pages."""
        manifest = self.release.manifest
        return f"<Model {manifest.name}:{manifest.version}, variant {self.variant.manifest.id}>"

    @classmethod
    def open(  # noqa: PLR0913 (each is a wish of its own, given by name)
        cls,
        release: Release,
        *,
        variant: str | None = None,
        threads: int | None = None,
        backends: Collection[str] | None = None,
        facts: DeviceFacts | None = None,
        registry: Registry = BACKENDS,
        concurrency: int | None = None,
        queue_limit: int = QUEUE_LIMIT,
        nan: NanPolicy = "off",
        provider: str | None = None,
        tuned: TunedFrom = None,
        batch: int | None = None,
        built: Path | None = None,
    ) -> Model:
        """Open a release and load the best variant for this machine; falls through to the next when one fails to load.

        Args:
            release: folder of an OCI layout, or a release already read and where its blobs are.
            variant: load exactly this one.
            threads: threads inside one call; None: as the variant says.
            backends: names of engines that may be used; None: all.
            facts: this device's facts; None: found out here, by constructing the engines that the release names.
            registry: backends by name.
            concurrency: calls that may run at once; None: see `backend.concurrency_for`.
            queue_limit: requests that may wait besides; one more is refused.
            nan: what to do about NaN and infinities in inputs.
            provider: only this provider of the engine; None: as the variant lists them.
            tuned: folder of what `edge-runtime tune` found for whatever of these is None; or `off`; None: the user's.
            batch: samples of which the engine is asked at once where a call brings several.
            built: folder of what engines build; None: the user's own.

        Raises:
            InferenceError: code `no_variant` or `load_failed`; no variant could be loaded, with all reasons.
            DigestMismatch: a file is not the promised one.
            ContractError: the release breaks the contract.
        """
        options = BackendOptions(threads=threads, concurrency=concurrency)
        wishes = Wishes(variant, backends, facts, options, provider, built=built, tuned=tuned, batch=batch)
        opened = open_release(release, wishes, registry)
        slots = concurrency_for(opened.variant.manifest, opened.options)
        return cls(opened, concurrency=slots, queue_limit=queue_limit, nan=nan)

    @property
    def release(self) -> OpenRelease:
        """The release."""
        return self._opened.release

    @property
    def variant(self) -> OpenVariant:
        """The loaded variant."""
        return self._opened.variant

    @property
    def predictor(self) -> Predictor:
        """The loaded variant without waiting line and accounting: who uses it must not ask more than `concurrency`."""
        return self._opened.predictor

    @property
    def skipped(self) -> tuple[Rejected, ...]:
        """Variants that were better placed or misfits, and why they were not taken."""
        return self._opened.skipped

    @property
    def threads(self) -> int | None:
        """Threads inside one call, as wished, tuned or named by the variant; None: as many as the engine takes."""
        return threads_for(self.variant.manifest, self._opened.options)

    @property
    def tuned(self) -> TunedChoice | None:
        """What was found best for the loaded variant on this machine; what `open` was given went before it."""
        return self._opened.tuned

    @property
    def notes(self) -> tuple[str, ...]:
        """What is not as the variant wished though it works, such as a delegate that the engine did without."""
        return tuple(getattr(self.predictor.session, "notes", ()))

    @property
    def release_digest(self) -> Digest:
        """Digest of the release."""
        return self.release.digest

    @property
    def variant_id(self) -> VariantId:
        """Name of the loaded variant."""
        return self.variant.manifest.id

    @property
    def variant_digest(self) -> Digest:
        """Digest of the loaded variant."""
        return self.variant.digest

    @property
    def asker(self) -> Asker:
        """The loaded variant as it is asked, without the waiting line: for whoever keeps a line of his own."""
        return self._asker

    @property
    def admission(self) -> Admission:
        """The waiting line: who runs, who waits, and when nobody does."""
        return self._admission

    def infer(self, inputs: Inputs, *, deadline: float | None = None, priority: int = 0) -> Answer:
        """The answer to one sample, by public output name.

        Args:
            inputs: public inputs by name: encoded bytes, or arrays as the signature says.
            deadline: `time.monotonic()` seconds; after it the model is not asked.
            priority: a higher number is served first.

        Raises:
            Refused: the deadline passed, too many wait, or the model was closed.
            InferenceError: inputs that the model does not take, or the engine failed.
        """
        self._admission.enter(deadline, priority)
        try:
            return self._asker.infer(inputs, deadline)
        finally:
            self._admission.give_back(None)
            if self._admission.is_awaited:
                self._admission.settle()

    def infer_batch(self, inputs: Batch, *, deadline: float | None = None, priority: int = 0) -> list[Answer]:
        """The answers to a batch, in order. Args and Raises: as `infer`; arrays are stacked, or samples are listed."""
        return self.ask(lambda asker: asker.infer_batch(inputs, deadline), deadline=deadline, priority=priority)

    def infer_tensors(
        self,
        tensors: Tensors,
        *,
        outputs: Collection[str] | None = None,
        deadline: float | None = None,
        priority: int = 0,
    ) -> dict[str, Array]:
        """Canonical output tensors, owned by the caller.

        Args:
            tensors: all public inputs as arrays, or all canonical tensors (preprocessing already done), by name.
            outputs: which ones are wanted; None: all.
            deadline: as `infer`.
            priority: as `infer`.

        Raises:
            Refused: as `infer`.
            InferenceError: as `infer`.
        """
        self._admission.enter(deadline, priority)
        try:
            return self._asker.infer_tensors(tensors, outputs=outputs, deadline=deadline)
        finally:
            self._admission.give_back(None)
            if self._admission.is_awaited:
                self._admission.settle()

    def run_canonical(self, feeds: Tensors, *, deadline: float | None = None, priority: int = 0) -> dict[str, Array]:
        """Canonical output tensors for what `predictor.preprocess` returns. Raises: as `infer`."""
        return self.ask(lambda asker: asker.run_canonical(feeds), deadline=deadline, priority=priority)

    def ask(self, question: Callable[[Asker], _T], *, deadline: float | None = None, priority: int = 0) -> _T:
        """What a function of the loaded variant returns, run in this thread when its turn comes.

        For whoever does more under one slot than a single call, such as decoding, asking and interpreting.

        Raises:
            Refused: as `infer`.
        """
        self._admission.enter(deadline, priority)
        try:
            return question(self._asker)
        finally:
            self._admission.give_back(None)
            if self._admission.is_awaited:
                self._admission.settle()

    def submit(
        self,
        question: Callable[[Asker], _T],
        done: Callable[[_T | EdgeError], None],
        *,
        deadline: float | None = None,
        priority: int = 0,
    ) -> Ticket:
        """As `ask`, on a worker thread; for event loops, which must not wait.

        Args:
            question: run when its turn comes.
            done: told once what it returned or raised, or why it never ran; on a worker thread, or in the thread that
                cancels or closes. Must return soon.
            deadline: as `infer`.
            priority: as `infer`.

        Raises:
            Refused: at once, without a call of `done`.
        """
        from edge_runtime.inference.requests.refusals import outcome_of

        def work() -> None:
            done(outcome_of(lambda: question(self._asker)))

        return self._admission.submit(work, refuse=done, deadline=deadline, priority=priority)

    def infer_async(self, inputs: Inputs, *, deadline: float | None = None, priority: int = 0) -> Future[Answer]:
        """As `infer`, on a worker thread; cancelling the future withdraws a request that has not begun.

        In a coroutine: `await asyncio.wrap_future(model.infer_async(inputs))`.

        Raises:
            Refused: at once, where the request would not even wait.
        """
        from edge_runtime.inference.requests.later import Later

        later = Later(inputs, deadline)
        return later.goes_by(self.submit(later.ask, later.tell, deadline=deadline, priority=priority))

    def start_session(self) -> ModelSession:
        """A stream that this model hears from its beginning; sessions on different threads do not know of each other.

        Each of its calls takes a slot of the model's own while it runs, as every other request.

        Raises:
            InferenceError: codes `sessions_full`, `stateless`.
        """
        if self.sessions is None:
            because = "its calls do not depend on each other"
            raise InferenceError("start a session", because, "ask it with infer", code="stateless")
        return self.sessions.start()

    @contextmanager
    def _turn(self, given: Mapping[str, object], deadline: float | None, priority: int) -> Iterator[None]:
        self._admission.enter(deadline, priority)
        try:
            with self._asker.counted(given):
                yield
        finally:
            self._admission.give_back(None)
            if self._admission.is_awaited:
                self._admission.settle()

    @contextmanager
    def lease(self, **axes: int) -> Iterator[Lease]:
        """Buffers to fill in place, and to run on as often as wanted, for as long as the context lasts.

        Args:
            axes: sizes of dynamic axes by name; the smallest allowed where one is not named.

        Raises:
            Refused: as many leases are out as requests may run and wait.
            InferenceError: no such axis, a size that the model does not allow, or the model remembers.
        """
        leases = self._leases or self._pooled()
        key, lease = leases.take(axes)
        try:
            yield lease
        finally:
            leases.give_back(key, lease)

    def _pooled(self) -> LeasePool:
        from edge_runtime.inference.requests.lease import LeasePool  # who never leases does without

        with self._admission.lock:  # a model has one
            pool = self._leases or LeasePool(self.predictor, self._admission, self._accounting, self._asker.check)
            self._leases = pool
        return pool

    def warm_up(self, rounds: int = 2) -> float:
        """Ask about zeros, so that the first real request pays for nothing once; seconds that the last round took.

        Raises:
            Refused: the model was closed.
            InferenceError: the engine failed.
        """
        from edge_runtime.inference.requests.lease import zero_run

        self.predictor.preprocess.warm_up()
        run = zero_run(self.predictor)
        took_ns = 0
        for _ in range(rounds):
            took_ns = self.ask(lambda _: run())
        return took_ns / 1e9

    def statistics(self) -> Statistics:
        """Counters and stage times since the model was opened."""
        from edge_runtime.inference.requests.statistics import statistics_of

        return statistics_of(self._accounting)

    def drift(self) -> DriftSketches:
        """How sure the model was and what its inputs looked like, sampled, since it was opened."""
        return self._asker.drift.sketches()

    def golden_set(self) -> GoldenSet | None:
        """The release's golden questions; None when it has none. Raises: ContractError, DigestMismatch."""
        from edge_runtime.inference.checks.opened import golden_of

        return golden_of(self._opened)

    def golden_check(self) -> list[CheckResult]:
        """Ask the release's golden set; empty when the release has none.

        Raises:
            InferenceError: the model cannot answer.
            ContractError: the golden set breaks the contract.
            DigestMismatch: it is not the promised one.
        """
        from edge_runtime.inference.checks.opened import check_opened

        return check_opened(self._opened)

    def close(self) -> None:
        """End its sessions, refuse whoever waits, and free the engine's memory when the calls that run have ended."""
        if self.sessions is not None:
            self.sessions.close()
        self._admission.close()
        if self._leases is not None:
            self._leases.clear()
        self._admission.on_idle(self.predictor.close)

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
