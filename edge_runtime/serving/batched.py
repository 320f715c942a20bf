"""A loaded variant whose calls are gathered into batches: each caller gets exactly its rows.

No threads of its own: whoever waits longest leads, which means to look after the line and to run what it decides.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, perf_counter_ns
from typing import Final, final

import numpy as np

from edge_runtime.contract.errors import ContractError, EdgeError
from edge_runtime.contract.evidence import CheckResult
from edge_runtime.contract.ids import VariantId
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.backend import Tensors
from edge_runtime.inference.blame import BadInput, EngineFault
from edge_runtime.inference.requests.accounting import QUEUE, SAMPLES, WAITED_NS, Record
from edge_runtime.inference.requests.refusals import Cancelled, DeadlinePassed, outcome_of
from edge_runtime.inference.requests.rows import BatchAxes, batch_axes, split
from edge_runtime.serving.answering import Apart
from edge_runtime.serving.batching import ALONE, BatchPolicy, Waiting, next_batch
from edge_runtime.serving.calls import Call, Values
from edge_runtime.serving.instance import Instance, LocalInstance, Open
from edge_runtime.serving.variants import Origin

_PACE: Final = 0.2
"""Weight of the last run in the estimate of how long one takes."""

Outcome = dict[str, Values] | list[Tensors] | EdgeError
"""The reply; what the engine said to each sample of a prepared call; or why there is neither."""


def check_batchable(name: str, origin: Origin) -> None:
    """Refuse to gather calls of a model that is asked sample by sample. Raises: ContractError."""
    if not any(batch_axes(origin.release.manifest, variant) for variant in origin.variants):
        because, remedy = (
            ("it keeps states from call to call", "serve it without batching")
            if origin.release.manifest.states
            else (
                "none of its variants that fit here takes a free number of samples at once",
                "build it with a free batch axis, or serve it without batching",
            )
        )
        raise ContractError(f"batch the calls of model {name}", because, remedy)


Unbatched = Callable[[VariantId], None]
"""Is told once of a variant that takes no batch after all, in a caller's thread; must return soon."""


def gathering(opens: Open, wished: BatchPolicy | None, unbatched: Unbatched) -> Open:
    """The same, with the calls of each variant that allows it gathered into batches: as wished, else as tuned here."""
    lonely: set[VariantId] = set()

    def learn(variant: VariantId) -> None:
        lonely.add(variant)
        unbatched(variant)

    def opened(origin: Origin, variant: VariantId) -> Instance:
        instance = opens(origin, variant)
        tuned = origin.tuned.get(variant)
        policy = wished or (ALONE if tuned is None or tuned.batch is None else BatchPolicy(tuned.batch))
        axes = batch_axes(origin.release.manifest, instance.variant)
        if axes is None or policy == ALONE or variant in lonely:
            return instance
        return BatchedInstance(instance, axes, policy, partial(learn, variant))

    return opened


@dataclass(eq=False, slots=True)
class _Entry:
    """A call in the line."""

    call: Call
    waiting: Waiting
    arrived_ns: int
    apart: Apart | None = None
    """The same prepared in its own thread."""
    waited_ns: int = 0
    """Until a run began that it shares."""
    outcome: Outcome | None = None
    changed: threading.Event = field(default_factory=threading.Event)


@final
class BatchedInstance:
    """Gathers what several callers ask at once.

    Args:
        inner: the loaded variant; closed with this.
        axes: where the model's tensors have their samples.
        policy: how far to gather; never beyond what the variant takes.
        unbatched: called once when it turns out that the variant takes no batch, though its release says so.
    """

    def __init__(
        self, inner: Instance, axes: BatchAxes, policy: BatchPolicy, unbatched: Callable[[], None] = lambda: None
    ) -> None:
        self._inner = inner
        self._unbatched = unbatched
        self._preparing = inner if isinstance(inner, LocalInstance) else None
        """Prepares pictures in the threads of their callers; not in another process."""
        # More callers wait here than the engine takes: their pictures must not all be in memory at once.
        self._decoding = threading.BoundedSemaphore(max(inner.slots, 1))
        self._axes: BatchAxes | None = axes
        self._policy = BatchPolicy(min(policy.max_rows, inner.variant.batch.max), policy.delay_s)
        self._lock = threading.Lock()
        self._line: list[_Entry] = []
        self._leader: _Entry | None = None
        self._free = inner.slots
        """Runs that the engine takes besides those under way."""
        self._run_s = 0.0

    @property
    def variant(self) -> VariantManifest:
        """Which one it is."""
        return self._inner.variant

    @property
    def slots(self) -> int:
        """Calls that it takes at once: those of full batches under way, and of one that is gathered meanwhile."""
        return self._policy.max_rows * (self._inner.slots + 1)

    @property
    def is_gone(self) -> bool:
        """Whether it will never answer again."""
        return self._inner.is_gone

    def answer(self, call: Call, record: Record) -> dict[str, Values]:
        """The wanted outputs of this call. Raises: BadInput, EngineFault, InferenceError."""
        # Before it joins the line: a picture that cannot be read hurts nobody else, and nobody waits for its decoding.
        apart = self._prepared(call, record)
        kind, rows = self._kind_of(call, apart)
        waiting = Waiting(kind, rows, monotonic(), call.priority, call.deadline)
        entry = _Entry(call, waiting, perf_counter_ns(), apart)
        self._join(entry)
        try:
            while entry.outcome is None:
                batch, timeout = self._look(entry)
                if batch:
                    self._run(batch, record)
                elif entry.outcome is None:
                    entry.changed.wait(timeout)
                    entry.changed.clear()
        finally:
            self._leave(entry)
        if isinstance(entry.outcome, EdgeError):
            # Each caller raises an error of its own: one object would gather all their tracebacks.
            raise copy(entry.outcome) from entry.outcome
        record.count(WAITED_NS, entry.waited_ns)
        if apart is not None and isinstance(entry.outcome, list):
            return apart.reply(entry.outcome, record)
        assert isinstance(entry.outcome, dict)
        return entry.outcome

    def open_sequences(self) -> Collection[int | str]:
        """Ids of the sequences that are lost when it closes."""
        return self._inner.open_sequences()

    def golden_check(self) -> list[CheckResult]:
        """Ask the release's golden questions, one by one."""
        return self._inner.golden_check()

    def close(self) -> None:
        """Free its memory; nobody asks it any more."""
        self._inner.close()

    def _join(self, entry: _Entry) -> None:
        with self._lock:
            self._line.append(entry)
            leader = self._leader
            is_news = leader is not None and (
                entry.waiting.deadline is not None
                or entry.waiting.kind != self._line[0].waiting.kind
                or sum(one.waiting.rows for one in self._line) >= self._policy.max_rows
            )
        if leader is not None and is_news:
            leader.changed.set()

    def _leave(self, entry: _Entry) -> None:
        """Nothing of an answered call stays, nor of one that Ctrl-C ended while it waited."""
        with self._lock:
            if entry in self._line:
                self._line.remove(entry)
            if self._leader is entry:
                self._leader = None
                self._appoint()

    def _look(self, entry: _Entry) -> tuple[list[_Entry], float | None]:
        """A batch for the caller to run; else how long to wait, None: until somebody wakes it."""
        with self._lock:
            # Whose call runs already leads nobody: it would leave as soon as that is answered.
            now = monotonic()
            if not self._free or self._leader not in {None, entry} or entry not in self._line:
                return [], self._patience(entry, now)
            decision = next_batch([one.waiting for one in self._line], now, self._policy, self._run_s)
            line = self._line
            late, batch = [line[place] for place in decision.late], [line[place] for place in decision.batch]
            self._line = [one for one in line if one not in late and one not in batch]
            if batch:
                self._free -= 1
            stays = not batch and entry not in late
            self._leader = entry if stays else None
            self._appoint()
        for one in late:
            self._settle(one, DeadlinePassed())
        return batch, None if decision.look_again_at is None else decision.look_again_at - now

    def _patience(self, entry: _Entry, now: float) -> float | None:
        """How long one waits who decides nothing; who waits for an engine that hangs is late all the same."""
        deadline = entry.waiting.deadline
        if deadline is None or entry not in self._line:
            return None
        if now < deadline:
            return min(deadline - now, threading.TIMEOUT_MAX)
        self._line.remove(entry)
        entry.outcome = DeadlinePassed()
        return None

    def _appoint(self) -> None:
        """Wake whoever came first, where there is something to decide; the lock is held."""
        if self._leader is None and self._free and self._line:
            self._line[0].changed.set()

    def _run(self, batch: Sequence[_Entry], record: Record) -> None:
        began = perf_counter_ns()
        for one in batch:
            one.waited_ns = began - one.arrived_ns
            record.time(QUEUE, one.waited_ns)
        try:
            self._answer_all(batch, record)
        except BaseException:  # Ctrl-C reaches the main thread while it runs a batch
            for one in batch:
                if one.outcome is None:
                    self._settle(one, Cancelled())
            raise
        finally:
            with self._lock:
                self._run_s += _PACE * ((perf_counter_ns() - began) / 1e9 - self._run_s)
                self._free += 1
                self._appoint()

    def _answer_all(self, batch: Sequence[_Entry], record: Record) -> None:
        if len(batch) == 1:
            self._answer_one(batch[0], record)
            return
        parts: Sequence[Outcome] | None = None
        is_refused = False
        try:
            parts = self._parts(batch, record)
        except EngineFault as fault:
            for one in batch:
                self._settle(one, fault)
            return
        except Exception as error:  # noqa: BLE001 (one of them is to blame: alone, each gets what it deserves)
            is_refused = isinstance(error, BadInput)
        if parts is not None:
            for one, outcome in zip(batch, parts, strict=True):
                self._settle(one, outcome)
            return
        said = [self._answer_one(one, record) for one in batch]
        if is_refused and not any(isinstance(outcome, EdgeError) for outcome in said):
            self._ask_alone()  # nobody was to blame but the batch

    def _parts(self, batch: Sequence[_Entry], record: Record) -> Sequence[Outcome] | None:
        """What was said to each; None where the answers do not follow the inputs row by row."""
        apart = [one.apart for one in batch if one.apart is not None]
        if self._preparing is not None and len(apart) == len(batch):
            said = self._preparing.run_all(apart, record)
            if not self._preparing.follows_rows:
                self._ask_alone()
            return said
        counted = record.counters[SAMPLES]
        together = self._inner.answer(_joined([one.call for one in batch]), record)
        parts = split(together, [one.waiting.rows for one in batch])
        if parts is None:
            record.counters[SAMPLES] = counted  # nobody gets these
            self._ask_alone()
        return parts

    def _ask_alone(self) -> None:
        """From now on: each batch would be run in vain."""
        with self._lock:
            is_news, self._axes = self._axes is not None, None
        if is_news:
            self._unbatched()

    def _answer_one(self, entry: _Entry, record: Record) -> Outcome:
        def answer() -> dict[str, Values] | list[Tensors]:
            if entry.apart is not None and self._preparing is not None:
                return self._preparing.run_all([entry.apart], record)[0]
            return self._inner.answer(entry.call, record)

        outcome: Outcome = outcome_of(answer)
        self._settle(entry, outcome)
        return outcome

    def _prepared(self, call: Call, record: Record) -> Apart | None:
        """A call with encoded pictures, decoded and prepared; None: it is asked as it is."""
        if self._preparing is None or self._axes is None or call.sequence is not None:
            return None
        encoded = [len(values) for values in call.inputs.values() if isinstance(values, list)]
        # More than a batch are taken one after the other.
        if not encoded or max(encoded) > self._policy.max_rows:
            return None
        with self._decoding:
            if call.deadline is not None and monotonic() >= call.deadline:
                raise DeadlinePassed
            return self._preparing.prepare(call, record)

    def _kind_of(self, call: Call, apart: Apart | None) -> tuple[Hashable, int]:
        """What it can run together with, and how many rows it brings; a kind of its own for what runs alone."""
        alone = object(), self._policy.max_rows
        if apart is not None:
            return alone if apart.kind is None or apart.rows >= self._policy.max_rows else (apart.kind, apart.rows)
        if self._axes is None or call.sequence is not None:
            return alone
        sizes: set[int] = set()
        shapes: list[Hashable] = []
        for name, values in call.inputs.items():
            # In a process of its own the model decodes pictures one by one.
            if isinstance(values, list) or values.ndim not in self._axes.get(name, ()):
                return alone
            sizes.add(len(values))
            shapes.append((name, values.dtype, values.shape[1:]))
        if len(sizes) != 1 or not 0 < (rows := sizes.pop()) < self._policy.max_rows:
            return alone
        return (tuple(shapes), call.outputs, call.is_vouched_for), rows

    @staticmethod
    def _settle(entry: _Entry, outcome: Outcome) -> None:
        entry.outcome = outcome
        entry.changed.set()


def _joined(calls: Sequence[Call]) -> Call:
    """One call with the rows of all, in their order."""
    inputs: dict[str, Values] = {
        name: np.concatenate([call.inputs[name] for call in calls])
        for name in calls[0].inputs
    }
    return Call(inputs, calls[0].outputs, is_vouched_for=calls[0].is_vouched_for)
