"""Between ModelInfer's messages and calls: what a request asks, and how a reply is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from edge_runtime.contract.ids import shown
from edge_runtime.doors.v2.datatypes import BYTES, raw_bytes, tensor_from_bytes
from edge_runtime.doors.v2.messages import INFER_REQUEST, RAW_INPUT_CONTENTS
from edge_runtime.doors.v2.protocol import Schedule, Wish, call_of, check_room, outputs_of, read_schedule, read_wish
from edge_runtime.doors.v2.regions import RegionRange, SystemRegions, read_range
from edge_runtime.doors.v2.typed_contents import tensor_from_contents
from edge_runtime.doors.v2.wire import Content, Document, places
from edge_runtime.serving.calls import BadCall, Call, Reply, Values

_FORMS_MAX: Final = 64
_TEXT_MAX: Final = 4096
"""Bytes of a request besides its raw tensors, and the number of those, up to which it is remembered."""
_RAWS_MAX: Final = 16
QUICK_BYTES: Final = 16 * 1024
"""Up to here nothing takes long, whatever it is made of."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One ModelInfer request."""

    model: str
    version: str
    """Empty: the one in front."""
    id: str
    """The client's own; said back to it."""
    call: Call
    wishes: tuple[Wish, ...]
    wants_final_mark: bool
    """On a stream: each answer shall say that it is the last one to its request."""


class _Input(NamedTuple):
    """One tensor of a request, without its numbers."""

    name: str
    datatype: str
    shape: list[int]
    part: RegionRange | None
    """Where it lies in shared memory."""
    contents: Document | None
    """Its numbers, when they came as numbers."""


class _Request(NamedTuple):
    """A request without its raw tensors."""

    model: str
    version: str
    id: str
    parameters: dict[str, object]
    wishes: tuple[Wish, ...]
    inputs: tuple[_Input, ...]


class _Form(NamedTuple):
    """The bytes of a request that are no raw tensor, and what they mean."""

    texts: tuple[tuple[int, bytes], ...]
    """What stands where."""
    raws: tuple[tuple[int, int], ...]
    """Begin and end of each raw tensor."""
    request: _Request


class InferReader:
    """Reads ModelInfer requests; one that differs from an earlier one in its raw tensors only is not parsed again.

    Args:
        regions: shared memory that tensors may lie in.
    """

    def __init__(self, regions: SystemRegions) -> None:
        self._regions = regions
        self._forms: dict[int, _Form] = {}
        """By the length of the whole message."""

    def is_quick(self, content: Content) -> bool:
        """Whether reading it takes no longer than others can wait."""
        if len(content) <= QUICK_BYTES:
            return True
        form = self._form(content)
        # Each element of BYTES is taken out of its tensor by itself.
        return form is not None and all(one.datatype != BYTES for one in form.request.inputs)

    def align_at(self, size: int) -> int:
        """Where the first raw tensor of a message of that length stood the last time."""
        form = self._forms.get(size)
        return 0 if form is None or not form.raws else form.raws[0][0]

    def read(self, content: Content, now: float, deadline: float | None = None) -> Asked:
        """What a request asks; tensors are views into it where they lie aligned.

        Args:
            content: a ModelInferRequest.
            now: `time.monotonic()` seconds.
            deadline: of the whole call, as gRPC knows it; the request's own may be sooner.

        Raises:
            MalformedMessage: it is no such message.
            BadCall: its tensors, parameters or shared memory do not fit together.
        """
        form = self._form(content)
        if form is not None:
            request, whole = form.request, memoryview(content)
            raws = [whole[start:end] for start, end in form.raws]
        else:
            document = INFER_REQUEST.read(content)
            raws = document.get("raw_input_contents", [])
            request = _read_request(document)
            self._learn(content, request)
        check_room(request.wishes, self._regions)
        inputs = _read_inputs(request.inputs, raws, self._regions)
        schedule = read_schedule(request.parameters, now)
        if deadline is not None and (schedule.deadline is None or deadline < schedule.deadline):
            schedule = Schedule(deadline, schedule.priority, schedule.sequence)
        call = call_of(inputs, request.wishes, schedule)
        wants_final_mark = request.parameters.get("triton_enable_empty_final_response") is True
        return Asked(request.model, request.version, request.id, call, request.wishes, wants_final_mark)

    def _form(self, content: Content) -> _Form | None:
        """What is known of a request like this one."""
        form = self._forms.get(len(content))
        if form is not None and all(content[at : at + len(text)] == text for at, text in form.texts):
            return form
        return None

    def _learn(self, content: Content, request: _Request) -> None:
        raws = places(content, RAW_INPUT_CONTENTS)
        if raws and any(one.contents is not None for one in request.inputs):
            return  # those are views into the message, and would keep its raw tensors
        if len(raws) > _RAWS_MAX or len(content) - sum(end - start for start, end in raws) > _TEXT_MAX:
            return
        edges = [0, *(edge for place in raws for edge in place), len(content)]
        texts = tuple((start, bytes(content[start:end])) for start, end in zip(edges[::2], edges[1::2], strict=True))
        if len(self._forms) >= _FORMS_MAX:
            self._forms.clear()
        self._forms[len(content)] = _Form(texts, tuple(raws), request)


def answer_document(
    asked: Asked, reply: Reply, regions: SystemRegions, labels: Callable[[str], Sequence[str]]
) -> Document:
    """The fields of a ModelInferResponse; outputs that are wanted there are written to shared memory.

    Raises:
        BadCall: an output does not fit its shared memory, or classes are wanted of something that has none.
    """
    outputs: list[Document] = []
    contents: list[Any] = []
    for position, output in enumerate(outputs_of(reply, asked.wishes, labels)):
        content = raw_bytes(output.values)
        described: Document = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        region = asked.wishes[position].region if asked.wishes else None
        if region is not None:
            regions.write(region, content)
            described["parameters"] = [
                _parameter("shared_memory_region", {"string_param": region.region}),
                _parameter("shared_memory_offset", {"int64_param": region.offset}),
                _parameter("shared_memory_byte_size", {"int64_param": len(content)}),
            ]
            # Clients pair outputs with contents by position.
            content = memoryview(b"")
        outputs.append(described)
        contents.append(content)
    document: Document = {"model_name": reply.model, "model_version": reply.version}
    if asked.id:
        document["id"] = asked.id
    if asked.wants_final_mark:
        document["parameters"] = [_parameter("triton_final_response", {"bool_param": True})]
    return document | {"outputs": outputs, "raw_output_contents": contents}


def read_parameters(entries: Sequence[Document]) -> dict[str, object]:
    """Parameters by name. Raises: BadCall for one without a value."""
    parameters: dict[str, object] = {}
    for entry in entries:
        name, choices = entry.get("key", ""), entry.get("value")
        if not choices:
            raise BadCall("read the request", f"parameter {shown(name)} has no value of a kind known here")
        # Of several kinds the last one counts, as for any "oneof".
        parameters[name] = next(reversed(choices.values()))
    return parameters


def _read_request(document: Document) -> _Request:
    inputs = []
    for described in document.get("inputs", ()):
        name: str = described.get("name", "")
        part = read_range(name, read_parameters(described.get("parameters", ())))
        inputs.append(
            _Input(name, described.get("datatype", ""), described.get("shape", []), part, described.get("contents"))
        )
    return _Request(
        document.get("model_name", ""),
        document.get("model_version", ""),
        document.get("id", ""),
        read_parameters(document.get("parameters", ())),
        tuple(
            read_wish(output.get("name", ""), read_parameters(output.get("parameters", ())))
            for output in document.get("outputs", ())
        ),
        tuple(inputs),
    )


def _read_inputs(described: Sequence[_Input], raws: Sequence[memoryview], regions: SystemRegions) -> dict[str, Values]:
    inputs: dict[str, Values] = {}
    used = 0
    for name, datatype, shape, part, contents in described:
        if name in inputs:
            raise BadCall("read the request", f"it has input {shown(name)} twice")
        if part is not None:
            inputs[name] = tensor_from_bytes(name, datatype, shape, regions.read(part))
        elif not raws:
            inputs[name] = tensor_from_contents(name, datatype, shape, contents or {})
        elif contents is not None:
            raise BadCall(f"read tensor {shown(name)}", "it has typed contents beside raw ones", "send one of both")
        elif used == len(raws):
            raise BadCall("read the request", f"it has {len(raws)} raw contents, too few for its inputs")
        else:
            inputs[name] = tensor_from_bytes(name, datatype, shape, raws[used])
            used += 1
    if used != len(raws):
        raise BadCall("read the request", f"it has {len(raws)} raw contents and {used} inputs for them")
    return inputs


def _parameter(name: str, value: Document) -> Document:
    return {"key": name, "value": value}
