"""One inference request over HTTP: JSON, Triton's binary extension or shared memory in, the same out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from edge_runtime.contract.ids import shown
from edge_runtime.doors.v2.datatypes import (
    BYTES,
    datatype_of,
    element_count,
    json_values,
    numpy_dtype,
    plain_dtype,
    plain_tensor,
    raw_bytes,
    tensor_from_bytes,
    tensor_from_json,
)
from edge_runtime.doors.v2.http_answer import BINARY, JSON, HttpAnswer
from edge_runtime.doors.v2.http_body import HttpError, MemoryBudget, fold, unfold, wanted_coding
from edge_runtime.doors.v2.http_parser import Request
from edge_runtime.doors.v2.protocol import Wish, check_room, names_of, outputs_of, read_schedule, read_wishes
from edge_runtime.doors.v2.regions import RegionRange, SystemRegions, read_range
from edge_runtime.serving.calls import VARIES, BadCall, Call, Reply, TensorMeta, Values
from edge_runtime.serving.served import Served

JSON_MAX_BYTES: Final = 8 * 1024 * 1024
"""Numbers written as text take a fifth of a second for so much, in which no other thread runs."""
JSON_LENGTH: Final = "inference-header-content-length"
_HEAVY_JSON_BYTES: Final = 32 * 1024
"""What takes longer than a thread's turn is not done where all connections wait for it."""
_HEAVY_COPY_BYTES: Final = 2 * 1024 * 1024
_HEAVY_ELEMENTS: Final = 1024
_FOLDED_MIN_BYTES: Final = 1024
_FORMS_MAX: Final = 64
_TEXT_MAX: Final = 4096
"""Bytes of JSON up to which it is remembered, and the number of those."""


_NO_DATA: Final = msgspec.Raw()


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = _NO_DATA


class _Wished(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Question(msgspec.Struct):
    inputs: list[_Tensor]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[_Wished] = []


_READER: Final = msgspec.json.Decoder(_Question)


class TooHeavy(Exception):
    """Reading the request would keep an event loop busy for long."""


class _Input(NamedTuple):
    """One tensor of a request, without its numbers."""

    name: str
    datatype: str
    shape: list[int]
    size: int | None
    """Bytes that it takes behind the JSON; None: it is elsewhere."""
    dtype: np.dtype[Any] | None
    """Of numbers that fill just these bytes and need no look; None: whatever it is has to be checked."""
    part: RegionRange | None
    """Where it lies in shared memory."""
    data: msgspec.Raw
    """Its numbers, when they are in the JSON."""


class Form(NamedTuple):
    """The JSON of a request, understood."""

    id: str
    inputs: tuple[_Input, ...]
    parameters: dict[str, Any]
    wishes: tuple[Wish, ...]
    names: tuple[str, ...] | None
    """Of the outputs that are wanted; None: all of them."""
    binary: tuple[bool, ...]
    """By wish: as binary data, or as JSON."""
    is_binary: bool
    """The same for outputs that nobody named."""
    takes_long: bool
    """Much has to be copied out of shared memory, or many elements be made."""


class Asked(NamedTuple):
    """A request, read: what to call, and how to answer."""

    call: Call
    form: Form
    coding: str | None
    """What to fold the answer in."""
    labels: Callable[[str], Sequence[str]]
    """What the classes of an output are called."""


_BARE: Final = Form("", (), {}, (), None, (), is_binary=True, takes_long=False)
"""Of a request without JSON."""


def json_length(headers: dict[str, str], size: int) -> int:
    """Where the JSON of a body of that size ends. Raises: BadCall."""
    stated = headers.get(JSON_LENGTH)
    if stated is None:
        return size
    if not stated.isdecimal() or len(stated) > 18 or int(stated) > size:
        raise BadCall(
            "read the request", f"Inference-Header-Content-Length is {shown(stated)}, the body has {size} bytes"
        )
    return int(stated)


class InferReader:
    """Reads inference requests; JSON that came before is not understood anew.

    Args:
        regions: shared memory that tensors may lie in.
        budget: what memory for folded bodies is taken from.
        max_bytes: size up to which they are unfolded.
    """

    def __init__(self, regions: SystemRegions, budget: MemoryBudget, max_bytes: int) -> None:
        self._regions = regions
        self._budget = budget
        self._max_bytes = max_bytes
        self._forms: dict[bytes, Form] = {}

    def read(self, request: Request, served: Served, now: float, *, is_aside: bool) -> Asked:
        """Read an inference request.

        Args:
            request: as it came; tensors are views of its body where they can be.
            served: the model it is for.
            now: `time.monotonic()` seconds when it arrived.
            is_aside: whether this may take its time.

        Raises:
            TooHeavy: it may not, and would.
            BadCall: it is no inference request, or does not fit together.
            HttpError: its content coding cannot be undone.
        """
        headers, body = request.head.headers, request.body
        if (folded := headers.get("content-encoding")) is not None:
            if not is_aside:
                raise TooHeavy
            body = unfold(body, folded, self._max_bytes, self._budget)
        end = json_length(headers, len(body))
        if end > JSON_MAX_BYTES:
            raise HttpError(413, f"{end} bytes of JSON came, at most {JSON_MAX_BYTES} are read; send binary data")
        # Numbers behind short JSON are not even looked at; whatever else is long has to be read.
        if end > _HEAVY_JSON_BYTES and not is_aside:
            raise TooHeavy
        accepted = headers.get("accept-encoding")
        coding = wanted_coding(accepted) if accepted else None
        if end == 0 and len(body):
            return Asked(Call(_raw_input(served, body)), _BARE, coding, served.labels)
        form = self._form(body[:end])
        if form.takes_long and not is_aside:
            raise TooHeavy
        inputs = _inputs(form.inputs, body[end:], self._regions)
        if not form.parameters:
            return Asked(Call(inputs, form.names), form, coding, served.labels)
        schedule = read_schedule(form.parameters, now)
        call = Call(inputs, form.names, schedule.deadline, schedule.priority, schedule.sequence)
        return Asked(call, form, coding, served.labels)

    def _form(self, text: memoryview) -> Form:
        if len(text) > _TEXT_MAX:
            return _understand(text, self._regions)
        key = bytes(text)
        form = self._forms.get(key)
        if form is not None:
            check_room(form.wishes, self._regions)
            return form
        form = _understand(text, self._regions)
        # Numbers in JSON are others each time.
        if all(one.size is not None or one.part is not None for one in form.inputs):
            if len(self._forms) >= _FORMS_MAX:
                self._forms.clear()
            self._forms[key] = form
        return form


def _understand(text: memoryview, regions: SystemRegions) -> Form:
    try:
        question = _READER.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadCall("read the request", f"its JSON is no inference request ({shown(str(error), 300)})") from None
    wishes = read_wishes(((wish.name, wish.parameters) for wish in question.outputs), regions)
    default = _flag(question.parameters, "binary_data_output", default=False)
    inputs = tuple(map(_input, question.inputs))
    return Form(
        question.id,
        inputs,
        question.parameters,
        wishes,
        names_of(wishes),
        tuple(_flag(wish.parameters, "binary_data", default=default) for wish in question.outputs),
        is_binary=default,
        takes_long=_takes_long(inputs),
    )


def _input(tensor: _Tensor) -> _Input:
    size = tensor.parameters.get("binary_data_size") if tensor.parameters else None
    if size is not None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise BadCall(f"read tensor {shown(tensor.name)}", f"its binary_data_size is {shown(size)}")
        dtype = plain_dtype(tensor.datatype, tensor.shape, size)
        return _Input(tensor.name, tensor.datatype, tensor.shape, size, dtype, None, _NO_DATA)
    part = read_range(tensor.name, tensor.parameters)
    # A view of the whole request, which none may keep that is remembered.
    data = tensor.data if part is None else _NO_DATA
    return _Input(tensor.name, tensor.datatype, tensor.shape, None, None, part, data)


def infer_answer(asked: Asked, reply: Reply, regions: SystemRegions) -> HttpAnswer:
    """The answer to an inference request. Raises: BadCall when an output cannot be given as it was asked for."""
    described: list[dict[str, Any]] = []
    tail: list[memoryview] = []
    for place, output in enumerate(outputs_of(reply, asked.form.wishes, asked.labels)):
        wish = asked.form.wishes[place] if asked.form.wishes else Wish(output.name)
        one: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        if wish.region is not None:
            content = raw_bytes(output.values)
            regions.write(wish.region, content)
            one["parameters"] = {
                "shared_memory_region": wish.region.region,
                "shared_memory_offset": wish.region.offset,
                "shared_memory_byte_size": len(content),
            }
        elif asked.form.binary[place] if asked.form.wishes else asked.form.is_binary:
            content = raw_bytes(output.values)
            one["parameters"] = {"binary_data_size": len(content)}
            tail.append(content)
        else:
            one["data"] = json_values(output.name, output.values)
        described.append(one)
    document: dict[str, Any] = {"model_name": reply.model, "model_version": reply.version, "outputs": described}
    if asked.form.id:
        document["id"] = asked.form.id
    return _assembled(msgspec.json.encode(document), tail, asked.coding)


def _assembled(head: bytes, tail: list[memoryview], coding: str | None) -> HttpAnswer:
    kind = BINARY if tail else JSON
    headers = (("Inference-Header-Content-Length", str(len(head))),) if tail else ()
    parts: tuple[bytes | memoryview, ...] = (head, *tail)
    if coding is not None and sum(len(part) for part in parts) >= _FOLDED_MIN_BYTES:
        return HttpAnswer(200, (fold(list(parts), coding),), kind, (*headers, ("Content-Encoding", coding)))
    return HttpAnswer(200, parts, kind, headers)


def _inputs(described: Sequence[_Input], tail: memoryview, regions: SystemRegions) -> dict[str, Values]:
    inputs: dict[str, Values] = {}
    at = 0
    for name, datatype, shape, size, dtype, part, data in described:
        if name in inputs:
            raise BadCall("read the request", f"input {shown(name)} comes twice")
        if size is not None:
            if size > len(tail) - at:
                raise BadCall(
                    f"read tensor {shown(name)}",
                    f"its binary_data_size is {size}, {len(tail) - at} bytes are left of the body",
                )
            content = tail[at : at + size]
            if dtype is None:
                inputs[name] = tensor_from_bytes(name, datatype, shape, content)
            else:
                inputs[name] = plain_tensor(dtype, shape, content)
            at += size
        elif part is not None:
            inputs[name] = tensor_from_bytes(name, datatype, shape, regions.read(part))
        elif memoryview(data).nbytes == 0:
            raise BadCall(
                f"read tensor {shown(name)}", "it has no data", "send data, binary_data_size or shared memory"
            )
        else:
            inputs[name] = tensor_from_json(name, datatype, shape, memoryview(data))
    if at != len(tail):
        raise BadCall("read the request", f"{len(tail) - at} bytes of the body belong to no input")
    return inputs


def _takes_long(inputs: Sequence[_Input]) -> bool:
    if sum(one.part.size for one in inputs if one.part is not None) > _HEAVY_COPY_BYTES:
        return True
    return any(one.datatype == BYTES and element_count(one.name, one.shape) > _HEAVY_ELEMENTS for one in inputs)


def _raw_input(served: Served, body: memoryview) -> dict[str, Values]:
    """The only input of a model as the whole body: its numbers, or one encoded element."""
    if len(served.inputs) != 1:
        raise BadCall("read the request", f"the body is one tensor, the model has {len(served.inputs)} inputs")
    meta = served.inputs[0]
    shape = _raw_shape(meta, len(body))
    if shape is None:
        return {meta.name: [bytes(body)]}
    return {meta.name: tensor_from_bytes(meta.name, datatype_of(meta.dtype), shape, body)}


def _raw_shape(meta: TensorMeta, size: int) -> list[int] | None:
    varying = [axis for axis, length in enumerate(meta.shape) if length == VARIES]
    if meta.dtype == "bytes" or len(varying) > 1:
        return None
    item = numpy_dtype(meta.name, datatype_of(meta.dtype)).itemsize
    for length in meta.shape:
        item *= length if length != VARIES else 1
    if item == 0 or size % item or (not varying and size != item):
        return None
    return [length if length != VARIES else size // item for length in meta.shape]


def _flag(parameters: dict[str, Any], key: str, *, default: bool) -> bool:
    value = parameters.get(key, default) if parameters else default
    if not isinstance(value, bool):
        raise BadCall("read the request", f"parameter {key} is {shown(value)}", "use true or false")
    return value
