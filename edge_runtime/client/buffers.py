"""Shared memory that a caller fills in place: no tensor is copied between caller, server and engine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from edge_runtime.client import frames
from edge_runtime.client.errors import BadRequest
from edge_runtime.client.exchange import AnswerReader, described_places
from edge_runtime.client.frames import CallHead, Kind, Room, TensorRecord, aligned
from edge_runtime.client.local_connection import LocalConnection
from edge_runtime.client.model import Answer, Array, ModelDescription, as_priority, time_left_us
from edge_runtime.client.regions import OwnRegion

_ANSWER_ROOM = 64 * 1024


class SharedBuffers(Mapping[str, Array]):
    """Writable inputs of one model by name; one thread at a time, for as long as the `with` block lasts.

    Args:
        connection: used by nobody else meanwhile.
        described: the model.
        shapes: of inputs whose sizes vary; see `LocalClient.buffers`.
        version: exactly this one, or empty.

    Raises:
        BadRequest: a size is missing, or the door shares no memory.
        Refused, TransportError: as `Client.infer`.
    """

    def __init__(
        self,
        connection: LocalConnection,
        described: ModelDescription,
        shapes: Mapping[str, tuple[int, ...]],
        version: str,
    ) -> None:
        records, end = _layout(described, shapes)
        self._connection = connection
        self._region = OwnRegion(1, aligned(end + _answer_bytes(described)))
        try:
            connection.map(self._region)
        except BaseException:
            self._region.close()
            raise
        self._inputs = described_places(self._region, records)
        self._reader = AnswerReader(connection)
        self._model, self._version, self._records = described.name, version, tuple(records.values())
        self._room = Room(self._region.number, end, self._region.size - end)
        self._heads: dict[tuple[str, ...], bytes] = {}

    def __getitem__(self, name: str) -> Array:
        return self._inputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)

    def infer(self, outputs: tuple[str, ...] = (), *, deadline_s: float | None = None, priority: int = 0) -> Answer:
        """Ask with what the buffers hold now.

        Arrays of the answer lie in the shared memory where they fit, and are valid until the next call.

        Raises:
            Refused, TransportError: as `Client.infer`.
        """
        head = self._heads.get(outputs) or self._head(outputs)
        left_us = time_left_us(deadline_s)
        frame = self._connection.ask(Kind.CALL, head, priority=as_priority(priority), left_us=left_us)
        return self._reader.read(frame, self._region, owns=False)

    def close(self) -> None:
        """Give the memory up; arrays that still look into it keep it."""
        self._region.close()

    def _head(self, outputs: tuple[str, ...]) -> bytes:
        call = CallHead(self._model, self._records, self._version, outputs, "", self._room)
        self._heads[outputs] = head = frames.pack_call(call)
        return head


def _layout(described: ModelDescription, shapes: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, TensorRecord], int]:
    """A record for each input, and where the answers may begin."""
    by_name = {one.name: one for one in described.inputs}
    records: dict[str, TensorRecord] = {}
    end = 0
    for name, meta in by_name.items():
        shape = tuple(shapes.get(name, meta.shape))
        if min(shape, default=0) < 0:
            because = f"its shape is {list(shape)}"
            raise BadRequest(
                f"make a buffer for input {name}", because, f'give shapes={{"{name}": (…)}}', code="bad_input"
            )
        size = math.prod(shape) * np.dtype(meta.dtype).itemsize
        records[name] = TensorRecord(name, meta.dtype, shape, 1, end, size)
        end = aligned(end + size)
    if unknown := sorted(shapes.keys() - by_name.keys()):
        because = f"the model takes {', '.join(by_name)}"
        raise BadRequest(f"make a buffer for input {unknown[0]}", because, code="bad_input")
    return records, end


def _answer_bytes(described: ModelDescription) -> int:
    """Room for one of each output, as far as sizes are known; what does not fit comes in the stream."""
    known = [
        aligned(math.prod(max(1, size) for size in one.shape) * np.dtype(one.dtype).itemsize)
        for one in described.outputs
        if one.dtype != "bytes"
    ]
    return max(_ANSWER_ROOM, sum(known))
