"""The short way through a model: what needs no preparation goes straight to the engine, what it gives straight back.

Compiled at load. Whether arrays of some shape need preparation is learned from the first one that took the long way:
when all steps returned the very same memory, the next array of that shape goes straight in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from numpy import ndarray

from edge_runtime.contract.steps import op_of
from edge_runtime.inference.backend import Array, DirectCall, Session, Tensors, is_direct
from edge_runtime.inference.predictor import Predictor, Reader
from edge_runtime.inference.preprocessing.preprocess import Chain, Inputs
from edge_runtime.inference.preprocessing.values import batched_layout, check_named
from edge_runtime.inference.requests.accounting import PREPARE, Record

if TYPE_CHECKING:
    from edge_runtime.inference.preprocessing.quantising import Quantiser

_MOST_SHAPES: Final = 64
"""Shapes remembered for one input; a caller with more of them takes the long way."""

_SHAPE_ONLY: Final = frozenset({"resize", "crop", "color", "layout"})
"""Steps for which an array's shape decides whether they change it."""

Shape = tuple[int, ...]
_UNKNOWN: Final[Shape] = ()


class _Entry(msgspec.Struct, frozen=True):
    """One input that may take the short way."""

    name: str
    """As the caller gives it."""
    tensor: str
    """Canonical tensor that it becomes."""
    file_tensor: str
    dtype: np.dtype[np.generic]
    shapes: dict[Shape, Shape | None]
    """For each shape that passes unchanged: the same with a batch axis, where it has none yet."""
    quantise: Quantiser | None
    """What is done to it after all, where the file takes whole numbers."""


class Gate:
    """The inputs of one naming (public, or canonical) that may take the short way."""

    def __init__(self, entries: Sequence[_Entry]) -> None:
        self._entries = tuple(entries)
        # What each call looks at, and no more: the rest would be unpacked for nothing.
        self._wanted = tuple((one.name, one.file_tensor, one.dtype, one.shapes) for one in entries)

    def feed(self, inputs: Inputs) -> dict[str, Array] | None:
        """Inputs by file tensor name, or None when they must take the long way. Raises: InferenceError: no names."""
        fed = {}
        # Asked forgiveness rather than for names: the question would cost each call more than the answer.
        try:
            for name, file_tensor, dtype, shapes in self._wanted:
                array = inputs.get(name)
                if type(array) is not ndarray or array.dtype is not dtype:
                    return None
                reshaped = shapes.get(array.shape, _UNKNOWN)
                if reshaped is _UNKNOWN or not array.flags.c_contiguous:
                    return None
                fed[file_tensor] = array if reshaped is None else array.reshape(reshaped)
        except AttributeError:
            check_named(inputs)
            raise
        return fed if fed and len(fed) == len(inputs) else None

    def learn(self, inputs: Inputs, feeds: Tensors) -> None:
        """Remember the shapes of inputs that the long way left as they were.

        Args:
            inputs: what the caller gave.
            feeds: what became of it, by canonical tensor name.
        """
        for entry in self._entries:
            given, fed = inputs.get(entry.name), feeds[entry.tensor]
            if not isinstance(given, np.ndarray) or given.dtype is not entry.dtype or given.shape in entry.shapes:
                continue
            is_same = _is_same(given, fed) if entry.quantise is None else given.size == fed.size
            if fed.ndim and len(entry.shapes) < _MOST_SHAPES and is_same:
                entry.shapes[given.shape] = None if given.shape == fed.shape else fed.shape


class _QuantisingGate(Gate):
    """The same where a file takes some of the inputs quantised, and needs no other preparation of them."""

    def __init__(self, entries: Sequence[_Entry], record: Callable[[], Record]) -> None:
        super().__init__(entries)
        self._record = record
        self._quantised = tuple((one.file_tensor, one.quantise) for one in entries if one.quantise is not None)

    def feed(self, inputs: Inputs) -> dict[str, Array] | None:
        """As those of other gates, quantised, which is counted."""
        began = perf_counter_ns()
        fed = super().feed(inputs)
        if fed is not None:
            for name, quantise in self._quantised:
                fed[name] = quantise(fed[name])
            self._record().time(PREPARE, perf_counter_ns() - began)
        return fed


class Direct:
    """The short way through one loaded variant.

    Args:
        predictor: the variant.
        record: where its caller's thread counts.
    """

    def __init__(self, predictor: Predictor, record: Callable[[], Record]) -> None:
        files = [] if predictor.sequencer else predictor.file_inputs
        self.public = _gate([_public(predictor, chain) for chain in _passing(predictor)], record)
        self.canonical = _gate([_canonical(predictor, name) for name in files], record)
        self.quantises = any(isinstance(gate, _QuantisingGate) for gate in (self.public, self.canonical))
        """Whether something is done to what goes this way after all, which takes time."""
        places = {info.name: place for place, info in enumerate(predictor.session.outputs)}
        self.readers: dict[str, tuple[int, Reader | None]] = {
            name: (places[info.name], predictor.readers[name]) for name, info in predictor.file_outputs.items()
        }
        raw = predictor.postprocess.raw or {}
        if any(not info.shape for info in predictor.file_outputs.values()):
            raw = {}  # a tensor without axes is no row of a batch
        self.raw: tuple[tuple[str, int, Reader | None], ...] = tuple(
            (public, *self.readers[tensor]) for public, tensor in raw.items()
        )
        """Public name, place and reader of each output, when all of them are tensors as they are; else empty."""

    def tensors(self, raw: Sequence[Array]) -> dict[str, Array]:
        """Canonical output tensors from the engine's answers."""
        return {name: raw[place] if read is None else read(raw[place]) for name, (place, read) in self.readers.items()}


def direct_call(session: Session) -> DirectCall:
    """The session's own call, or its checked one where it has no other."""
    if is_direct(session):
        return session.call
    names = [info.name for info in session.outputs]

    def call(fed: dict[str, Array]) -> Sequence[Array]:
        answers = session.run(fed)
        return [answers[name] for name in names]

    return call


def _passing(predictor: Predictor) -> Sequence[Chain]:
    """The chains by which arrays of some shapes go through all steps unchanged; none unless all are such."""
    preprocess = predictor.preprocess
    passing = [chain for chain in preprocess.chains if all(op_of(step) in _SHAPE_ONLY for step in chain.kept)]
    sources = {chain.source.name for chain in passing}
    is_alone = predictor.sequencer is None and not preprocess.constants and len(sources) == len(preprocess.chains)
    return passing if is_alone else ()


def _public(predictor: Predictor, chain: Chain) -> _Entry:
    # Steps that change nothing are told by the memory that they leave an array in, which quantised ones have left.
    given = batched_layout(chain.source)
    return _entry(predictor, chain.source.name, chain, chain.source.dtype, given, is_bare=not chain.kept)


def _canonical(predictor: Predictor, tensor: str) -> _Entry:
    chain = next((one for one in predictor.preprocess.chains if one.tensor == tensor), None)
    if chain is None:  # a constant
        return _Entry(tensor, tensor, *_file_tensor(predictor, tensor), {}, None)
    spec = predictor.release.tensors[tensor]
    return _entry(predictor, tensor, chain, spec.dtype, spec.layout, is_bare=True)


def _entry(
    predictor: Predictor, name: str, chain: Chain, dtype: str, layout: str | None, *, is_bare: bool
) -> _Entry:
    file_tensor, file_dtype = _file_tensor(predictor, chain.tensor)
    is_moved = bool(chain.layout and layout and chain.layout != layout)
    if chain.quantise is None or not is_bare or is_moved:
        return _Entry(name, chain.tensor, file_tensor, file_dtype, {}, None)
    return _Entry(name, chain.tensor, file_tensor, np.dtype(dtype), {}, chain.quantise)


def _file_tensor(predictor: Predictor, tensor: str) -> tuple[str, np.dtype[np.generic]]:
    info = predictor.file_inputs[tensor]
    return info.name, np.dtype(info.dtype)


def _gate(entries: Sequence[_Entry], record: Callable[[], Record]) -> Gate:
    return Gate(entries) if all(one.quantise is None for one in entries) else _QuantisingGate(entries, record)


def _is_same(given: Array, fed: Array) -> bool:
    """Whether both are the same numbers in the same memory, in the order that engines want."""
    return (
        given.flags.c_contiguous
        and fed.flags.c_contiguous
        and given.dtype == fed.dtype
        and given.size == fed.size
        and given.ctypes.data == fed.ctypes.data
    )
