"""What the head of a call means on one connection: which bytes become which arrays, and where answers may go."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_runtime.client.frames import ALIGNMENT, IN_BODY, CallHead, TensorRecord, unpack_call, unpack_elements
from edge_runtime.contract.ids import shown
from edge_runtime.doors.local.answers import AnswerWriter
from edge_runtime.doors.local.limits import Limits
from edge_runtime.doors.local.regions import ForeignRegions
from edge_runtime.inference.backend import Array
from edge_runtime.serving.calls import BYTES, BadCall, Values


@dataclass(frozen=True, slots=True)
class Planned:
    """A call's head, checked against everything that the connection has; valid until a region is unmapped."""

    head: CallHead
    outputs: tuple[str, ...] | None
    body_bytes: int
    """What the message's body must hold."""
    in_regions: dict[str, memoryview]
    """Bytes of those inputs that lie in shared memory."""
    arrays: dict[str, Array]
    """Arrays over them, where they are numbers."""
    answers: AnswerWriter


def plan(content: bytes, regions: ForeignRegions, limits: Limits) -> Planned:
    """The meaning of a call's head; everything that it names is inside its bounds.

    Raises:
        ContractError: the head is broken.
        BadCall: it names what is not there.
    """
    head = unpack_call(content)
    in_regions: dict[str, memoryview] = {}
    arrays: dict[str, Array] = {}
    body_bytes = 0
    for tensor in head.inputs:
        _check_size(tensor)
        if tensor.region == IN_BODY:
            if tensor.offset % ALIGNMENT:
                raise BadCall(f"take input {shown(tensor.name)}", f"{tensor.offset} is no multiple of {ALIGNMENT}")
            body_bytes = max(body_bytes, tensor.offset + tensor.size)
            continue
        part = in_regions[tensor.name] = regions.part(tensor.region, tensor.offset, tensor.size)
        if tensor.dtype != BYTES:
            arrays[tensor.name] = as_array(part, tensor)
    if len({tensor.name for tensor in head.inputs}) != len(head.inputs):
        raise BadCall("take the inputs", "one of them is given twice")
    if body_bytes > limits.body_max_bytes:
        because = f"its tensors take {body_bytes} bytes, {limits.body_max_bytes} are allowed"
        raise BadCall("take the inputs", because, "send less at once, or use shared memory")
    room = head.room
    answers = regions.part(room.region, room.offset, room.bytes) if room.bytes else memoryview(b"")
    outputs = head.outputs or None
    writer = AnswerWriter(room, answers, outputs)
    return Planned(head, outputs, body_bytes, in_regions, arrays, writer)


def take_inputs(planned: Planned, body: memoryview, *, is_trusted: bool) -> dict[str, Values]:
    """The inputs of one call, by name.

    Args:
        planned: what its head means.
        body: the message's body, as long as planned.
        is_trusted: the peer could do anything to this process anyway, so its numbers may be read where they are;
            anybody else's are copied first, because an engine may look at them twice.

    Raises:
        ContractError: bytes that do not hold the elements they promise.
    """
    if is_trusted and len(planned.arrays) == len(planned.head.inputs):
        return dict(planned.arrays)
    inputs: dict[str, Values] = {}
    for tensor in planned.head.inputs:
        shared = planned.in_regions.get(tensor.name)
        source = body[tensor.offset : tensor.offset + tensor.size] if shared is None else shared
        if tensor.dtype == BYTES:
            inputs[tensor.name] = unpack_elements(bytes(source), tensor.shape[0])
        elif shared is None:
            inputs[tensor.name] = as_array(source, tensor)
        else:
            array = planned.arrays[tensor.name]
            inputs[tensor.name] = array if is_trusted else array.copy()
    return inputs


def as_array(part: memoryview, tensor: TensorRecord) -> Array:
    """Bytes as the array that a record promises, without a copy. Raises: BadCall: no array can have that shape."""
    try:
        return np.ndarray(tensor.shape, tensor.dtype, part)
    except (ValueError, TypeError, OverflowError) as error:
        # An empty array may have sizes whose product has no bound.
        raise BadCall(f"take input {shown(tensor.name)}", f"its shape is {list(tensor.shape)}") from error


def _check_size(tensor: TensorRecord) -> None:
    name = f"take input {shown(tensor.name)}"
    if any(size < 0 for size in tensor.shape):
        raise BadCall(name, f"its shape is {list(tensor.shape)}")
    if tensor.dtype == BYTES:
        if len(tensor.shape) != 1:
            raise BadCall(name, f"bytes have one axis, and it has {len(tensor.shape)}")
        return
    wanted = math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
    if wanted != tensor.size:
        because = f"{tensor.dtype} {list(tensor.shape)} takes {wanted} bytes, not {tensor.size}"
        raise BadCall(name, because)
