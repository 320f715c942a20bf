"""An endless sound, given in pieces of any size, becomes the same rows that the whole sound would become.

Samples wait until a frame is full, and each frame is prepared alone: how the sound was cut cannot be heard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.sound_steps import Amplitude, Frame, Mono, Resample, Stack
from edge_runtime.contract.steps import PreStep, op_of
from edge_runtime.contract.tensor import AxisRange, InputSpec
from edge_runtime.inference.backend import Array, Tensors
from edge_runtime.inference.preprocessing.audio_steps import centred_reach
from edge_runtime.inference.preprocessing.preprocess import Chain, Preprocessor, compile_steps
from edge_runtime.inference.preprocessing.values import Step, Value, check_dtype, plain_array, with_batch


@dataclass(frozen=True, slots=True)
class Framing:
    """How the one sound input of a streaming release becomes rows of a canonical tensor."""

    chain: Chain
    frame: Frame
    centred: tuple[int, int]
    """Samples that a centred transform looks at before the first sample and after the last."""
    stack: Stack | None
    rate_hz: int
    _axes: tuple[int, tuple[int, ...]]
    """Of a piece: how many, and its channels where they have an axis of their own."""
    _sample_steps: tuple[Step, ...]
    _frame_steps: tuple[Step, ...]
    _stacked_steps: tuple[Step, ...]

    @property
    def source(self) -> InputSpec:
        """The public input that carries the sound."""
        return self.chain.source

    @property
    def step_s(self) -> float:
        """Seconds from one row to the next."""
        return self.frame.hop * (self.stack.hop if self.stack else 1) / self.rate_hz

    @property
    def row_samples(self) -> int:
        """Samples from which a stream has its first row."""
        frames = self.stack.frames if self.stack else 1
        return self.frame.length + (frames - 1) * self.frame.hop + self.centred[1]

    def piece(self, given: Array | bytes) -> Array:
        """A piece of the sound as a caller gives it, [T] or [T, C]; an axis of one sample before it is dropped.

        Raises:
            InferenceError: another dtype or shape, or bytes of no accepted encoding.
        """
        if isinstance(given, bytes):
            from edge_runtime.inference.preprocessing.wav import decode_audio

            return decode_audio(given, self.source)
        given = plain_array(given, f"input {self.source.name}")
        check_dtype(given, self.source.dtype, self.source)
        axes, channels = self._axes
        array: Array = given[0] if given.ndim == axes + 1 and len(given) == 1 else given
        if array.ndim != axes or array.shape[1:] != channels:
            because = f"its shape is {list(given.shape)}, a piece of {self.source.shape} was expected"
            raise InferenceError(f"take input {self.source.name}", because, "give samples over time")
        return array

    def sounds(self, decoded: Tensors, axes: Mapping[str, AxisRange]) -> Array:
        """Whole sounds after `decode`, [N, T] or [N, T, C]; the batch axis may be missing. Raises: InferenceError."""
        given = decoded[self.source.name]
        check_dtype(given, self.source.dtype, self.source)
        return with_batch(given, self.source, axes, None)

    def samples(self, piece: Array) -> Array:
        """A piece of the sound, [T] or [T, C], as float32 [T] samples of one channel."""
        layout = "NTC" if piece.ndim == 2 else "NT"
        value = Value(piece[None], layout, None, self.source.sample_rate_hz)
        for step in self._sample_steps:
            value = step(value)
        if value.layout != "NT":
            because = f"it works on one channel over time (NT), not on {value.layout}"
            raise ContractError(f"run preprocess step frame ({self.frame.id})", because)
        mono: Array = value.array[0].astype(np.float32, copy=False)
        return mono

    def prepared(self, frame: Array) -> Value:
        """Features of one frame, float32 [context + length] to [1, 1, features]."""
        value = Value(frame[None, None].astype(np.float32), "NTC", None, self.rate_hz)
        for step in self._frame_steps:
            value = step(value)
        return value

    def finished(self, frames: list[Value]) -> Array:
        """One row of the canonical tensor, as the file takes it, from as many frames as make one."""
        value = frames[0]
        if self.stack is not None:
            joined = np.concatenate([one.array for one in frames], axis=1)
            value = Value(joined, value.layout, None, self.rate_hz)
            for step in self._stacked_steps:
                value = step(value)
        return self.chain.finish(value)


def compile_framing(preprocess: Preprocessor) -> Framing | None:
    """The front end of a release whose sessions hear sound; None when its sessions count rows, or it has none.

    Raises:
        UnsupportedFeature: more than one input, or a step that must know the whole sound.
        ContractError: the sound has no sample rate.
    """
    if preprocess.rules is None or preprocess.rules.unit != "frame":
        return None
    if len(preprocess.chains) != 1:
        raise UnsupportedFeature("hear a stream", f"the model takes {len(preprocess.chains)} inputs", "give it one")
    (chain,) = preprocess.chains
    steps = chain.kept
    place = next((number for number, step in enumerate(steps) if isinstance(step, Frame)), None)
    if place is None:
        raise ContractError("hear a stream", "its variant absorbs the frame step", "leave frames to the runtime")
    frame = steps[place]
    assert isinstance(frame, Frame)
    for step in steps[:place]:
        _check_by_sample(step)
    if chain.source.sample_rate_hz is None:
        raise ContractError("hear a stream", f"input {shown(chain.source.name)} does not say its sample rate")
    following = steps[place + 1] if place + 1 < len(steps) else None
    cut = next((number for number, step in enumerate(steps) if isinstance(step, Stack)), len(steps))
    stack = steps[cut] if cut < len(steps) else None
    return Framing(
        chain,
        frame,
        centred_reach(frame, following),
        stack if isinstance(stack, Stack) else None,
        chain.source.sample_rate_hz,
        _axes(chain.source),
        compile_steps(steps[:place]),
        compile_steps(steps[place + 1 : cut]),
        compile_steps(steps[cut:]),
    )


def _axes(source: InputSpec) -> tuple[int, tuple[int, ...]]:
    shape = [size for size in source.shape if size != "N"]
    channels = tuple(size for size in shape[1:] if isinstance(size, int))
    if not shape or len(channels) != len(shape) - 1:
        because = f"input {shown(source.name)} has shape {shown(source.shape)}"
        raise ContractError("hear a stream", because, "write T, or T and the channels")
    return len(shape), channels


def _check_by_sample(step: PreStep) -> None:
    """Refuse what cannot be done to a piece of a sound without knowing the rest of it."""
    if isinstance(step, Mono) or (isinstance(step, Amplitude) and step.mode in {"none", "int16_to_unit"}):
        return
    op = f"{op_of(step)} ({step.id})"
    remedy = "give the stream in the model's own rate" if isinstance(step, Resample) else "use it on whole sounds only"
    raise UnsupportedFeature("hear a stream", f"step {op} must know the whole sound", remedy)


class FrameBuffer:
    """The samples and frames of one stream that still wait for what comes after them."""

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._length = framing.frame.context + framing.frame.length
        self._frames: deque[Value] = deque(maxlen=framing.stack.frames if framing.stack else 1)
        self.reset()

    def reset(self) -> None:
        """Begin with silence before the first sample."""
        self._waiting = np.zeros(self._framing.frame.context, np.float32)
        self._first = 0
        """Where the next frame begins among the waiting samples."""
        self._heard = 0
        self._needs_lead = self._framing.centred[0] > 0
        self._frames.clear()
        self._until_row = self._framing.stack.frames if self._framing.stack else 1

    @property
    def heard(self) -> int:
        """Samples of the sound so far."""
        return self._heard

    def push(self, piece: Array) -> Iterator[Array]:
        """Rows that a piece of the sound, float32 [T], completes; each is one step of the model."""
        self._heard += len(piece)
        self._waiting = np.concatenate([self._waiting, piece])
        if self._needs_lead:
            lead, _ = self._framing.centred
            # A mirror image of the beginning needs the samples that are mirrored.
            if self._framing.frame.tail == "reflect" and len(self._waiting) <= lead:
                return
            self._waiting = self._padded(lead, 0)
            self._needs_lead = False
        yield from self._complete_rows()

    def finish(self) -> Iterator[Array]:
        """Rows of the samples that fill no frame, as the step's `tail` says.

        Raises:
            InferenceError: too few samples to reflect.
        """
        tail, after = self._framing.frame.tail, self._framing.centred[1]
        if tail == "drop" or not self._heard:
            return
        if not after:
            hop, total = self._framing.frame.hop, self._framing.frame.context + self._heard
            after = max(self._length - total, -(total - self._length) % hop)
        if self._needs_lead or (tail == "reflect" and len(self._waiting) <= after):
            because = f"{self._heard} samples are too few to reflect"
            raise InferenceError("end the stream", because, "give a longer one")
        self._waiting = self._padded(0, after)
        yield from self._complete_rows()

    def _padded(self, before: int, after: int) -> Array:
        if self._framing.frame.tail == "reflect":
            return np.pad(self._waiting, (before, after), mode="reflect")
        return np.pad(self._waiting, (before, after))

    def _complete_rows(self) -> Iterator[Array]:
        hop = self._framing.frame.hop
        while self._first + self._length <= len(self._waiting):
            frame = self._waiting[self._first : self._first + self._length]
            self._first += hop
            self._frames.append(self._framing.prepared(frame))
            self._until_row -= 1
            if self._until_row == 0:
                self._until_row = self._framing.stack.hop if self._framing.stack else 1
                yield self._framing.finished(list(self._frames))
        # As many samples stay as a mirrored tail may reach back.
        done = min(self._first, max(len(self._waiting) - max(hop, self._framing.centred[1] + 1), 0))
        self._waiting, self._first = self._waiting[done:], self._first - done
