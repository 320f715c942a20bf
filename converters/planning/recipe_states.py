"""What a model hands from one call to the next, and what it is always given, as a recipe writes it; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from converters.planning.configuration import Table

Constant = bool | int | float


class StateRecipe(Table, frozen=True, kw_only=True):
    """An output of the model that is its input in the next call; it begins with zeros."""

    in_: str = msgspec.field(name="in")
    """Name of the model's input."""
    out: str
    """Name of the model's output."""
    shape: list[int | Literal["N"]] | None = None
    """Of one session, with N for the batch axis, where the model leaves more than one size open."""


class StreamRecipe(Table, frozen=True, kw_only=True):
    """How an endless input is cut into sessions."""

    unit: Literal["frame", "row"] | None = None
    """What one step is; None: a frame where the steps make frames, else a row of the inputs."""
    gap_ms: float | None = None
    """A hole in the input from which on nothing is remembered."""
    idle_ms: float | None = None
    """A session that nobody used for so long has ended."""
    max_sessions: int | None = None
    on_swap: Literal["drain", "reset"] = "drain"
    """When another version takes over: sessions stay with their own until they end, or begin anew."""


def state_problems(
    states: Mapping[str, StateRecipe], constants: Mapping[str, Constant], fed: list[str], read: list[str]
) -> Iterator[str]:
    """Everything that contradicts itself, in sentences.

    Args:
        states: by name.
        constants: by the model's input name.
        fed: the model's inputs that public inputs feed.
        read: the model's outputs that answers are made from.
    """
    taken = [*fed, *constants, *(state.in_ for state in states.values())]
    given = [state.out for state in states.values()]
    for name in sorted({one for one in taken if taken.count(one) > 1}):
        yield f"the model's input {name} is fed twice: by inputs, constants or states"
    for name in sorted({one for one in given if given.count(one) > 1}):
        yield f"the model's output {name} is two states"
    for name in sorted(set(read) & set(given)):
        yield f"the model's output {name} is a state, which sessions keep: no answer is made from it"


def stream_problems(stream: StreamRecipe | None) -> Iterator[str]:
    """Times and numbers that make no sense."""
    if stream is None:
        return
    for key, value in (("gap_ms", stream.gap_ms), ("idle_ms", stream.idle_ms), ("max_sessions", stream.max_sessions)):
        if value is not None and value <= 0:
            yield f"stream.{key} must be above 0"
