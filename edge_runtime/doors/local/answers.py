"""From a reply to the bytes of an answer: into the caller's shared memory where there is room, else into the stream."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from edge_runtime.client.frames import (
    ALIGNMENT,
    IN_BODY,
    AnswerHead,
    Room,
    TensorRecord,
    aligned,
    pack_answer,
    pack_elements,
)
from edge_runtime.client.stream import bytes_of
from edge_runtime.inference.backend import Array
from edge_runtime.serving.calls import BYTES, Reply, Values

_PADDING: Final = bytes(ALIGNMENT)


class _Slot(NamedTuple):
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    place: Array | None
    """Where it goes in shared memory; None: into the stream."""
    padding: bytes
    """What follows it in the stream."""


class _Layout(NamedTuple):
    """What the last answer looked like, and its head; only arrays have a layout."""

    model: str
    version: str
    head: bytes
    slots: tuple[_Slot, ...]


class AnswerWriter:
    """Writes the answers to one kind of call; one that looks like the one before costs little more than copying it.

    Args:
        room: where `memory` lies for the caller.
        memory: writable, as long as the room.
        outputs: the order of the answer; None: the model's own.
    """

    def __init__(self, room: Room, memory: memoryview, outputs: tuple[str, ...] | None) -> None:
        self._outputs = outputs
        self._room = room
        self._memory = memory
        self._layout: _Layout | None = None

    def write(self, reply: Reply) -> tuple[bytes, list[Any]]:
        """Head and body of the answer; what has room in the memory has been written there."""
        layout = self._layout
        tensors = reply.tensors
        if self._outputs is not None:
            tensors = {name: tensors[name] for name in self._outputs}
        if layout is not None and reply.version == layout.version and reply.model == layout.model:
            body: list[Any] = []
            if _write_again(layout, tensors, body):
                return layout.head, body
        return self._write_new(reply, tensors)

    def _write_new(self, reply: Reply, tensors: dict[str, Values]) -> tuple[bytes, list[Any]]:
        records: list[TensorRecord] = []
        slots: list[_Slot] = []
        body: list[Any] = []
        used = sent = 0
        for name, values in tensors.items():
            content, dtype, shape = _contents(values)
            size = len(content)
            place, padding = None, _PADDING[: aligned(size) - size]
            if used + size <= len(self._memory):
                self._memory[used : used + size] = content
                records.append(TensorRecord(name, dtype, shape, self._room.region, self._room.offset + used, size))
                if not isinstance(values, list):
                    place = np.ndarray(shape, values.dtype, self._memory, used)
                used = aligned(used + size)
            else:
                records.append(TensorRecord(name, dtype, shape, IN_BODY, sent, size))
                body += [content, padding]
                sent += aligned(size)
            if not isinstance(values, list):
                slots.append(_Slot(name, values.dtype, shape, place, padding))
        head = pack_answer(AnswerHead(reply.model, reply.version, tuple(records)))
        has_layout = len(slots) == len(records)
        self._layout = _Layout(reply.model, reply.version, head, tuple(slots)) if has_layout else None
        return head, body


def _write_again(layout: _Layout, tensors: dict[str, Values], body: list[Any]) -> bool:
    """Write an answer whose names, dtypes and shapes are those of the last one; False when it is another."""
    if len(tensors) != len(layout.slots):
        return False
    for slot, (name, values) in zip(layout.slots, tensors.items(), strict=True):
        if isinstance(values, list) or name != slot.name or values.shape != slot.shape or values.dtype != slot.dtype:
            return False
        if slot.place is None:
            body += [bytes_of(np.ascontiguousarray(values)), slot.padding]
        else:
            slot.place[...] = values
    return True


def _contents(values: Values) -> tuple[Any, str, tuple[int, ...]]:
    """Bytes, dtype and shape of an output."""
    if isinstance(values, list):
        return pack_elements(values), BYTES, (len(values),)
    return bytes_of(np.ascontiguousarray(values)), values.dtype.name, values.shape
