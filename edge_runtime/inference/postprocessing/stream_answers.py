"""Answers about a stream: made from one step's tensors after the other, handed over as often as somebody asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edge_runtime.contract.answer_steps import Hysteresis, Score
from edge_runtime.contract.errors import InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.steps import PostStep, RawTensor, op_of
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.postprocessing.hysteresis import SegmentFinder, check_hysteresis
from edge_runtime.inference.postprocessing.results import Answer, Result, TensorAnswer
from edge_runtime.inference.postprocessing.stream_results import Segments, Track
from edge_runtime.inference.preprocessing.framing import Framing

_BUILT: Final = (Hysteresis, RawTensor, Score)


@dataclass(frozen=True, slots=True)
class StreamReader:
    """Compiled postprocessing of a release whose sessions hear sound."""

    steps: Mapping[str, PostStep]
    """By public output name."""
    framing: Framing
    shapes: Mapping[str, tuple[int, ...]]
    """Of one row of the tensors that are read, for answers before the first row."""

    def begin(self, offset_s: float = 0.0) -> Listener:
        """Answers to one stream, whose first sample stands at `offset_s`."""
        return Listener({name: self._part(step, offset_s) for name, step in self.steps.items()})

    def answers(self, tensors: Tensors, rows: int, decoded: Tensors | None) -> list[Answer]:
        """Answers to whole sounds of the same length, in order.

        Args:
            tensors: canonical output tensors [sounds · frames, …].
            rows: how many rows they have.
            decoded: the sounds after `decode`; None: one sound, as long as its frames.

        Raises:
            InferenceError: a score is not one number, or rows and sounds do not fit together.
        """
        count, heard_s = 1, rows * self.framing.step_s
        if decoded is not None:
            sounds = self.framing.sounds(decoded, {})
            count, heard_s = len(sounds), sounds.shape[1] / self.framing.rate_hz
        if rows % count:
            raise InferenceError("answer", f"the model gave {rows} rows for {count} sounds")
        answers = []
        for start in range(0, rows, rows // count):
            listener = self.begin()
            for row in range(start, start + rows // count):
                listener.push({name: array[row : row + 1] for name, array in tensors.items()})
            answers.append(listener.finish(heard_s))
        return answers

    def _part(self, step: PostStep, offset_s: float) -> _Part:
        step_s = self.framing.step_s
        match step:
            case Score():
                return _Scores(step.from_, offset_s, step_s)
            case Hysteresis():
                return _Pieces(step.from_, SegmentFinder(step, step_s, offset_s))
            case _:
                return _Rows(step.from_, self.shapes.get(step.from_, ()))


def compile_stream_reader(
    outputs: Mapping[str, Sequence[PostStep]], framing: Framing, shapes: Mapping[str, Sequence[int | str]]
) -> StreamReader:
    """Compile the postprocessing of a stream.

    Args:
        outputs: steps by public output name.
        framing: how the stream became rows.
        shapes: canonical shapes of tensors, with their batch axis.

    Raises:
        UnsupportedFeature: a step that says nothing about a stream.
        ContractError: segments that could overlap.
    """
    for name, steps in outputs.items():
        if len(steps) != 1 or not isinstance(steps[0], _BUILT):
            ops = ", ".join(op_of(step) for step in steps)
            because = f"a stream is answered by score, hysteresis or raw, not by {ops}"
            raise UnsupportedFeature(f"answer output {shown(name)}", because, "write one of them")
        if isinstance(steps[0], Hysteresis):
            check_hysteresis(steps[0])
    rows = {
        name: tuple(size if isinstance(size, int) else 0 for size in shape[1:]) for name, shape in shapes.items()
    }
    return StreamReader({name: steps[0] for name, steps in outputs.items()}, framing, rows)


@dataclass(frozen=True, slots=True)
class Listener:
    """Answers to one stream, as far as it was heard."""

    _parts: Mapping[str, _Part]

    def push(self, tensors: Tensors) -> None:
        """Take the outputs of one step in, each [1, …]. Raises: InferenceError: a score is not one number."""
        for part in self._parts.values():
            part.push(tensors[part.tensor])

    def take(self) -> Answer:
        """What became known since this was last asked."""
        return {name: part.take() for name, part in self._parts.items()}

    def restart(self, end_s: float, offset_s: float) -> None:
        """The stream ended at `end_s` and begins anew at `offset_s`; what ended stays to be taken."""
        for part in self._parts.values():
            part.restart(end_s, offset_s)

    def finish(self, end_s: float) -> Answer:
        """What is left when the stream ends, at `end_s` of its own time."""
        return {name: part.finish(end_s) for name, part in self._parts.items()}


@dataclass(slots=True)
class _Scores:
    tensor: str
    start_s: float
    step_s: float
    _count: int = 0
    _new: list[float] = field(default_factory=list)

    def push(self, row: Array) -> None:
        self._new.append(_number(row, self.tensor))

    def take(self) -> Result:
        start_s = self.start_s + self._count * self.step_s
        self._count += len(self._new)
        scores, self._new = np.asarray(self._new, np.float64), []
        return Track(scores, start_s, self.step_s)

    def restart(self, _: float, offset_s: float) -> None:
        self.start_s, self._count, self._new = offset_s, 0, []

    def finish(self, _: float) -> Result:
        return self.take()


@dataclass(slots=True)
class _Pieces:
    tensor: str
    _finder: SegmentFinder

    def push(self, row: Array) -> None:
        self._finder.push(_number(row, self.tensor))

    def take(self) -> Result:
        return Segments(self._finder.take(), self._finder.open_since_s)

    def restart(self, end_s: float, offset_s: float) -> None:
        self._finder.restart(end_s, offset_s)

    def finish(self, end_s: float) -> Result:
        self._finder.finish(end_s)
        return self.take()


@dataclass(slots=True)
class _Rows:
    tensor: str
    _shape: tuple[int, ...]
    _new: list[Array] = field(default_factory=list)

    def push(self, row: Array) -> None:
        self._new.append(row)

    def take(self) -> Result:
        rows, self._new = self._new, []
        return TensorAnswer(np.concatenate(rows) if rows else np.zeros((0, *self._shape), np.float32))

    def restart(self, _: float, __: float) -> None:
        self._new = []

    def finish(self, _: float) -> Result:
        return self.take()


_Part = _Scores | _Pieces | _Rows


def _number(row: Array, tensor: str) -> float:
    if row.size != 1:
        raise InferenceError("answer with a score", f"{shown(tensor)} has {row.size} numbers a frame instead of one")
    return float(row.ravel()[0])
