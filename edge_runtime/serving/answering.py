"""From a call to tensors: asks the model about each sample, and gives what the caller wants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edge_runtime.inference.postprocessing.rendering import as_json
from edge_runtime.inference.preprocessing.values import one_by_one
from edge_runtime.inference.requests.accounting import INTERPRET, PREPARE, RUN, SAMPLES
from edge_runtime.inference.requests.drift import grid_of
from edge_runtime.serving.calls import Call, Values
from edge_runtime.serving.describing import WantedOutputs, only_arrays

if TYPE_CHECKING:
    from edge_runtime.inference.backend import Array, Tensors
    from edge_runtime.inference.model import Model
    from edge_runtime.inference.preprocessing.preprocess import Inputs
    from edge_runtime.inference.requests.accounting import Record
    from edge_runtime.inference.requests.asker import Asked, Asker, Made

_Wanted = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of tensors and of public outputs."""


class Answerer:
    """Asks one loaded model for doors; whoever calls holds one of its slots."""

    def __init__(self, model: Model) -> None:
        self._asker = model.asker
        self._outputs = WantedOutputs(model.release.manifest, model.variant.manifest)
        self._needs_pixels = model.predictor.postprocess.compares
        self._quantises = self._asker.direct.quantises

    def answer(self, call: Call, record: Record) -> dict[str, Values]:
        """The wanted outputs of one call, as `Reply.tensors` holds them; counts samples and stages.

        Raises:
            BadInput: names, shapes, dtypes or bytes that the model does not take.
            DeadlinePassed: while the inputs were prepared; the engine was not asked.
            EngineFault: the engine failed.
            InferenceError: the model cannot answer.
        """
        tensors, public = self._outputs.split(call.outputs)
        if not public:
            # What is no array does not pass that gate, whatever its type promises.
            given: Inputs = call.inputs  # type: ignore[assignment]
            began = perf_counter_ns() if self._quantises else 0
            if (fed := self._asker.straight(given)) is not None:
                if began:
                    record.time(PREPARE, perf_counter_ns() - began)
                return self._answer_straight(fed, tensors, record)
        return _reply(self._asker, (tensors, public), self._asked(call, record), record)

    def prepare(self, call: Call, record: Record) -> Apart | None:
        """The call as far as its own thread can bring it; None where its samples cannot run as rows of one call.

        Raises:
            BadInput: as `answer`.
            InferenceError: there is not enough memory.
        """
        if self._needs_pixels:
            return None
        wanted = self._outputs.split(call.outputs)
        began = perf_counter_ns()
        made = [_without_pixels(self._asker.make(sample)) for sample in _samples(call.inputs)]
        record.time(PREPARE, perf_counter_ns() - began)
        return None if any(one.feeds is None for one in made) else Apart(self._asker, made, wanted)

    def run_all(self, calls: Sequence[Apart], record: Record) -> list[list[Tensors]]:
        """What the engine says to prepared calls, for each of them and each of its samples.

        Raises:
            BadInput, EngineFault, InferenceError: as `answer`.
        """
        began = perf_counter_ns()
        tensors = iter(self._asker.together.run_all([feeds for call in calls for feeds in call.feeds]))
        record.time(RUN, perf_counter_ns() - began)
        return [[next(tensors) for _ in call.feeds] for call in calls]

    def _answer_straight(
        self, fed: dict[str, Array], wanted: tuple[str, ...], record: Record
    ) -> dict[str, Values]:
        began = perf_counter_ns()
        raw = self._asker.run(fed)
        record.time(RUN, perf_counter_ns() - began)
        first = next(iter(fed.values()))
        record.count(SAMPLES, len(first) if first.ndim else 1)
        reply: dict[str, Values] = {}
        readers = self._asker.direct.readers
        for name in wanted:
            place, read = readers[name]
            reply[name] = raw[place] if read is None else read(raw[place])
        return reply

    def _asked(self, call: Call, record: Record) -> Iterator[tuple[Tensors, Asked]]:
        """One sample after the other: the pictures of a call must not all be in memory at once."""
        prepare_ns = run_ns = 0
        for sample in _samples(call.inputs):
            asked = self._asker.ask_either(sample, call.deadline)
            prepare_ns, run_ns = prepare_ns + asked.prepare_ns, run_ns + asked.run_ns
            yield asked.tensors, asked
        record.time(PREPARE, prepare_ns)
        record.time(RUN, run_ns)


class Apart:
    """A call whose samples are prepared, to run with those of other calls, and to be answered in its own thread."""

    def __init__(self, asker: Asker, made: Sequence[Made], wanted: _Wanted) -> None:
        self._asker = asker
        self._made = made
        self._wanted = wanted
        self.feeds = [one.feeds or {} for one in made]
        """What the engine is fed for each sample."""
        self.kind = asker.together.kind_of(self.feeds)
        """What calls must have in common to run together; None: this one's samples differ already."""
        self.rows = sum(map(asker.together.rows_of, self.feeds))

    def reply(self, said: Sequence[Tensors], record: Record) -> dict[str, Values]:
        """The wanted outputs; counts samples. Raises: InferenceError."""
        return _reply(self._asker, self._wanted, zip(said, self._made, strict=True), record)


def _without_pixels(made: Made) -> Made:
    """What is left of a picture while it waits: its shape, what drift looks at, and what the engine is fed."""
    whole = made.decoded or {}
    shapes = {name: np.broadcast_to(np.zeros((), one.dtype), one.shape) for name, one in whole.items()}
    seen = {name: grid_of(one) if isinstance(one, np.ndarray) else one for name, one in made.seen.items()}
    return msgspec.structs.replace(made, decoded=shapes, seen=seen)


def _reply(
    asker: Asker, wanted: _Wanted, answered: Iterable[tuple[Tensors, Asked | Made]], record: Record
) -> dict[str, Values]:
    """The wanted outputs of what the engine said to each sample; counts samples and interpretation."""
    tensors, public = wanted
    pieces: list[Tensors] = []
    documents: dict[str, list[bytes]] = {name: [] for name in public}
    samples = interpret_ns = 0
    for said, question in answered:
        pieces.append(said)
        samples += question.samples
        began = perf_counter_ns()
        for answer in asker.interpret(said, question.decoded, question.seen) if public else ():
            for name in public:
                documents[name].append(msgspec.json.encode(as_json(answer[name])))
        interpret_ns += perf_counter_ns() - began
    record.time(INTERPRET, interpret_ns)
    record.count(SAMPLES, samples)
    return {**{name: _joined([piece[name] for piece in pieces]) for name in tensors}, **documents}


def _samples(inputs: Mapping[str, Values]) -> Iterator[Inputs]:
    """The inputs as they are when all are arrays, else one sample at a time: pictures differ in size."""
    if not any(isinstance(values, list) for values in inputs.values()):
        yield only_arrays(inputs)
        return
    yield from one_by_one(inputs)


def _joined(pieces: list[Array]) -> Array:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
