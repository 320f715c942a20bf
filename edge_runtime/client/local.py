"""A client of the local door: tensors in shared memory where both sides can, else in the socket's stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar, final

from edge_runtime.client import frames
from edge_runtime.client.buffers import SharedBuffers
from edge_runtime.client.errors import Refused, ServerGone
from edge_runtime.client.exchange import Exchange, Question
from edge_runtime.client.frames import Kind
from edge_runtime.client.local_connection import LocalConnection
from edge_runtime.client.model import (
    Answer,
    Inputs,
    ModelDescription,
    Step,
    TensorDescription,
    as_priority,
    time_left_us,
    wanted_names,
)
from edge_runtime.client.pool import Pool

T = TypeVar("T")


@final
class LocalClient:
    """Asks models through a Unix socket; any number of threads may use it, each call has a connection for itself.

    Args:
        path: of the door's socket.
        shared_memory: whether to share memory where the door grants it.
        patience_s: how long to wait for any one answer.

    Raises:
        TransportError: there is no door, or it is of another version.
        Refused: the door does not let this process in.
    """

    def __init__(self, path: str, *, shared_memory: bool = True, patience_s: float = 60.0) -> None:
        def open_one() -> Exchange:
            return Exchange(LocalConnection(path, patience_s), shares_memory=shared_memory)

        self._pool = Pool(open_one)
        # The first one is opened at once: whoever is not let in must hear of it here.
        self._pool.give_back(open_one())

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
        """Ask a model, as `Client.infer`."""
        wanted = wanted_names(outputs)
        question = Question(model, version, wanted, time_left_us(deadline_s), as_priority(priority), step)
        # A step of a sequence is never sent twice: the model's state would move twice.
        return self._with_one(lambda one: one.infer(question, inputs), may_repeat=step is None)

    def describe(self, model: str, version: str = "") -> ModelDescription:
        """What a model takes and gives. Raises: Refused, TransportError."""
        return self._with_one(lambda one: _describe(one.connection, model, version))

    def models(self) -> list[tuple[str, str, str]]:
        """Name, version and state of every model that is served. Raises: Refused, TransportError."""
        return self._with_one(lambda one: frames.unpack_listing(one.connection.ask(Kind.LIST, b"").head))

    @contextmanager
    def buffers(
        self, model: str, shapes: Mapping[str, tuple[int, ...]] | None = None, *, version: str = ""
    ) -> Iterator[SharedBuffers]:
        """Memory that the model reads its inputs from: fill it in place, ask, look at the answer in place.

        Args:
            model: name of the model.
            shapes: of inputs by name; needed where a size may vary. Inputs named here are those given, so a client that
                prepares the canonical tensors itself names all of them; None: all inputs of the description.
            version: as `infer`.

        Raises:
            BadRequest: a size is missing, or the door shares no memory.
            Refused, TransportError: as `infer`.
        """
        described = self.describe(model, version)
        exchange = self._pool.open()
        try:
            made = SharedBuffers(exchange.connection, described, shapes or {}, version)
            try:
                yield made
            finally:
                made.close()
        finally:
            exchange.close()

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    def __enter__(self) -> LocalClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _with_one(self, act: Callable[[Exchange], T], *, may_repeat: bool = True) -> T:
        exchange, is_used = self._pool.take()
        try:
            return self._try(exchange, act)
        except ServerGone:
            if not (is_used and may_repeat):
                raise
        # Started again since the last call, most likely.
        return self._try(self._pool.open(), act)

    def _try(self, exchange: Exchange, act: Callable[[Exchange], T]) -> T:
        try:
            found = act(exchange)
        except Refused:
            self._pool.give_back(exchange)
            raise
        except BaseException:
            # Nobody knows what comes next on it.
            exchange.close()
            raise
        self._pool.give_back(exchange)
        return found


def _describe(connection: LocalConnection, model: str, version: str) -> ModelDescription:
    told = frames.unpack_description(connection.ask(Kind.DESCRIBE, frames.pack_name(model, version)).head)
    inputs, outputs = (
        tuple(TensorDescription(one.name, one.dtype, one.shape) for one in records)
        for records in (told.inputs, told.outputs)
    )
    return ModelDescription(told.model, told.version, inputs, outputs)
