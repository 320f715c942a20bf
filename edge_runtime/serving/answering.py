"""From a call to tensors: reads what the caller gave, asks the model, gives what the caller wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np

from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import ENGINE_FAILED, MEMORY
from edge_runtime.inference.postprocessing.results import Answer, as_json
from edge_runtime.inference.requests.accounting import INTERPRET, PREPARE, RUN, SAMPLES
from edge_runtime.inference.requests.direct import Direct, direct_call
from edge_runtime.inference.requests.prepared import feeds_of_prepared
from edge_runtime.inference.requests.refusals import DeadlinePassed
from edge_runtime.serving.calls import BadCall, Call, Values
from edge_runtime.serving.describing import WantedOutputs, only_arrays

if TYPE_CHECKING:
    from edge_runtime.inference.backend import Array, Tensors
    from edge_runtime.inference.model import Model
    from edge_runtime.inference.preprocessing.preprocess import Inputs
    from edge_runtime.inference.requests.accounting import Record

_T = TypeVar("_T")


class Answerer:
    """Asks one loaded model; whoever calls holds one of its slots."""

    def __init__(self, model: Model) -> None:
        self._predictor = model.predictor
        self._outputs = WantedOutputs(model.release.manifest, model.variant.manifest)
        self._direct = Direct(model.predictor)
        self._engine = direct_call(model.predictor.session)

    def answer(self, call: Call, record: Record) -> dict[str, Values]:
        """The wanted outputs of one call, as `Reply.tensors` holds them; counts samples and stages.

        Raises:
            BadCall: names, shapes, dtypes or bytes that the model does not take.
            DeadlinePassed: while the inputs were prepared; the engine was not asked.
            InferenceError: the model cannot answer; code `engine_failed` when its engine failed.
        """
        tensors, public = self._outputs.split(call.outputs)
        if not public:
            fed = self._straight(call.inputs)
            if fed is not None:
                return self._answer_straight(fed, tensors, record)
        return self._answer_prepared(call, tensors, public, record)

    def _straight(self, inputs: Mapping[str, Values]) -> dict[str, Array] | None:
        """Inputs that need no preparation, by file tensor; None when they may need some."""
        # What is no array does not pass these gates, whatever its type promises.
        given: Inputs = inputs  # type: ignore[assignment]
        fed = self._direct.public.feed(given)
        return self._direct.canonical.feed(given) if fed is None else fed

    def _answer_straight(
        self, fed: dict[str, Array], wanted: tuple[str, ...], record: Record
    ) -> dict[str, Values]:
        began = perf_counter_ns()
        raw = _guarded(lambda: self._engine(fed))
        record.time(RUN, perf_counter_ns() - began)
        first = next(iter(fed.values()))
        record.count(SAMPLES, len(first) if first.ndim else 1)
        reply: dict[str, Values] = {}
        for name in wanted:
            place, read = self._direct.readers[name]
            reply[name] = raw[place] if read is None else read(raw[place])
        return reply

    def _answer_prepared(
        self, call: Call, wanted: tuple[str, ...], public: tuple[str, ...], record: Record
    ) -> dict[str, Values]:
        batches: list[Tensors] = []
        answers: list[Answer] = []
        samples = prepare_ns = run_ns = interpret_ns = 0
        begun = perf_counter_ns()
        for decoded, feeds in self._prepared(call.inputs):
            prepared = perf_counter_ns()
            if call.deadline is not None and monotonic() >= call.deadline:
                raise DeadlinePassed
            tensors = self._run(decoded, feeds)
            ran = perf_counter_ns()
            batches.append(tensors)
            samples += next((len(array) for array in tensors.values() if array.ndim), 1)
            if public:
                answers.extend(self._interpreted(tensors, decoded))
            prepare_ns, run_ns = prepare_ns + prepared - begun, run_ns + ran - prepared
            begun = perf_counter_ns()
            interpret_ns += begun - ran
        reply: dict[str, Values] = {name: _joined([tensors[name] for tensors in batches]) for name in wanted}
        for name in public:
            reply[name] = [msgspec.json.encode(as_json(one[name])) for one in answers]
        record.time(PREPARE, prepare_ns)
        record.time(RUN, run_ns)
        record.time(INTERPRET, interpret_ns)
        record.count(SAMPLES, samples)
        return reply

    def _run(self, decoded: Tensors | None, feeds: Tensors | None) -> dict[str, Array]:
        if feeds is not None:
            return _guarded(lambda: self._predictor.run_canonical(feeds))
        assert decoded is not None
        return _guarded(lambda: self._predictor.run_decoded(decoded))

    def _interpreted(self, tensors: Tensors, decoded: Tensors | None) -> list[Answer]:
        try:
            return self._predictor.interpret(tensors, decoded)
        except EdgeError:
            raise
        except Exception as error:
            raise InferenceError(
                "read the model's answer", f"{type(error).__name__}: {shown(str(error))}", "build the release again"
            ) from error

    def _prepared(self, inputs: Mapping[str, Values]) -> Iterator[tuple[Tensors | None, Tensors | None]]:
        """For each run: decoded inputs (None: the caller had prepared them), feeds (None: made row by row)."""
        preprocess = self._predictor.preprocess
        arrays = {name: values for name, values in inputs.items() if not isinstance(values, list)}
        if len(arrays) == len(inputs) and (self._means_tensors(arrays) or preprocess.are_prepared(arrays)):
            feeds = _refused(lambda: feeds_of_prepared(self._predictor, arrays))
            self._direct.canonical.learn(arrays, feeds)
            yield None, feeds
            return
        for sample in _samples(inputs):
            decoded, made = _refused(partial(self._decoded, sample))
            if len(arrays) == len(inputs) and made is not None:
                self._direct.public.learn(arrays, made)
            yield decoded, made

    def _means_tensors(self, arrays: Tensors) -> bool:
        """Whether the names alone say that canonical tensors are meant, whatever else is wrong with them."""
        chains = self._predictor.preprocess.chains
        return arrays.keys() == {chain.tensor for chain in chains} != {chain.source.name for chain in chains}

    def _decoded(self, sample: Inputs) -> tuple[Tensors, Tensors | None]:
        preprocess = self._predictor.preprocess
        decoded = preprocess.decode(sample)
        return decoded, None if self._predictor.sequencer is not None else preprocess.after_decode(decoded)


def _refused(prepare: Callable[[], _T]) -> _T:
    """What preparing inputs gives; whatever goes wrong with it, the call is to blame. Raises: BadCall."""
    try:
        return prepare()
    except EdgeError as error:
        raise BadCall(error.cannot, error.because, error.remedy) from error
    except MemoryError:
        raise
    except Exception as error:  # parsers of foreign bytes fail in ways that nobody can list
        raise BadCall("take the inputs", f"{type(error).__name__}: {shown(str(error))}") from error


def _guarded(run: Callable[[], _T]) -> _T:
    """What the engine gives; tells its own faults from those of the call. Raises: BadCall, InferenceError."""
    try:
        return run()
    except InferenceError as error:
        if error.code == InferenceError.default_code:
            raise BadCall(error.cannot, error.because, error.remedy) from error
        raise
    except MemoryError as error:
        raise InferenceError("run the model", "there is not enough memory for it", code=MEMORY) from error
    except Exception as error:
        raise InferenceError(
            "run the model", f"its engine failed ({type(error).__name__}: {shown(str(error))})", code=ENGINE_FAILED
        ) from error


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
