"""Sequences of calls to a model that remembers: each is a session, found again by the id that its client gave."""

from __future__ import annotations

import threading
from collections.abc import Collection
from time import perf_counter_ns
from typing import TYPE_CHECKING

import msgspec

from edge_runtime.contract.ids import shown
from edge_runtime.inference.postprocessing.rendering import as_json
from edge_runtime.inference.requests.accounting import RUN, SAMPLES
from edge_runtime.serving.calls import BadCall, Call, SequenceStep, Values
from edge_runtime.serving.describing import WantedOutputs, only_arrays

if TYPE_CHECKING:
    from edge_runtime.inference.backend import Array
    from edge_runtime.inference.model import Model
    from edge_runtime.inference.requests.accounting import Record
    from edge_runtime.inference.streams import ModelSession


class OpenSequences:
    """The sequences that are open on one loaded model; each has one caller at a time."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._outputs = WantedOutputs(model.release.manifest, model.variant.manifest)
        self._sessions: dict[int | str, ModelSession] = {}
        self._lock = threading.Lock()

    def ids(self) -> Collection[int | str]:
        """Those that have not ended; one that nobody used for long has."""
        if self._model.sessions is not None:
            self._model.sessions.forget_idle()
        with self._lock:
            for name in [name for name, session in self._sessions.items() if session.has_ended]:
                del self._sessions[name]
            return tuple(self._sessions)

    def answer(self, step: SequenceStep, call: Call, record: Record) -> dict[str, Values]:
        """The outputs wanted of the next step of a sequence.

        Raises:
            BadInput: the sequence was not started, or the inputs are not what the model takes.
            InferenceError: as the engine; or codes `session_in_use`, `session_ended`, `sessions_full`.
        """
        canonical, public = self._outputs.split(call.outputs)
        if canonical and public:
            raise BadCall("answer a sequence", "tensors and public outputs are asked for at once", "ask for one kind")
        session = self._session(step)
        begun = perf_counter_ns()
        try:
            if public:
                reply, samples = self._heard(session, step, call, public)
            else:
                tensors = session.infer_tensors(only_arrays(call.inputs), last=step.end)
                reply, samples = {name: tensors[name] for name in canonical}, max(map(len, tensors.values()), default=0)
        finally:
            self._drop_if_ended(step.id, session)
        record.time(RUN, perf_counter_ns() - begun)
        record.count(SAMPLES, samples)
        return reply

    def _heard(
        self, session: ModelSession, step: SequenceStep, call: Call, public: tuple[str, ...]
    ) -> tuple[dict[str, Values], int]:
        """Public outputs of a piece of sound: one document for it, and a second one for what the end makes known."""
        if len(call.inputs) != 1:
            raise BadCall("feed the sequence", "a sound is one input", "give the model's only input")
        answers = [session.feed(_piece(next(iter(call.inputs.values()))))]
        if step.end:
            answers.append(session.end())
        documents: dict[str, Values] = {
            name: [msgspec.json.encode(as_json(one[name])) for one in answers if name in one] for name in public
        }
        return documents, len(answers)

    def _session(self, step: SequenceStep) -> ModelSession:
        if step.start:
            fresh = self._model.start_session()
            with self._lock:
                former = self._sessions.get(step.id)
                self._sessions[step.id] = fresh
            if former is not None:
                former.close()
            return fresh
        session = self._sessions.get(step.id)
        if session is None:
            raise BadCall(
                f"go on with sequence {shown(str(step.id))}", "it was not started here, or has ended", "start it"
            )
        return session

    def _drop_if_ended(self, name: int | str, session: ModelSession) -> None:
        if session.has_ended:
            with self._lock:
                if self._sessions.get(name) is session:
                    del self._sessions[name]


def _piece(values: Values) -> Array | bytes:
    if not isinstance(values, list):
        return values
    if len(values) != 1:
        raise BadCall("feed the sequence", f"it got {len(values)} pieces at once", "give one")
    return values[0]
