"""What one call hands to the next: tensors that leave a graph and enter it again, and the rules of their sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec
import numpy as np

from edge_runtime.contract.errors import ContractError, InferenceError, UnsupportedFeature
from edge_runtime.contract.ids import shown
from edge_runtime.contract.release import ReleaseManifest, StateSpec, VariantManifest
from edge_runtime.contract.sound_steps import Frame
from edge_runtime.contract.steps import PreStep
from edge_runtime.inference.backend import Array, Tensors

SESSIONS_MAX: Final = 64
"""Sessions at a time where the release does not say."""
_STATE_NUMBERS_MAX: Final = 1 << 24
_BATCH: Final = "N"


class Stored(msgspec.Struct, frozen=True):
    """How a file stores a state: real = (stored − zero_point) · scale, or as it is."""

    dtype: str
    scale: float | None = None
    zero_point: int = 0

    def real(self, stored: Array) -> Array:
        """The real numbers."""
        if self.scale is None:
            return stored
        real: Array = (stored.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        return real

    def stored(self, real: Array) -> Array:
        """Real numbers as the file has them, rounded half to even."""
        if self.scale is None:
            return real.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        rounded: Array = np.clip(np.rint(real / self.scale) + self.zero_point, limits.min, limits.max)
        return rounded.astype(self.dtype)


class GraphState(msgspec.Struct, frozen=True):
    """A tensor that a model gives back to itself."""

    name: str
    takes: str
    """Canonical input tensor."""
    gives: str
    """Canonical output tensor."""
    shape: tuple[int, ...]
    """Of one session."""
    enters: Stored
    """How the file takes it."""
    leaves: Stored
    """How the file gives it."""

    def initial(self) -> Array:
        """The state of a session that heard nothing yet."""
        return np.full(self.shape, self.enters.zero_point, np.dtype(self.enters.dtype))

    def again(self, given: Array) -> Array:
        """What the file gave, as it takes it: the same, unless it stores the two otherwise."""
        return given if self.enters == self.leaves else self.enters.stored(self.leaves.real(given))


class Memory:
    """The states of one session; whoever owns the session owns them."""

    __slots__ = ("_states", "tensors")

    def __init__(self, states: tuple[GraphState, ...]) -> None:
        self._states = states
        self.tensors: dict[str, Array] = {}
        """By canonical input tensor, ready for the next call."""
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.tensors = {state.takes: state.initial() for state in self._states}

    def keep(self, outputs: Tensors) -> dict[str, Array]:
        """Take the states out of what a call gave back; what remains is for the caller.

        Raises:
            InferenceError: a state came back in another shape.
        """
        kept = dict(outputs)
        for state in self._states:
            array = kept.pop(state.gives)
            if array.shape != state.shape:
                because = f"state {state.name} came back with shape {list(array.shape)}, not {list(state.shape)}"
                raise InferenceError("carry a state to the next call", because, "convert the model again")
            self.tensors[state.takes] = state.again(array)
        return kept


class StreamRules(msgspec.Struct, frozen=True):
    """How an endless input is cut into sessions, and what becomes of them."""

    unit: Literal["frame", "row"]
    """What one step of a session is: a frame of the sound, or a row of the inputs."""
    gap_s: float | None
    """A hole in the input from which on nothing is remembered; None: holes do not matter."""
    idle_s: float | None
    """A session that nobody asked for so long has ended; None: sessions end only when told."""
    max_sessions: int
    on_swap: Literal["drain", "reset"]
    """What a session does when another version takes over: stay with its own until it ends, or begin anew."""


def compile_rules(release: ReleaseManifest, steps: Mapping[str, tuple[PreStep, ...]]) -> StreamRules:
    """The rules of a sequential release's sessions.

    Args:
        release: whose `states` and `stream` are meant.
        steps: its preprocessing, by canonical tensor.

    Raises:
        UnsupportedFeature: a rule that this runtime does not know.
        ContractError: the rules do not fit together.
    """
    what = f"run model {shown(release.name)}"
    framed = any(isinstance(step, Frame) for chain in steps.values() for step in chain)
    stream = release.stream
    if stream is None:
        return StreamRules("frame" if framed else "row", None, None, SESSIONS_MAX, "drain")
    unit, on_swap = _UNITS.get(stream.unit), _ON_SWAP.get(stream.on_swap)
    if unit is None or on_swap is None or stream.session not in _SESSION or not _RESETS.issuperset(stream.reset):
        because = (
            f"its stream has unit {shown(stream.unit)}, session {shown(stream.session)}, "
            f"reset {shown(stream.reset)}, on_swap {shown(stream.on_swap)}"
        )
        raise UnsupportedFeature(what, because, "update the runtime")
    if unit == "frame" and not framed:
        raise ContractError(what, "its stream counts frames, and no step makes any", "add a frame step, or write row")
    if "gap" in stream.reset and not stream.gap_ms:
        raise ContractError(what, "its stream resets after a gap of no length", "write gap_ms")
    most = SESSIONS_MAX if stream.max_sessions is None else stream.max_sessions
    if most < 1 or min(stream.gap_ms or 0, stream.idle_ms or 0) < 0:
        raise ContractError(what, "its stream has a negative time, or no session at all")
    gap_s = stream.gap_ms / 1000 if stream.gap_ms and "gap" in stream.reset else None
    return StreamRules(unit, gap_s, stream.idle_ms / 1000 if stream.idle_ms else None, most, on_swap)


def compile_states(
    release: ReleaseManifest, steps: Mapping[str, tuple[PreStep, ...]], variant: VariantManifest | None = None
) -> tuple[GraphState, ...]:
    """The states that a release's graph takes and gives.

    Args:
        release: whose states are meant.
        steps: its preprocessing by canonical tensor; states of steps are checked against it.
        variant: whose file carries them; None: the source model's.

    Raises:
        UnsupportedFeature: a state that does not begin with zeros, or with an axis that has no size.
        ContractError: a state without one of its tensors, or whose two tensors differ.
    """
    found: list[GraphState] = []
    for spec in release.states:
        what = f"carry state {shown(spec.name)}"
        if spec.init != "zeros":
            raise UnsupportedFeature(what, f"it begins with {shown(spec.init)}", "update the runtime")
        if spec.of_step is not None:
            _check_step_state(spec, steps)
        elif spec.in_ is None or spec.out is None or spec.dtype is None:
            raise ContractError(what, "it does not say in, out and dtype", "write all three, or of_step")
        else:
            shape = _shape(spec)
            plain = Stored(spec.dtype)
            enters, leaves = _stored(spec, variant) if variant else (plain, plain)
            found.append(GraphState(spec.name, spec.in_, spec.out, shape, enters, leaves))
    names = [state.takes for state in found] + [state.gives for state in found]
    if len(set(names)) != len(names):
        raise ContractError(f"run model {shown(release.name)}", "two of its states share a tensor")
    return tuple(found)


def _check_step_state(spec: StateSpec, steps: Mapping[str, tuple[PreStep, ...]]) -> None:
    for chain in steps.values():
        for step in chain:
            if step.id == spec.of_step and isinstance(step, Frame):
                return
    because = f"there is no frame step of id {shown(spec.of_step)}"
    raise ContractError(f"carry state {shown(spec.name)}", because, "name the step whose samples it keeps")


def _shape(spec: StateSpec) -> tuple[int, ...]:
    sizes = [1 if size == _BATCH else size for size in spec.shape]
    numbers = [size for size in sizes if isinstance(size, int) and size > 0]
    if len(numbers) != len(sizes):
        because = f"its shape is {shown(spec.shape)}; only the batch axis N may vary"
        raise UnsupportedFeature(f"carry state {shown(spec.name)}", because, "write its sizes")
    total = 1
    for size in numbers:
        total *= size
    if total > _STATE_NUMBERS_MAX:
        raise ContractError(f"carry state {shown(spec.name)}", f"it has {total} numbers, over {_STATE_NUMBERS_MAX}")
    return tuple(numbers)


def _stored(spec: StateSpec, variant: VariantManifest) -> tuple[Stored, Stored]:
    takes, gives = variant.io.inputs.get(str(spec.in_)), variant.io.outputs.get(str(spec.out))
    what = f"carry state {shown(spec.name)}"
    if takes is None or gives is None:
        raise ContractError(what, f"variant {variant.id} does not say what carries {spec.in_} and {spec.out}")
    if takes.layout != gives.layout or any(one.scale is None and one.dtype != spec.dtype for one in (takes, gives)):
        because = f"in variant {variant.id} it leaves as {gives.dtype} and enters as {takes.dtype}, or with other axes"
        raise ContractError(what, because, "a state goes back as it came: convert the model again")
    enters, leaves = (Stored(one.dtype, one.scale, one.zero_point or 0) for one in (takes, gives))
    return enters, leaves


_UNITS: Final[Mapping[str, Literal["frame", "row"]]] = {"frame": "frame", "row": "row"}
_ON_SWAP: Final[Mapping[str, Literal["drain", "reset"]]] = {"drain": "drain", "reset": "reset"}
_SESSION: Final = frozenset({"required"})
_RESETS: Final = frozenset({"session_start", "gap"})
