"""Tensors that a caller prepared without this runtime: checked against the manifest, then made what the file takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.tensor import TensorSpec
from edge_runtime.inference.backend import Array
from edge_runtime.inference.blame import BadInput
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.preprocessing.preprocess import Chain, Preprocessor
from edge_runtime.inference.preprocessing.values import Value, axes_of, check_named, check_size, plain_array


def are_prepared(preprocess: Preprocessor, tensors: Mapping[str, object]) -> bool:
    """Whether canonical tensors are meant: where the names alone say so they are, whatever else is wrong with them.

    Raises:
        InferenceError: they have no names.
    """
    check_named(tensors)
    canonical = {chain.tensor for chain in preprocess.chains}
    is_meant = tensors.keys() == canonical != {chain.source.name for chain in preprocess.chains}
    return is_meant or preprocess.are_prepared(tensors)


def check_outputs(predictor: Predictor, names: Collection[str]) -> None:
    """Refuse to give tensors that the model does not have. Raises: BadInput."""
    known = sorted(predictor.file_outputs.keys() & predictor.release.tensors.keys())
    if isinstance(names, str):
        raise BadInput("give the outputs", "their names are one text", f"give a list: [{shown(names)}]")
    for name in names:
        if name not in known:
            because, remedy = "the model has no such tensor", f"choose one of {', '.join(known)}"
            raise BadInput(f"give output {shown(name)}", because, remedy)


def feeds_of_prepared(predictor: Predictor, tensors: Mapping[str, object]) -> dict[str, Array]:
    """Feeds, as `Preprocessor` returns them, from canonical tensors.

    Raises:
        InferenceError: unknown or missing tensor, wrong dtype or shape, or a file that does some steps itself.
    """
    feeds = dict(predictor.preprocess.constants)
    chains = {chain.tensor: chain for chain in predictor.preprocess.chains}
    known = ", ".join(sorted(chains))
    if unknown := sorted(tensors.keys() - chains.keys()):
        raise InferenceError(f"take tensor {shown(unknown[0])}", "the model has none of that name", f"it takes {known}")
    if missing := sorted(chains.keys() - tensors.keys()):
        raise InferenceError("answer", f"tensor {missing[0]} is missing", f"give {known}")
    for name, chain in chains.items():
        feeds[name] = _fed(predictor, chain, tensors[name])
    return feeds


def _fed(predictor: Predictor, chain: Chain, given: object) -> Array:
    spec = predictor.release.tensors[chain.tensor]
    if predictor.variant.io.inputs[chain.tensor].absorbs:
        raise InferenceError(
            f"take tensor {chain.tensor}",
            f"variant {predictor.variant.id} does the last steps inside its file",
            f"give {chain.source.name}",
        )
    array = plain_array(given, f"tensor {chain.tensor}")
    _check(predictor, chain.tensor, spec, array)
    return chain.finish(Value(array, spec.layout))


def _check(predictor: Predictor, name: str, spec: TensorSpec, array: Array) -> None:
    if array.dtype.name != spec.dtype:
        raise InferenceError(f"take tensor {name}", f"its dtype is {array.dtype.name}, not {spec.dtype}")
    if array.ndim != len(spec.shape):
        raise InferenceError(f"take tensor {name}", f"its shape is {list(array.shape)}, not {axes_of(spec.shape)}")
    for size, wanted in zip(array.shape, spec.shape, strict=True):
        check_size(size, wanted, f"tensor {name}", spec.shape, predictor.preprocess.axes)
