"""One inference request over HTTP: JSON, Triton's binary extension or shared memory in, the same out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edge_runtime.contract.ids import shown
from edge_runtime.doors.v2.datatypes import (
    BYTES,
    datatype_of,
    element_count,
    json_values,
    numpy_dtype,
    raw_bytes,
    tensor_from_bytes,
    tensor_from_json,
)
from edge_runtime.doors.v2.http_answer import BINARY, JSON, HttpAnswer
from edge_runtime.doors.v2.http_body import HttpError, MemoryBudget, fold, unfold, wanted_coding
from edge_runtime.doors.v2.http_parser import Request
from edge_runtime.doors.v2.protocol import Wish, call_of, outputs_of, read_schedule, read_wishes
from edge_runtime.doors.v2.regions import SystemRegions, read_range
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


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: msgspec.Raw = msgspec.Raw()


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


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, read: what to call, and how to answer."""

    call: Call
    id: str
    wishes: tuple[Wish, ...]
    binary: tuple[bool, ...]
    """By wish: as binary data, or as JSON."""
    is_binary: bool
    """The same for outputs that nobody named."""
    coding: str | None
    """What to fold the answer in."""
    labels: Callable[[str], Sequence[str]]
    """What the classes of an output are called."""


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


def is_heavy(request: Request) -> bool:
    """Whether reading a request would keep an event loop busy for long."""
    if "content-encoding" in request.head.headers:
        return True
    size = len(request.body)
    if size <= _HEAVY_JSON_BYTES:
        return False
    try:
        # Numbers behind short JSON are not even looked at; whatever else is long has to be read.
        return json_length(request.head.headers, size) > _HEAVY_JSON_BYTES
    except BadCall:
        return False


def read_infer(
    request: Request,
    served: Served,
    regions: SystemRegions,
    now: float,
    *,
    max_bytes: int,
    budget: MemoryBudget,
    is_aside: bool,
) -> Asked:
    """Read an inference request.

    Args:
        request: as it came; tensors are views of its body where they can be.
        served: the model it is for.
        regions: shared memory that it may name.
        now: `time.monotonic()` seconds when it arrived.
        max_bytes: size up to which a folded body is unfolded.
        budget: what memory for that is taken from.
        is_aside: whether this may take its time.

    Raises:
        TooHeavy: it may not, and would.
        BadCall: it is no inference request, or does not fit together.
        HttpError: its content coding cannot be undone.
    """
    headers = request.head.headers
    body = unfold(request.body, headers.get("content-encoding", ""), max_bytes, budget)
    end = json_length(headers, len(body))
    if end > JSON_MAX_BYTES:
        raise HttpError(413, f"{end} bytes of JSON came, at most {JSON_MAX_BYTES} are read; send binary data")
    coding = wanted_coding(headers.get("accept-encoding", ""))
    if end == 0 and len(body):
        return Asked(Call(_raw_input(served, body)), "", (), (), is_binary=True, coding=coding, labels=served.labels)
    try:
        question = _READER.decode(body[:end])
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadCall("read the request", f"its JSON is no inference request ({shown(str(error), 300)})") from None
    wishes = read_wishes(((wish.name, wish.parameters) for wish in question.outputs), regions)
    if not is_aside and _takes_long(question):
        raise TooHeavy
    default = _flag(question.parameters, "binary_data_output", default=False)
    return Asked(
        call_of(_inputs(question, body[end:], regions), wishes, read_schedule(question.parameters, now)),
        question.id,
        wishes,
        tuple(_flag(wish.parameters, "binary_data", default=default) for wish in question.outputs),
        is_binary=default,
        coding=coding,
        labels=served.labels,
    )


def infer_answer(asked: Asked, reply: Reply, regions: SystemRegions) -> HttpAnswer:
    """The answer to an inference request. Raises: BadCall when an output cannot be given as it was asked for."""
    described: list[dict[str, Any]] = []
    tail: list[memoryview] = []
    for place, output in enumerate(outputs_of(reply, asked.wishes, asked.labels)):
        wish = asked.wishes[place] if asked.wishes else Wish(output.name)
        one: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        if wish.region is not None:
            content = raw_bytes(output.values)
            regions.write(wish.region, content)
            one["parameters"] = {
                "shared_memory_region": wish.region.region,
                "shared_memory_offset": wish.region.offset,
                "shared_memory_byte_size": len(content),
            }
        elif asked.binary[place] if asked.wishes else asked.is_binary:
            content = raw_bytes(output.values)
            one["parameters"] = {"binary_data_size": len(content)}
            tail.append(content)
        else:
            one["data"] = json_values(output.name, output.values)
        described.append(one)
    document: dict[str, Any] = {"model_name": reply.model, "model_version": reply.version, "outputs": described}
    if asked.id:
        document["id"] = asked.id
    return _assembled(msgspec.json.encode(document), tail, asked.coding)


def _assembled(head: bytes, tail: list[memoryview], coding: str | None) -> HttpAnswer:
    kind = BINARY if tail else JSON
    headers = (("Inference-Header-Content-Length", str(len(head))),) if tail else ()
    parts: tuple[bytes | memoryview, ...] = (head, *tail)
    if coding is not None and sum(len(part) for part in parts) >= _FOLDED_MIN_BYTES:
        return HttpAnswer(200, (fold(list(parts), coding),), kind, (*headers, ("Content-Encoding", coding)))
    return HttpAnswer(200, parts, kind, headers)


def _inputs(question: _Question, tail: memoryview, regions: SystemRegions) -> dict[str, Values]:
    inputs: dict[str, Values] = {}
    at = 0
    for tensor in question.inputs:
        if tensor.name in inputs:
            raise BadCall("read the request", f"input {shown(tensor.name)} comes twice")
        size = tensor.parameters.get("binary_data_size") if tensor.parameters else None
        if size is not None:
            if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(tail) - at:
                raise BadCall(
                    f"read tensor {shown(tensor.name)}",
                    f"its binary_data_size is {shown(size)}, {len(tail) - at} bytes are left of the body",
                )
            inputs[tensor.name] = tensor_from_bytes(tensor.name, tensor.datatype, tensor.shape, tail[at : at + size])
            at += size
        else:
            inputs[tensor.name] = _input_elsewhere(tensor, regions)
    if at != len(tail):
        raise BadCall("read the request", f"{len(tail) - at} bytes of the body belong to no input")
    return inputs


def _takes_long(question: _Question) -> bool:
    """Whether much has to be copied out of shared memory, or many elements be made."""
    parts = (read_range(tensor.name, tensor.parameters) for tensor in question.inputs if tensor.parameters)
    if sum(part.size for part in parts if part is not None) > _HEAVY_COPY_BYTES:
        return True
    return any(
        tensor.datatype == BYTES and element_count(tensor.name, tensor.shape) > _HEAVY_ELEMENTS
        for tensor in question.inputs
    )


def _input_elsewhere(tensor: _Tensor, regions: SystemRegions) -> Values:
    part = read_range(tensor.name, tensor.parameters)
    if part is not None:
        return tensor_from_bytes(tensor.name, tensor.datatype, tensor.shape, regions.read(part))
    if memoryview(tensor.data).nbytes == 0:
        raise BadCall(
            f"read tensor {shown(tensor.name)}", "it has no data", "send data, binary_data_size or shared memory"
        )
    return tensor_from_json(tensor.name, tensor.datatype, tensor.shape, memoryview(tensor.data))


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
