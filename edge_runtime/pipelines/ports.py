"""What a pipeline asks of its sources, models and sinks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from edge_runtime.inference.backend import Array
from edge_runtime.inference.postprocessing.results import Answer
from edge_runtime.pipelines.records import Frame, Record, Unreadable
from edge_runtime.pipelines.statistics import Stage

Tell = Callable[[str], None]
"""Takes one line for a person: a source was lost, a sink refuses."""


class FrameSource(Protocol):
    """Where frames come from; used by one thread."""

    @property
    def left_early(self) -> bool:
        """Whether it was stopped before an end that it has: false for what goes on for ever."""

    def frames(self, stopping: threading.Event) -> Iterator[Frame | Unreadable]:
        """Frames until there are no more, or until `stopping` is set; what cannot be read is said, never raised."""

    def close(self) -> None:
        """Free what it holds; safe to repeat."""


class Asked(Protocol):
    """A model of the pipeline; any thread may ask."""

    def ask(self, picture: Array) -> Answer:
        """The answer to one picture, uint8 [H, W, 3] RGB; boxes in its pixels. Raises: InferenceError."""

    def ask_all(self, pictures: Sequence[Array]) -> list[Answer]:
        """The answers to several, in order, asked at once where the model takes a free number of pictures.

        Raises:
            InferenceError: of one of them; ask one by one to know which.
        """

    def close(self) -> None:
        """Free the engine's memory."""


class RecordSink(Protocol):
    """Where records go; used by one thread."""

    def deliver(self, record: Record) -> bool | None:
        """Hand one record on; False: it was left out, as the sink's table says, and does not count as delivered.

        Raises:
            EdgeError: the record is lost, the next one may fare better.
        """

    def close(self) -> None:
        """Finish what is under way (files, messages). Raises: EdgeError when something was lost on the way."""


@runtime_checkable
class LaterSink(RecordSink, Protocol):
    """A sink that takes records at once and delivers them in a thread of its own."""

    def begin(self, stage: Stage) -> None:
        """Before the first record: what becomes of each is counted there, and not when it was taken."""
