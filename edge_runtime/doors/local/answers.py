"""From a reply to the bytes of an answer: into the caller's shared memory where there is room, else into the stream."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_runtime.client.frames import ALIGNMENT, IN_BODY, AnswerHead, Room, TensorRecord, aligned, pack_answer
from edge_runtime.client.frames import pack_elements as pack
from edge_runtime.client.stream import bytes_of
from edge_runtime.serving.calls import BYTES, Reply

_PADDING = bytes(ALIGNMENT)


def lay_out(reply: Reply, room: Room, memory: memoryview) -> tuple[bytes, list[Any]]:
    """Head and body of the answer; what has room in `memory` has been written there.

    Args:
        reply: what the model gave.
        room: where `memory` lies for the caller.
        memory: writable, as long as the room.
    """
    records: list[TensorRecord] = []
    body: list[Any] = []
    used = sent = 0
    for name, values in reply.tensors.items():
        if isinstance(values, list):
            content: Any = pack(values)
            dtype, shape = BYTES, (len(values),)
        else:
            content = bytes_of(np.ascontiguousarray(values))
            dtype, shape = values.dtype.name, values.shape
        size = len(content)
        if used + size <= len(memory):
            memory[used : used + size] = content
            records.append(TensorRecord(name, dtype, shape, room.region, room.offset + used, size))
            used = aligned(used + size)
            continue
        records.append(TensorRecord(name, dtype, shape, IN_BODY, sent, size))
        body += [content, _PADDING[: aligned(size) - size]]
        sent += aligned(size)
    return pack_answer(AnswerHead(reply.model, reply.version, tuple(records))), [part for part in body if len(part)]
