"""Between ModelInfer's messages and calls: what a request asks, and how a reply is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_runtime.contract.ids import shown
from edge_runtime.doors.v2.datatypes import raw_bytes, tensor_from_bytes
from edge_runtime.doors.v2.messages import INFER_REQUEST
from edge_runtime.doors.v2.protocol import Schedule, Wish, call_of, outputs_of, read_schedule, read_wishes
from edge_runtime.doors.v2.regions import SystemRegions, read_range
from edge_runtime.doors.v2.typed_contents import tensor_from_contents
from edge_runtime.doors.v2.wire import Document
from edge_runtime.serving.calls import BadCall, Call, Reply, Values


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


def read_infer(content: bytes, regions: SystemRegions, now: float, deadline: float | None = None) -> Asked:
    """What a request asks; tensors are views into it where they lie aligned.

    Args:
        content: a ModelInferRequest.
        regions: shared memory that tensors may lie in.
        now: `time.monotonic()` seconds.
        deadline: of the whole call, as gRPC knows it; the request's own may be sooner.

    Raises:
        MalformedMessage: it is no such message.
        BadCall: its tensors, parameters or shared memory do not fit together.
    """
    document = INFER_REQUEST.read(content)
    parameters = read_parameters(document.get("parameters", ()))
    schedule = read_schedule(parameters, now)
    if deadline is not None and (schedule.deadline is None or deadline < schedule.deadline):
        schedule = Schedule(deadline, schedule.priority, schedule.sequence)
    named = (
        (output.get("name", ""), read_parameters(output.get("parameters", ())))
        for output in document.get("outputs", ())
    )
    wishes = read_wishes(named, regions)
    inputs = _read_inputs(document, regions)
    return Asked(
        document.get("model_name", ""),
        document.get("model_version", ""),
        document.get("id", ""),
        call_of(inputs, wishes, schedule),
        wishes,
        parameters.get("triton_enable_empty_final_response") is True,
    )


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


def _read_inputs(document: Document, regions: SystemRegions) -> dict[str, Values]:
    raws: list[memoryview] = document.get("raw_input_contents", [])
    inputs: dict[str, Values] = {}
    used = 0
    for described in document.get("inputs", ()):
        name: str = described.get("name", "")
        datatype: str = described.get("datatype", "")
        shape: list[int] = described.get("shape", [])
        if name in inputs:
            raise BadCall("read the request", f"it has input {shown(name)} twice")
        part = read_range(name, read_parameters(described.get("parameters", ())))
        if part is not None:
            inputs[name] = tensor_from_bytes(name, datatype, shape, regions.read(part))
        elif not raws:
            inputs[name] = tensor_from_contents(name, datatype, shape, described.get("contents", {}))
        elif "contents" in described:
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
