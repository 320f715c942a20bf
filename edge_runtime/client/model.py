"""What every client offers, whatever it speaks: questions, answers, and what a model takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy.typing as npt

from edge_runtime.client.errors import BadRequest, too_late
from edge_runtime.contract.ids import shown

if TYPE_CHECKING:
    from typing import Self  # from Python 3.11 on

_FAR_S: Final = 1e9
"""A deadline beyond thirty years is none: no count of microseconds of any door holds every float."""

MIDDLE_LEVEL: Final = 10
"""The v2 protocol counts priorities from 1, the most urgent; our 0 is its level when none is named."""
_PRIORITIES: Final = 1 << 31

Array = npt.NDArray[Any]
"""An array whose dtype and shape its docstring states."""

Values = Array | list[bytes]
"""An array, or BYTES: one element per sample (an encoded picture going in, a JSON document coming out)."""

Inputs = Mapping[str, Array | Sequence[bytes] | bytes]
"""All inputs of a model, by name; bytes alone are one sample."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where a call stands in a sequence of a stateful model."""

    sequence: str
    """Chosen by the caller; the model's state is kept under it from call to call."""
    first: bool = False
    last: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered; `answer["name"]` is one of its outputs."""

    tensors: Mapping[str, Values]
    """By output name, in the server's order."""
    model: str
    version: str
    """Of the model that answered: all tensors come from it."""

    def __getitem__(self, name: str) -> Values:
        return self.tensors[name]


@dataclass(frozen=True, slots=True)
class TensorDescription:
    """One input or output of a model."""

    name: str
    dtype: str
    """numpy name, or `bytes`."""
    shape: tuple[int, ...]
    """−1 for a size that may vary."""


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """What a model takes and gives."""

    name: str
    version: str
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]


def time_left_us(deadline_s: float | None) -> int:
    """Microseconds until a deadline as every door counts them; 0: there is none. Raises: TooLate."""
    if deadline_s is None or deadline_s > _FAR_S:
        return 0
    if not deadline_s > 0:  # NaN as well
        raise too_late()
    return max(1, int(deadline_s * 1e6))


def as_priority(priority: int) -> int:
    """A priority as every door can tell it. Raises: BadRequest: it is no whole number of 32 bits."""
    try:
        whole = index(priority)
    except TypeError:
        whole = None
    if whole is None or not -_PRIORITIES <= whole < _PRIORITIES:
        because = f"priority is {shown(priority)}"
        raise BadRequest("ask a model", because, "use a whole number of 32 bits", code="bad_input")
    return min(whole, MIDDLE_LEVEL - 1)


def wanted_names(outputs: Iterable[str] | None) -> tuple[str, ...]:
    """Names of wanted outputs; none: those that the model gives by default. Raises: BadRequest: they are one text."""
    if isinstance(outputs, str | bytes):
        raise BadRequest("give the outputs", "their names are one text", f"give a list: [{outputs!r}]")
    return tuple(outputs) if outputs is not None else ()


class Client(Protocol):
    """A connection to a server of models; any number of threads may use it at once."""

    def infer(
        self,
        model: str,
        inputs: Inputs,
        outputs: Iterable[str] | None = None,
        deadline_s: float | None = None,
        *,
        version: str = "",
        priority: int = 0,
        step: Step | None = None,
    ) -> Answer:
        """Ask a model; the answer owns its memory.

        Args:
            model: name of the model.
            inputs: arrays or BYTES by input name.
            outputs: wanted outputs; None: those that the model gives by default.
            deadline_s: seconds from now by which the model must have begun; None: whenever it can.
            version: exactly this one; empty: the one in front, across every swap.
            priority: a higher one is answered earlier when calls wait; from 9 on all are alike.
            step: place in a sequence, for stateful models.

        Raises:
            Refused: the server says why it has no answer (`BadRequest`, `ModelNotServed`, `TooLate`, `Busy`).
            TransportError: there was no answer (`ServerGone`, `NoAnswerInTime`, `NotUnderstood`).
        """

    def describe(self, model: str, version: str = "") -> ModelDescription:
        """What a model takes and gives. Raises: as `infer`."""

    def close(self) -> None:
        """Close every connection; calls under way may fail."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
