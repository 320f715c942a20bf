"""Sessions: endless inputs, each heard by a model as if it were alone with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, final

import numpy as np

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.release import ReleaseManifest, VariantManifest
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.blame import BadInput
from edge_runtime.inference.postprocessing.results import Answer
from edge_runtime.inference.postprocessing.stream_answers import Listener, StreamReader
from edge_runtime.inference.preprocessing.framing import FrameBuffer, Framing, compile_framing
from edge_runtime.inference.preprocessing.preprocess import Preprocessor
from edge_runtime.inference.states import GraphState, Memory, StreamRules, compile_states

SESSION_ENDED: Final = "session_ended"
"""Reason code: the session was ended, or forgotten after nobody used it for long."""
SESSIONS_FULL: Final = "sessions_full"
"""Reason code: as many sessions are open as the release allows."""
SESSION_IN_USE: Final = "session_in_use"
"""Reason code: two callers used one session at the same time."""
RunOnce = Callable[[Tensors], dict[str, Array]]
"""One call of the graph: canonical input tensors, states among them, to canonical output tensors."""


class Turn(Protocol):
    """When a call of a session may run: its model's waiting line, or at once."""

    def __call__(
        self, given: Mapping[str, object], deadline: float | None, priority: int
    ) -> AbstractContextManager[None]:
        """Lasts as long as the call. Raises: InferenceError: nothing was heard, and the same may be given again."""


def at_once(
    given: Mapping[str, object],  # noqa: ARG001 (the signature is Turn's)
    deadline: float | None,  # noqa: ARG001
    priority: int,  # noqa: ARG001
) -> AbstractContextManager[None]:
    """The turn of who waits for nobody."""
    return nullcontext()


@final
@dataclass(frozen=True, slots=True)
class Sequencer:
    """Runs rows in the order of time, each with what the row before it left behind."""

    preprocess: Preprocessor
    rules: StreamRules
    states: tuple[GraphState, ...]
    reader: StreamReader | None
    """Answers about sound; None where steps are rows of the inputs."""
    framing: Framing | None
    """How sound becomes rows; None where steps are rows of the inputs."""
    shapes: Mapping[str, tuple[str, tuple[int, ...]]]
    """dtype and shape of one row by canonical output tensor, states left out."""

    def run(self, run_once: RunOnce, feeds: Tensors, memory: Memory) -> dict[str, Array]:
        """Output tensors [rows, …] of canonical input tensors [rows, …], one row after the other.

        Raises:
            InferenceError: as the engine.
        """
        return self.joined(memory.keep(run_once({**row, **memory.tensors})) for row in self.preprocess.rows(feeds))

    def run_whole(self, run_once: RunOnce, decoded: Tensors) -> dict[str, Array]:
        """Output tensors of inputs after `decode`: each sound is a session of its own, rows are one session.

        Raises:
            InferenceError: as the engine; or a sound is too short for one frame.
        """
        framing = self.framing
        if framing is None:
            return self.run(run_once, self.preprocess.after_decode(decoded), Memory(self.states))
        return self.joined(
            self.joined(self._hear(run_once, sound, framing)) for sound in framing.sounds(decoded, self.preprocess.axes)
        )

    def first_step(self, decoded: Tensors) -> dict[str, Array]:
        """Inputs after `decode`, without what the first step does not hear. Raises: InferenceError."""
        if self.framing is None:
            return {name: array[:1] for name, array in decoded.items()}
        sounds = self.framing.sounds(decoded, self.preprocess.axes)
        return {self.framing.source.name: sounds[:, : self.framing.row_samples]}

    def joined(self, pieces: Iterable[Mapping[str, Array]]) -> dict[str, Array]:
        """Outputs one after the other; empty tensors of the right shape where there are none."""
        rows = list(pieces)
        return {
            name: np.concatenate([row[name] for row in rows]) if rows else np.zeros((0, *shape), dtype)
            for name, (dtype, shape) in self.shapes.items()
        }

    def _hear(self, run_once: RunOnce, sound: Array, framing: Framing) -> Iterator[dict[str, Array]]:
        memory, buffer, rows = Memory(self.states), FrameBuffer(framing), 0
        for part in (buffer.push(framing.samples(sound)), buffer.finish()):
            for row in part:
                rows += 1
                fed = {**self.preprocess.constants, framing.chain.tensor: row, **memory.tensors}
                yield memory.keep(run_once(fed))
        if not rows:
            because = f"it has {len(sound)} samples, one frame takes {framing.frame.length}"
            raise InferenceError("prepare a sound", because, "give a longer one")


def compile_sequencer(
    release: ReleaseManifest, preprocess: Preprocessor, reader: StreamReader | None, variant: VariantManifest
) -> Sequencer | None:
    """How calls of a variant follow one another; None when they do not know of each other.

    Raises:
        UnsupportedFeature: a state or a stream that this runtime does not know.
        ContractError: states, steps and tensors do not fit together.
    """
    if preprocess.rules is None:
        return None
    states = compile_states(release, {chain.tensor: chain.written for chain in preprocess.chains}, variant)
    carried = {state.gives for state in states}
    shapes = {
        name: (spec.dtype, tuple(size if isinstance(size, int) else 0 for size in spec.shape[1:]))
        for name, spec in release.tensors.items()
        if name in variant.io.outputs and name not in carried
    }
    # The file's own binding decides how a row is finished, so the framing is the variant's.
    framing = compile_framing(preprocess)
    return Sequencer(preprocess, preprocess.rules, states, reader, framing, shapes)


@dataclass(frozen=True, slots=True)
class Hearer:
    """The loaded variant behind sessions."""

    sequencer: Sequencer
    run_once: RunOnce
    prepared: Callable[[Tensors], dict[str, Array]]
    """Feeds from canonical tensors of a caller. Raises: InferenceError: they are not what the model takes."""
    turn: Turn = at_once


@final
class ModelSession:
    """One stream through a model: owns the states that calls hand on. One caller at a time; `end` it, or use `with`."""

    def __init__(
        self,
        heard_by: Hearer,
        *,
        now: Callable[[], float] = time.monotonic,
        forget: Callable[[ModelSession], None] | None = None,
    ) -> None:
        """Begin a session; callers use `Model.start_session`, which counts them."""
        sequencer = heard_by.sequencer
        self._sequencer = sequencer
        self._run_once = heard_by.run_once
        self._prepared = heard_by.prepared
        self._turn = heard_by.turn
        self._now = now
        self._forget = forget
        self._memory = Memory(sequencer.states)
        self._reader, framing = sequencer.reader, sequencer.framing
        self._buffer = FrameBuffer(framing) if framing else None
        self._listener: Listener | None = self._reader.begin() if self._reader else None
        self._offset_s = 0.0
        self._why_ended: str | None = None
        self._busy = threading.Lock()
        self.last_used_s = now()
        """On the clock that the session was begun with."""

    @property
    def has_ended(self) -> bool:
        """Whether the session takes no more calls."""
        return self._why_ended is not None

    def infer_tensors(
        self, tensors: Tensors, *, last: bool = False, deadline: float | None = None, priority: int = 0
    ) -> dict[str, Array]:
        """The model's output tensors [rows, …] for the next rows of the stream; no rows when no frame is full yet.

        Args:
            tensors: the public inputs as arrays (a piece of the sound, of any length), or all canonical tensors
                [rows, …] by their names, prepared; states are the session's own and are never given.
            last: nothing comes after: the samples that fill no frame are answered too, and the session ends.
            deadline: `time.monotonic()` seconds; after it nothing is heard, and the session waits for the same again.
            priority: a higher number is served first.

        Raises:
            Refused: the deadline passed, too many wait, or the model was closed.
            InferenceError: as the engine; or codes `session_ended`, `session_in_use`.
        """
        with self._used(), self._turn(tensors, deadline, priority):
            outputs = self._sequencer.joined(self._answered(tensors, last=last))
            if last:
                self._stop("it was ended")
            return outputs

    def feed(
        self, piece: Array | bytes, *, at_s: float | None = None, deadline: float | None = None, priority: int = 0
    ) -> Answer:
        """What became known by the next piece of the sound: scores of frames that it filled, segments that ended.

        Args:
            piece: samples [T] or [T, C] in the input's dtype, T of any size, or bytes in an encoding it accepts.
            at_s: when the piece begins, on the stream's own clock; None: where the last one ended. A hole as long as
                the release's `gap_ms` ends what was heard before it, and the model begins anew.
            deadline: as `infer_tensors`.
            priority: as `infer_tensors`.

        Raises:
            Refused: as `infer_tensors`.
            InferenceError: as the engine; or codes `session_ended`, `session_in_use`.
        """
        buffer, listener, framing = self._hearing()
        with self._used(), self._turn({framing.source.name: piece}, deadline, priority):
            samples = framing.samples(framing.piece(piece))
            if at_s is not None:
                self._place(at_s)
            for outputs in self._heard(buffer.push(samples)):
                listener.push(outputs)
            return listener.take()

    def end(self) -> Answer:
        """What is left to say: of samples that filled no frame, and of a segment that was still open.

        Raises:
            InferenceError: as the engine; or codes `session_ended`, `session_in_use`.
        """
        with self._used(), self._turn({}, None, 0):
            self._stop("it was ended")
            if self._buffer is None or self._listener is None:
                return {}
            for outputs in self._heard(self._buffer.finish()):
                self._listener.push(outputs)
            return self._listener.finish(self._until_s)

    def close(self) -> None:
        """Forget the stream; later calls raise. Nothing happens to a session that has ended."""
        self._stop("it was closed")

    def forget_if_idle(self, now_s: float) -> bool:
        """End the session when nobody used it for as long as the release allows; whether it has ended."""
        idle_s = self._sequencer.rules.idle_s
        is_idle = idle_s is not None and now_s - self.last_used_s > idle_s
        # A call that takes long is no idle session.
        if is_idle and not self.has_ended and self._busy.acquire(blocking=False):
            try:
                self._stop(f"nobody used it for {idle_s:g} s")
            finally:
                self._busy.release()
        return self.has_ended

    def __enter__(self) -> ModelSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _used(self) -> Iterator[None]:
        self.forget_if_idle(self._now())
        if not self._busy.acquire(blocking=False):
            because = "another thread is using it"
            raise BadInput("go on with the session", because, "one stream, one caller", code=SESSION_IN_USE)
        try:
            if self._why_ended is not None:
                raise BadInput(
                    "go on with the session", self._why_ended, "start another session", code=SESSION_ENDED
                )
            yield
        finally:
            self.last_used_s = self._now()
            self._busy.release()

    def _hearing(self) -> tuple[FrameBuffer, Listener, Framing]:
        if self._buffer is None or self._listener is None or self._sequencer.framing is None:
            raise InferenceError("feed the session", "the model hears no sound", "give its rows to infer_tensors")
        return self._buffer, self._listener, self._sequencer.framing

    @property
    def _until_s(self) -> float:
        """Where the sound that was heard ends."""
        buffer, _, framing = self._hearing()
        return self._offset_s + buffer.heard / framing.rate_hz

    def _place(self, at_s: float) -> None:
        buffer, listener, _ = self._hearing()
        gap_s = self._sequencer.rules.gap_s
        if buffer.heard and (gap_s is None or abs(at_s - self._until_s) < gap_s):
            return
        listener.restart(self._until_s, at_s)
        buffer.reset()
        self._memory.reset()
        self._offset_s = at_s

    def _answered(self, tensors: Tensors, *, last: bool) -> Iterator[dict[str, Array]]:
        preprocess, framing = self._sequencer.preprocess, self._sequencer.framing
        if preprocess.are_prepared(tensors):
            feeds: Tensors = self._prepared(tensors)
        elif framing is None or self._buffer is None:
            feeds = preprocess(tensors)
        else:
            preprocess.check_names(tensors)
            piece = framing.piece(tensors[framing.source.name])
            yield from self._heard(self._buffer.push(framing.samples(piece)))
            if last:
                yield from self._heard(self._buffer.finish())
            return
        for row in preprocess.rows(feeds):
            yield self._step(row)

    def _heard(self, rows: Iterator[Array]) -> Iterator[dict[str, Array]]:
        _, _, framing = self._hearing()
        for row in rows:
            yield self._step({**self._sequencer.preprocess.constants, framing.chain.tensor: row})

    def _step(self, row: Tensors) -> dict[str, Array]:
        try:
            return self._memory.keep(self._run_once({**row, **self._memory.tensors}))
        except BaseException:
            # The row is gone, and what follows it would be heard as if it had never been.
            self._stop("a call failed, and the model has lost its place in the stream")
            raise

    def _stop(self, because: str) -> None:
        if self._why_ended is None:
            self._why_ended = because
            self._release()

    def _release(self) -> None:
        if self._forget is not None:
            self._forget(self)


@final
class Sessions:
    """The sessions that are open on one model; any thread may start one."""

    def __init__(self, heard_by: Hearer, *, now: Callable[[], float] = time.monotonic) -> None:
        self._heard_by = heard_by
        self._now = now
        self._open: set[ModelSession] = set()
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Sessions that are open."""
        return len(self._open)

    def start(self) -> ModelSession:
        """A session that heard nothing yet. Raises: BadInput: code `sessions_full`."""
        self.forget_idle()
        most = self._heard_by.sequencer.rules.max_sessions
        session = ModelSession(self._heard_by, now=self._now, forget=self._forget)
        with self._lock:
            if len(self._open) < most:
                self._open.add(session)
                return session
        idle_s = self._heard_by.sequencer.rules.idle_s
        wait = f", or wait until one was idle for {idle_s:g} s" if idle_s else ""
        because = f"{most} are open, as many as the release allows"
        raise BadInput("start a session", because, f"end one{wait}", code=SESSIONS_FULL)

    def forget_idle(self) -> None:
        """End the sessions that nobody used for as long as the release allows."""
        now_s = self._now()
        for session in self._listed():
            session.forget_if_idle(now_s)

    def close(self) -> None:
        """End all of them."""
        for session in self._listed():
            session.close()

    def _listed(self) -> tuple[ModelSession, ...]:
        with self._lock:
            return tuple(self._open)

    def _forget(self, session: ModelSession) -> None:
        with self._lock:
            self._open.discard(session)
