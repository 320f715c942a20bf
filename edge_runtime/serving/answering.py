"""From a call to tensors: asks the model about each sample, and gives what the caller wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edge_runtime.inference.postprocessing.results import Answer, as_json
from edge_runtime.inference.requests.accounting import INTERPRET, PREPARE, RUN, SAMPLES
from edge_runtime.serving.calls import BadCall, Call, Values
from edge_runtime.serving.describing import WantedOutputs, only_arrays

if TYPE_CHECKING:
    from edge_runtime.inference.backend import Array, Tensors
    from edge_runtime.inference.model import Model
    from edge_runtime.inference.preprocessing.preprocess import Inputs
    from edge_runtime.inference.requests.accounting import Record
    from edge_runtime.inference.requests.asker import Asked, Asker, Made


class Answerer:
    """Asks one loaded model for doors; whoever calls holds one of its slots."""

    def __init__(self, model: Model) -> None:
        self._asker = model.asker
        self._outputs = WantedOutputs(model.release.manifest, model.variant.manifest)

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
            if (fed := self._asker.straight(given)) is not None:
                return self._answer_straight(fed, tensors, record)
        return self._answer_prepared(call, tensors, public, record)

    def prepare(self, call: Call, record: Record) -> Apart | None:
        """The call as far as its own thread can bring it; None where its samples cannot run as rows of one call.

        Raises:
            BadInput: as `answer`.
            InferenceError: there is not enough memory.
        """
        tensors, public = self._outputs.split(call.outputs)
        began = perf_counter_ns()
        made = [self._asker.make(sample) for sample in _samples(call.inputs)]
        record.time(PREPARE, perf_counter_ns() - began)
        return None if any(one.feeds is None for one in made) else Apart(self._asker, made, tensors, public)

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

    def _answer_prepared(
        self, call: Call, wanted: tuple[str, ...], public: tuple[str, ...], record: Record
    ) -> dict[str, Values]:
        batches: list[Asked] = []
        answers: list[Answer] = []
        interpret_ns = 0
        for sample in _samples(call.inputs):
            asked = self._asker.ask_either(sample, call.deadline)
            batches.append(asked)
            if public:
                began = perf_counter_ns()
                answers.extend(self._asker.interpret(asked.tensors, asked.decoded, asked.seen))
                interpret_ns += perf_counter_ns() - began
        reply: dict[str, Values] = {name: _joined([asked.tensors[name] for asked in batches]) for name in wanted}
        for name in public:
            reply[name] = [msgspec.json.encode(as_json(one[name])) for one in answers]
        record.time(PREPARE, sum(asked.prepare_ns for asked in batches))
        record.time(RUN, sum(asked.run_ns for asked in batches))
        record.time(INTERPRET, interpret_ns)
        record.count(SAMPLES, sum(asked.samples for asked in batches))
        return reply


class Apart:
    """A call whose samples are prepared, to run with those of other calls, and to be answered in its own thread."""

    def __init__(self, asker: Asker, made: Sequence[Made], tensors: tuple[str, ...], public: tuple[str, ...]) -> None:
        self._asker = asker
        self._made = made
        self._tensors, self._public = tensors, public
        self.feeds = [one.feeds or {} for one in made]
        """What the engine is fed for each sample."""
        self.kind = asker.together.kind_of(self.feeds)
        """What calls must have in common to run together; None: this one's samples differ already."""
        self.rows = sum(map(asker.together.rows_of, self.feeds))

    def reply(self, said: Sequence[Tensors], record: Record) -> dict[str, Values]:
        """The wanted outputs; counts samples. Raises: InferenceError."""
        began = perf_counter_ns()
        reply: dict[str, Values] = {name: _joined([tensors[name] for tensors in said]) for name in self._tensors}
        if self._public:
            answers = [
                answer
                for one, tensors in zip(self._made, said, strict=True)
                for answer in self._asker.interpret(tensors, one.decoded, one.seen)
            ]
            reply |= {name: [msgspec.json.encode(as_json(one[name])) for one in answers] for name in self._public}
        record.time(INTERPRET, perf_counter_ns() - began)
        record.count(SAMPLES, sum(one.samples for one in self._made))
        return reply


def _samples(inputs: Mapping[str, Values]) -> Iterator[Inputs]:
    """The inputs as they are when all are arrays, else one sample at a time: pictures differ in size."""
    encoded = [values for values in inputs.values() if isinstance(values, list)]
    if not encoded:
        yield only_arrays(inputs)
        return
    sizes = {len(values) if isinstance(values, list) or values.ndim else 0 for values in inputs.values()}
    if len(sizes) != 1 or 0 in sizes:
        raise BadCall("take the inputs", f"they hold {sorted(sizes)} samples", "give as many of each, at least one")
    for row in range(len(encoded[0])):
        yield {
            name: values[row] if isinstance(values, list) else values[row : row + 1] for name, values in inputs.items()
        }


def _joined(pieces: list[Array]) -> Array:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
