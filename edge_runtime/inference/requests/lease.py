"""Memory that an application fills and reads in place: no array is made and nothing is copied from call to call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import TYPE_CHECKING, NoReturn, cast, final

import numpy as np

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.contract.tensor import AxisRange
from edge_runtime.inference.backend import Array, Binding, Session, is_direct
from edge_runtime.inference.blame import BadInput, blame_engine, blame_question
from edge_runtime.inference.predictor import Predictor
from edge_runtime.inference.preprocessing.preprocess import Inputs
from edge_runtime.inference.preprocessing.values import check_named, longest
from edge_runtime.inference.requests.accounting import Accounting, fail
from edge_runtime.inference.requests.admission import Admission
from edge_runtime.inference.requests.refusals import Overloaded

if TYPE_CHECKING:
    from edge_runtime.inference.requests.finite import FiniteCheck

_Axes = tuple[tuple[str, int], ...]


@final
class Lease:
    """One set of buffers, for one caller at a time until it is given back; what `run` returns lasts until the next run.

    Given back it refuses whatever it is asked for. Arrays that were taken from it cannot be called back: they share
    their memory with the next lease.

    The inputs have the dtype and layout that the variant's file takes: for a model without preprocessing those of its
    public inputs, else `fill` prepares public inputs into them.
    """

    __slots__ = (
        "_admission", "_binding", "_check", "_keeps_outputs", "_last", "_outputs", "_predictor", "_readers", "_record",
        "_samples", "inputs",
    )  # fmt: skip

    def __init__(
        self,
        binding: Binding,
        predictor: Predictor,
        admission: Admission,
        accounting: Accounting,
        check: FiniteCheck | None = None,
    ) -> None:
        buffers = {name: binding.inputs[info.name] for name, info in predictor.file_inputs.items()}
        for name, array in predictor.preprocess.constants.items():
            np.copyto(buffers.pop(name), array)
        self.inputs: Mapping[str, Array] = buffers
        """Buffers to fill, by canonical tensor name; what the release feeds with a constant is filled already."""
        self._check = check
        self._binding = binding
        self._predictor = predictor
        self._admission = admission
        self._record = accounting.record
        self._samples = longest(self.inputs)
        self._readers = {name: (info.name, predictor.readers[name]) for name, info in predictor.file_outputs.items()}
        self._keeps_outputs = all(read is None for _, read in self._readers.values())
        self._last: Mapping[str, Array] | None = None
        self._outputs: Mapping[str, Array] = {}

    def fill(self, inputs: Inputs) -> None:
        """Prepare public inputs into the buffers. Raises: BadInput, also where they have other sizes than those."""
        try:
            check_named(inputs)
            feeds = self._predictor.preprocess(inputs)
        except BaseException as error:  # noqa: BLE001 - raised again
            blame_question(error)
        for name, buffer in self.inputs.items():
            array = feeds[name]
            if array.shape != buffer.shape:
                raise BadInput(
                    f"fill tensor {shown(name)}",
                    f"it has shape {list(array.shape)}, the buffer {list(buffer.shape)}",
                    "lease with the axes that the inputs have",
                )
            np.copyto(buffer, array)

    def run(self, *, deadline: float | None = None, priority: int = 0) -> Mapping[str, Array]:
        """Ask the model about what the buffers hold now: canonical output tensors, valid until the next run.

        Raises:
            Refused: the deadline passed, too many wait, or the model was closed.
            EngineFault: the engine failed.
            InferenceError: there is not enough memory.
        """
        self._admission.enter(deadline, priority)
        try:
            if self._check is not None:
                self._check(self.inputs, self._record())
            began = perf_counter_ns()
            answers = self._binding.run()
            ended = perf_counter_ns()
        except BaseException as error:  # noqa: BLE001 - raised again
            fail(self._record(), blame_engine, error)
        finally:
            self._admission.give_back(None)
            if self._admission.is_awaited:
                self._admission.settle()
        self._record().answered(ended - began, self._samples)
        if answers is self._last:
            return self._outputs  # the very arrays of the last run, written anew
        outputs = {
            name: answers[file] if read is None else read(answers[file]) for name, (file, read) in self._readers.items()
        }
        if self._keeps_outputs:
            self._last, self._outputs = answers, outputs
        return outputs

    def end(self) -> Lease:
        """Take the buffers from whoever leased them, for the next one: the same under another name."""
        successor = Lease.__new__(Lease)
        for name in Lease.__slots__:
            setattr(successor, name, getattr(self, name))
        self.inputs = gone = _GivenBack()
        self._admission = cast("Admission", gone)
        return successor


@final
class _GivenBack(Mapping[str, Array]):
    """What remains of a lease that has ended: a sentence, where the numbers of another caller would stand."""

    def __getitem__(self, name: str) -> NoReturn:
        raise _given_back()

    def __iter__(self) -> NoReturn:
        raise _given_back()

    def __len__(self) -> NoReturn:
        raise _given_back()

    def enter(self, deadline: float | None, priority: int) -> NoReturn:  # noqa: ARG002 (as `Admission.enter`)
        raise _given_back()


def _given_back() -> InferenceError:
    because = "they were given back and may be another caller's by now"
    return InferenceError("use leased buffers", because, "stay inside the with block of lease()")


@final
class LeasePool:
    """The buffers of one model; made when first wanted, kept for the next caller.

    Args:
        predictor: the loaded variant.
        admission: in which every run waits for its turn.
        accounting: where runs are counted.
        check: the model's NaN policy; None: nothing is looked at.
    """

    def __init__(
        self, predictor: Predictor, admission: Admission, accounting: Accounting, check: FiniteCheck | None = None
    ) -> None:
        self._predictor = predictor
        self._admission = admission
        self._accounting = accounting
        self._check = check
        self._lock = threading.Lock()
        self._free: list[tuple[_Axes, Lease]] = []
        """The one given back last stands last."""
        self._is_open = True
        self._out = 0

    def take(self, axes: Mapping[str, int]) -> tuple[_Axes, Lease]:
        """Buffers whose dynamic axes have these sizes (the smallest allowed where one is not named).

        Raises:
            Overloaded: as many are out as requests may run and wait.
            InferenceError: no such axis, a size that it does not allow, or no memory.
        """
        key = tuple(sorted(axes.items()))
        most = self._admission.slots + self._admission.queue_limit
        with self._lock:
            if self._out >= most:
                raise Overloaded(self._out, 1.0)
            self._out += 1
            for place in reversed(range(len(self._free))):
                if self._free[place][0] == key:
                    return self._free.pop(place)
        try:
            return key, self._made(axes)
        except BaseException:
            self._counted_back()
            raise

    def give_back(self, key: _Axes, lease: Lease) -> None:
        """Keep the buffers for the next caller: as many as calls may run, of whatever sizes, the latest ones."""
        successor = lease.end()
        with self._lock:
            self._out -= 1
            if self._is_open:
                self._free.append((key, successor))
                del self._free[: -self._admission.slots]

    def clear(self) -> None:
        """Forget all buffers, those that are out when they come back."""
        with self._lock:
            self._is_open = False
            self._free.clear()

    def _counted_back(self) -> None:
        with self._lock:
            self._out -= 1

    def _made(self, axes: Mapping[str, int]) -> Lease:
        if self._predictor.sequencer is not None:
            because = "the model remembers, and buffers belong to no stream"
            raise InferenceError("lease buffers", because, "start a session (start_session)")
        shapes = buffer_shapes(self._predictor, axes)
        session = self._predictor.session
        binding = session.bind(shapes) if is_direct(session) else CopiedBinding(session, shapes)
        return Lease(binding, self._predictor, self._admission, self._accounting, self._check)


class CopiedBinding:
    """Buffers for a session that cannot be bound to memory: each run copies them in."""

    def __init__(self, session: Session, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._session = session
        self.inputs = {info.name: np.zeros(shapes[info.name], info.dtype) for info in session.inputs}

    def run(self) -> Mapping[str, Array]:
        """As `Binding.run`."""
        return self._session.run(self.inputs)


def zero_run(predictor: Predictor) -> Callable[[], int]:
    """Asks the engine about zeros, as few as the signature allows; nanoseconds that this took."""
    shapes = buffer_shapes(predictor, {})
    zeros = {name: np.zeros(shapes[info.name], info.dtype) for name, info in predictor.file_inputs.items()}
    feeds = {**zeros, **predictor.preprocess.constants}

    def run() -> int:
        began = perf_counter_ns()
        predictor.run_once(feeds)
        return perf_counter_ns() - began

    return run


def buffer_shapes(predictor: Predictor, axes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Shapes of the file's inputs when the named dynamic axes have these sizes, by file tensor name.

    Raises:
        InferenceError: no such axis, or a size that the signature does not allow.
    """
    ranges = predictor.release.signature.axes
    for axis, size in axes.items():
        bounds = ranges.get(axis)
        if size < 1 or (bounds is not None and not bounds.min <= size <= bounds.max):
            raise InferenceError(f"lease buffers with axis {shown(axis)} = {size}", "the model does not allow it")
    states = {state.takes: state for state in predictor.sequencer.states} if predictor.sequencer else {}
    shapes: dict[str, tuple[int, ...]] = {}
    known: set[str] = set()
    for name, info in predictor.file_inputs.items():
        if name in states:
            shapes[info.name] = states[name].shape
            continue
        spec, binding = predictor.release.tensors[name], predictor.variant.io.inputs[name]
        named = list(spec.shape)
        if spec.layout and binding.layout and len(binding.layout) == len(spec.layout) == len(named):
            named = [spec.shape[spec.layout.index(axis)] for axis in binding.layout]
        known |= {size for size in named if isinstance(size, str)}
        shapes[info.name] = tuple(
            fixed if fixed is not None else _size_of(wanted, axes, ranges)
            for fixed, wanted in zip(info.shape, named, strict=True)
        )
    if unknown := sorted(axes.keys() - known):
        raise InferenceError(
            f"lease buffers with axis {shown(unknown[0])}", "no input has it", f"it has {', '.join(sorted(known))}"
        )
    return shapes


def _size_of(wanted: int | str, axes: Mapping[str, int], ranges: Mapping[str, AxisRange]) -> int:
    if isinstance(wanted, int):
        return wanted
    if wanted in axes:
        return axes[wanted]
    return max(1, ranges[wanted].min) if wanted in ranges else 1
