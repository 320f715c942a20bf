"""From a call to tensors: reads what the caller gave, asks the model, gives what the caller wants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edge_runtime.contract.errors import EdgeError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.reasons import ENGINE_FAILED, MEMORY
from edge_runtime.inference.accounting import INTERPRET, PREPARE, RUN, SAMPLES
from edge_runtime.inference.results import Answer, as_json
from edge_runtime.serving.calls import BYTES, VARIES, BadCall, Call, TensorMeta, Values

if TYPE_CHECKING:
    from edge_runtime.contract.release import ReleaseManifest, VariantManifest
    from edge_runtime.contract.tensor import Shape
    from edge_runtime.inference.accounting import Record
    from edge_runtime.inference.backend import Array, Tensors
    from edge_runtime.inference.model import Model
    from edge_runtime.inference.preprocess import Inputs


def describe_inputs(release: ReleaseManifest) -> tuple[TensorMeta, ...]:
    """The public inputs of a release, as arrays; those that accept an encoding take BYTES [N] as well."""
    return tuple(TensorMeta(spec.name, spec.dtype, _sizes(spec.shape)) for spec in release.signature.inputs)


def describe_outputs(release: ReleaseManifest, variant: VariantManifest) -> tuple[TensorMeta, ...]:
    """Canonical output tensors without states, then the public outputs whose names are still free, as BYTES."""
    tensors = tuple(
        TensorMeta(name, release.tensors[name].dtype, _sizes(release.tensors[name].shape))
        for name in _output_tensors(release, variant)
    )
    taken = {meta.name for meta in tensors}
    public = (spec.name for spec in release.signature.outputs if spec.name not in taken)
    return (*tensors, *(TensorMeta(name, BYTES, (VARIES,)) for name in public))


def answer(model: Model, call: Call, record: Record) -> dict[str, Values]:
    """The wanted outputs of one call, as `Reply.tensors` holds them; counts samples and stages.

    Raises:
        BadCall: names, shapes, dtypes or bytes that the model does not take.
        InferenceError: the model cannot answer; code `engine_failed` when its engine failed.
    """
    canonical, public = wanted_outputs(model, call.outputs)
    batches: list[Tensors] = []
    answers: list[Answer] = []
    samples = prepare_ns = run_ns = interpret_ns = 0
    begun = perf_counter_ns()
    for decoded, feeds in _prepared(model, call.inputs):
        prepared = perf_counter_ns()
        tensors = _run(model, decoded, feeds)
        ran = perf_counter_ns()
        batches.append(tensors)
        samples += next((len(array) for array in tensors.values() if array.ndim), 1)
        if public:
            answers.extend(_interpret(model, tensors, decoded))
        prepare_ns, run_ns = prepare_ns + prepared - begun, run_ns + ran - prepared
        begun = perf_counter_ns()
        interpret_ns += begun - ran
    reply: dict[str, Values] = {name: _joined([tensors[name] for tensors in batches]) for name in canonical}
    for name in public:
        reply[name] = [msgspec.json.encode(as_json(one[name])) for one in answers]
    record.time(PREPARE, prepare_ns)
    record.time(RUN, run_ns)
    record.time(INTERPRET, interpret_ns)
    record.count(SAMPLES, samples)
    return reply


def _run(model: Model, decoded: Tensors | None, feeds: Tensors | None) -> dict[str, Array]:
    try:
        if feeds is not None:
            return model.run_canonical(feeds)
        assert decoded is not None
        return model.predictor.run_decoded(decoded)
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


def _interpret(model: Model, tensors: Tensors, decoded: Tensors | None) -> list[Answer]:
    try:
        return model.predictor.interpret(tensors, decoded)
    except EdgeError:
        raise
    except Exception as error:
        raise InferenceError(
            "read the model's answer", f"{type(error).__name__}: {shown(str(error))}", "build the release again"
        ) from error


def wanted_outputs(model: Model, outputs: tuple[str, ...] | None) -> tuple[list[str], list[str]]:
    """Names of canonical tensors and of public outputs; a name that is both means the tensor. Raises: BadCall."""
    release = model.release.manifest
    tensors = _output_tensors(release, model.variant.manifest)
    if outputs is None:
        return tensors, []
    public = {spec.name for spec in release.signature.outputs}
    for name in outputs:
        if name not in tensors and name not in public:
            known = ", ".join(dict.fromkeys((*tensors, *public)))
            raise BadCall(f"give output {shown(name)}", "the model has none of that name", f"choose of {known}")
    return [name for name in outputs if name in tensors], [name for name in outputs if name not in tensors]


def only_arrays(inputs: Mapping[str, Values]) -> dict[str, Array]:
    """The inputs, none of which may be encoded. Raises: BadCall."""
    arrays: dict[str, Array] = {}
    for name, values in inputs.items():
        if isinstance(values, list):
            raise BadCall(f"take input {shown(name)}", "a tensor is wanted, not encoded bytes", "send its numbers")
        arrays[name] = values
    return arrays


def _output_tensors(release: ReleaseManifest, variant: VariantManifest) -> list[str]:
    states = {state.out for state in release.states}
    return [name for name in variant.io.outputs if name not in states]


def _prepared(model: Model, inputs: Mapping[str, Values]) -> Iterator[tuple[Tensors | None, Tensors | None]]:
    """For each run of the model: decoded inputs (None: preprocessing was done), feeds (None: made row by row)."""
    predictor = model.predictor
    preprocess = predictor.preprocess
    arrays = {name: values for name, values in inputs.items() if not isinstance(values, list)}
    if arrays.keys() == inputs.keys() and preprocess.are_prepared(arrays):
        yield None, {**preprocess.constants, **arrays}
        return
    for sample in _samples(inputs):
        try:
            decoded = preprocess.decode(sample)
            feeds = None if predictor.sequencer is not None else preprocess.after_decode(decoded)
        except EdgeError as error:
            raise BadCall(error.cannot, error.because, error.remedy) from error
        except Exception as error:  # parsers of foreign bytes fail in ways that nobody can list
            raise BadCall("take the inputs", f"{type(error).__name__}: {shown(str(error))}") from error
        yield decoded, feeds


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


def _sizes(shape: Shape) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else VARIES for size in shape)
