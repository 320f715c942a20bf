"""Questions and answers on one connection to a local door; what equal calls share is worked out once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from edge_runtime.client import frames
from edge_runtime.client.elements import as_elements
from edge_runtime.client.errors import BadRequest, NotUnderstood, Refused
from edge_runtime.client.frames import IN_BODY, CallHead, Kind, Room, TensorRecord, aligned
from edge_runtime.client.local_connection import LocalConnection
from edge_runtime.client.model import Answer, Array, Inputs, Step, Values
from edge_runtime.client.regions import OwnRegion
from edge_runtime.client.stream import Frame, bytes_of
from edge_runtime.contract.errors import ContractError

WORTH_SHARING: Final = 16 * 1024
"""Bytes from which on shared memory pays: below, the stream carries tensors and head in one system call."""
_ANSWER_ROOM: Final = 64 * 1024
_REMEMBERED: Final = 32
_NOTHING: Final = memoryview(b"")
_PADDING: Final = bytes(frames.ALIGNMENT)


class Question(NamedTuple):
    """Everything about a call but its inputs."""

    model: str
    version: str
    outputs: tuple[str, ...]
    left_us: int
    """Microseconds until it must have begun; 0: whenever it can."""
    priority: int
    step: Step | None


@dataclass(frozen=True, slots=True)
class _Prepared:
    head: bytes
    places: tuple[Array, ...]
    """Of the inputs in shared memory; empty when they go into the stream."""


class Exchange:
    """Asks over one connection; one thread at a time.

    Args:
        connection: greeted, and used by nobody else.
        shares_memory: whether to use shared memory where the door grants it.
    """

    def __init__(self, connection: LocalConnection, *, shares_memory: bool) -> None:
        self.connection = connection
        self._may_share = shares_memory and connection.welcome.regions > 0
        self._region: OwnRegion | None = None
        self._wanted_room = _ANSWER_ROOM
        self._prepared: dict[Any, _Prepared] = {}
        self._reader = AnswerReader(connection)

    def infer(self, question: Question, inputs: Inputs) -> Answer:
        """The answer, in memory of its own. Raises: Refused, TransportError."""
        arrays, records = _as_arrays(inputs)
        step = question.step
        key = (question.model, question.version, question.outputs, step.sequence if step else "", *records)
        prepared = self._prepared.get(key)
        if prepared is None:
            prepared = self._prepare(key, question, [array.nbytes for array in arrays])
        if prepared.places:
            for place, array in zip(prepared.places, arrays, strict=True):
                place[...] = array
            body: list[Any] = []
        else:
            body = _parts(arrays)
        frame = self.connection.ask(
            Kind.CALL,
            prepared.head,
            body,
            flags=_flags(step) if step else 0,
            priority=question.priority,
            left_us=question.left_us,
        )
        if frame.body_bytes > self._wanted_room and self._may_share:
            self._wanted_room = frame.body_bytes
            self._prepared.clear()
        return self._reader.read(frame, self._region, owns=True)

    def close(self) -> None:
        """Hang up, and give the shared memory back."""
        self.connection.close()
        self._prepared.clear()
        self._reader.forget()
        if self._region is not None:
            self._region.close()
            self._region = None

    def _prepare(self, key: Any, question: Question, sizes: list[int]) -> _Prepared:
        offsets, end = _offsets(sizes)
        worthwhile = self._may_share and (end >= WORTH_SHARING or self._wanted_room > _ANSWER_ROOM)
        region = self._region_for(end + self._wanted_room) if worthwhile else None
        room = Room(region.number, end, region.size - end) if region else Room()
        number = region.number if region else IN_BODY
        placed = [
            TensorRecord(name, dtype if isinstance(dtype, str) else dtype.name, shape, number, offset, size)
            for (name, dtype, shape), offset, size in zip(key[-1], offsets, sizes, strict=True)
        ]
        sequence = question.step.sequence if question.step else ""
        head = CallHead(question.model, tuple(placed), question.version, question.outputs, sequence, room)
        places = tuple(_place(region, record) for record in placed) if region else ()
        try:
            prepared = _Prepared(frames.pack_call(head), places)
        except ContractError as error:
            raise BadRequest(error.cannot, error.because) from error
        if len(self._prepared) >= _REMEMBERED:
            self._prepared.clear()
        self._prepared[key] = prepared
        return prepared

    def _region_for(self, size: int) -> OwnRegion | None:
        """Shared memory of at least that size; None when the door grants less."""
        region = self._region
        if region is not None and region.size >= size:
            return region
        if size > self.connection.welcome.region_max_bytes:
            return None
        self._prepared.clear()
        self._reader.forget()
        if region is not None:
            self._region = None
            region.close()
            self.connection.unmap(region)
        # Rounded up, so that a little more next time does not mean another mapping.
        fresh = OwnRegion(region.number + 1 if region else 1, min(-(-size // 65536) * 65536, 1 << 40))
        try:
            self.connection.map(fresh)
        except Refused:
            # The door has no more to give: the stream carries everything.
            fresh.close()
            self._may_share = False
            return None
        except BaseException:
            fresh.close()
            raise
        self._region = fresh
        return fresh


class AnswerReader:
    """Reads answers of one connection; equal heads are read once."""

    def __init__(self, connection: LocalConnection) -> None:
        self._connection = connection
        self._known: dict[bytes, tuple[frames.AnswerHead, tuple[Array | None, ...]]] = {}
        self._last: tuple[Frame, Answer] | None = None
        """An answer that lies in the region as a whole, and its frame, which comes again when the answer does."""

    def forget(self) -> None:
        """Forget what was found in heads: their region is gone."""
        self._known.clear()
        self._last = None

    def read(self, frame: Frame, region: OwnRegion | None, *, owns: bool) -> Answer:
        """The answer that a frame begins.

        Args:
            frame: an ANSWER whose body has not been read yet.
            region: where the question let the door write.
            owns: whether arrays in the region are copied out of it.

        Raises:
            NotUnderstood: it names memory that is not there.
            TransportError: its body does not come.
        """
        last = self._last
        if last is not None and last[0] is frame:
            return last[1]
        try:
            head, views = self._known.get(frame.head) or self._learn(frame.head, region)
            body = _NOTHING
            if frame.body_bytes:
                body = np.empty(frame.body_bytes, np.uint8).data
                self._connection.read_body(body)
            tensors: dict[str, Values] = {}
            for record, view in zip(head.tensors, views, strict=True):
                if view is not None:
                    tensors[record.name] = view.copy() if owns else view
                else:
                    tensors[record.name] = _values(_memory(record, region, body), record)
        except (ContractError, ValueError, TypeError, OverflowError) as error:
            raise NotUnderstood("read an answer", str(error), "update client and server") from error
        answer = Answer(tensors, head.model, head.version)
        is_in_region = not frame.body_bytes and all(view is not None for view in views)
        self._last = (frame, answer) if is_in_region and not owns else None
        return answer

    def _learn(self, content: bytes, region: OwnRegion | None) -> tuple[frames.AnswerHead, tuple[Array | None, ...]]:
        head = frames.unpack_answer(content)
        views = tuple(
            None if record.region == IN_BODY or record.dtype == "bytes" or region is None else _place(region, record)
            for record in head.tensors
        )
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[content] = head, views
        return head, views


def _as_arrays(inputs: Inputs) -> tuple[list[Array], tuple[Any, ...]]:
    """Inputs as arrays, and what tells calls apart: sizes of BYTES; name, dtype and shape of each input."""
    arrays: list[Array] = []
    records: list[tuple[str, Any, tuple[int, ...]]] = []
    sizes: list[int] = []
    for name, values in inputs.items():
        if isinstance(values, np.ndarray):
            arrays.append(values)
            # The dtype itself: its name takes longer than everything else here.
            records.append((name, values.dtype, values.shape))
        else:
            elements = as_elements(name, values)
            content = frames.pack_elements(elements)
            arrays.append(np.frombuffer(content, np.uint8) if content else np.empty(0, np.uint8))
            sizes.append(len(content))
            records.append((name, "bytes", (len(elements),)))
    return arrays, (tuple(sizes), tuple(records))


def _parts(arrays: list[Array]) -> list[Any]:
    """Bytes of the arrays for the stream, each filled up to where the next may begin."""
    parts: list[Any] = []
    for array in arrays:
        # In this machine's byte order, which the protocol's is.
        parts.append(bytes_of(np.ascontiguousarray(array, array.dtype.newbyteorder("="))))
        if rest := aligned(array.nbytes) - array.nbytes:
            parts.append(_PADDING[:rest])
    if parts and isinstance(parts[-1], bytes):
        parts.pop()  # nothing follows
    return [part for part in parts if len(part)]


def _offsets(sizes: list[int]) -> tuple[list[int], int]:
    """Where each of these may begin when they follow one another, and where the next may."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end = aligned(end + size)
    return offsets, end


def _place(region: OwnRegion, record: TensorRecord) -> Array:
    if record.dtype == "bytes":
        return np.ndarray((record.size,), np.uint8, region.memory, record.offset)
    return np.ndarray(record.shape, record.dtype, region.memory, record.offset)


def _memory(record: TensorRecord, region: OwnRegion | None, body: memoryview) -> memoryview:
    source = body if record.region == IN_BODY or region is None else region.memory
    return source[record.offset : record.offset + record.size]


def _values(memory: memoryview, record: TensorRecord) -> Values:
    if record.dtype == "bytes":
        return frames.unpack_elements(bytes(memory), record.shape[0])
    return np.ndarray(record.shape, record.dtype, memory)


def _flags(step: Step) -> int:
    return frames.FIRST * step.first | frames.LAST * step.last


def described_places(region: OwnRegion, records: Mapping[str, TensorRecord]) -> dict[str, Array]:
    """Arrays over the parts of a region that records name."""
    return {name: _place(region, record) for name, record in records.items()}
