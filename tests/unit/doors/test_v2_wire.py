"""The wire format against the protobuf package itself, and against bytes that are no message."""

from __future__ import annotations

import pickle
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from edge_runtime.doors.v2 import messages
from edge_runtime.doors.v2.typed_contents import tensor_from_contents
from edge_runtime.doors.v2.wire import NUMBERS_MAX, MalformedMessage, varint
from edge_runtime.serving.calls import BadCall

TEXT = st.text(max_size=12)
INT64 = st.integers(-(2**63), 2**63 - 1)
PARAMETERS = st.dictionaries(
    TEXT, st.one_of(st.booleans(), INT64, TEXT, st.floats(allow_nan=False)), max_size=3
)  # fmt: skip


@st.composite
def infer_requests(draw: st.DrawFn) -> Any:
    request = service_pb2.ModelInferRequest(model_name=draw(TEXT), model_version=draw(TEXT), id=draw(TEXT))
    set_parameters(request.parameters, draw(PARAMETERS))
    for _ in range(draw(st.integers(0, 3))):
        tensor = request.inputs.add(name=draw(TEXT), datatype=draw(TEXT), shape=draw(st.lists(INT64, max_size=5)))
        set_parameters(tensor.parameters, draw(PARAMETERS))
        request.raw_input_contents.append(draw(st.binary(max_size=300)))
    for _ in range(draw(st.integers(0, 3))):
        set_parameters(request.outputs.add(name=draw(TEXT)).parameters, draw(PARAMETERS))
    return request


def set_parameters(target: Any, parameters: dict[str, Any]) -> None:
    for key, value in parameters.items():
        match value:
            case bool():
                target[key].bool_param = value
            case int():
                target[key].int64_param = value
            case str():
                target[key].string_param = value
            case float():
                target[key].double_param = value


def got_parameters(entries: list[dict[str, Any]]) -> dict[str, Any]:
    return {entry.get("key", ""): next(iter(entry["value"].values())) for entry in entries}


def expected_parameters(target: Any) -> dict[str, Any]:
    return {key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in target.items()}


@given(infer_requests())
def test_a_request_is_read_as_protobuf_reads_it(request: Any) -> None:
    read = messages.INFER_REQUEST.read(request.SerializeToString())

    assert read.get("model_name", "") == request.model_name
    assert read.get("id", "") == request.id
    assert got_parameters(read.get("parameters", [])) == expected_parameters(request.parameters)
    assert [bytes(raw) for raw in read.get("raw_input_contents", [])] == list(request.raw_input_contents)
    for ours, theirs in zip(read.get("inputs", []), request.inputs, strict=True):
        assert ours.get("name", "") == theirs.name
        assert ours.get("shape", []) == list(theirs.shape)
        assert got_parameters(ours.get("parameters", [])) == expected_parameters(theirs.parameters)
    assert [one.get("name", "") for one in read.get("outputs", [])] == [one.name for one in request.outputs]


@given(infer_requests())
def test_what_was_read_is_written_so_that_protobuf_reads_the_same(request: Any) -> None:
    read = messages.INFER_REQUEST.read(request.SerializeToString())

    assert service_pb2.ModelInferRequest.FromString(messages.INFER_REQUEST.write(read)) == request


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_one_clear_error(content: bytes) -> None:
    for message in (messages.INFER_REQUEST, messages.REPOSITORY_MODEL, messages.REGION, messages.EMPTY):
        with suppress(MalformedMessage):
            message.read(content)


@given(infer_requests(), st.data())
def test_a_request_that_was_cut_or_changed_is_a_request_or_one_clear_error(request: Any, data: st.DataObject) -> None:
    content = bytearray(request.SerializeToString() or b"\x0a\x00")
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]

    with suppress(MalformedMessage):
        messages.INFER_REQUEST.read(bytes(content))


def test_a_tensor_is_a_view_into_the_message_and_leaves_it_once() -> None:
    request = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"\x01\x02" * 400])
    content = request.SerializeToString()

    (raw,) = messages.INFER_REQUEST.read(content)["raw_input_contents"]

    assert raw.obj is content
    assert raw.nbytes == 800


def test_fields_that_a_newer_client_knows_are_skipped() -> None:
    newer = (
        b"\x08\x05"  # field 1 as a number, though it is a text here
        + varint(99 << 3 | 2) + b"\x03abc" + varint(98 << 3) + b"\x96\x01" + varint(97 << 3 | 1) + bytes(8)
        + varint(96 << 3 | 5) + bytes(4) + b"\x12\x012"
    )  # fmt: skip

    assert messages.NAMED.read(newer) == {"version": "2"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x0a\x05abc", "ends within a field"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends within a field"),
        (b"\x0a", "a number in it does not end"),
        (b"\xff" * 11, "a number in it does not end"),
        (b"\x02\x00", "has the number 0"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x0f", "wire type 7"),
        (b"\x0a\x02\xff\xfe", "not UTF-8"),
    ],
)
def test_what_breaks_the_format_is_named(content: bytes, why: str) -> None:
    with pytest.raises(MalformedMessage, match=why):
        messages.NAMED.read(content)


def test_a_message_of_countless_empty_fields_is_refused_before_they_take_memory() -> None:
    with pytest.raises(MalformedMessage, match="more than 65536 fields"):
        messages.INFER_REQUEST.read(b"\x3a\x00" * (NUMBERS_MAX // 2 + 1))
    with pytest.raises(MalformedMessage, match="more than 65536 fields"):
        messages.INFER_REQUEST.read(
            b"\x2a" + varint(NUMBERS_MAX + 4) + b"\x1a" + varint(NUMBERS_MAX) + b"\x01" * NUMBERS_MAX
        )


def test_numbers_may_come_one_by_one_as_well() -> None:
    one_by_one = b"\x2a\x06\x18\x02\x18\x80\x80\x01"  # inputs { shape: 2 shape: 16384 }
    tensor = b"\x2a\x0c\x2a\x0a\x35\x00\x00\x80\x3f\x35\x00\x00\x00\x40"  # inputs { contents { fp32: 1 fp32: 2 } }

    assert messages.INFER_REQUEST.read(one_by_one)["inputs"] == [{"shape": [2, 16384]}]
    contents = messages.INFER_REQUEST.read(tensor)["inputs"][0]["contents"]
    assert tensor_from_contents("x", "FP32", [2], contents).tolist() == [1.0, 2.0]


FIELDS = {
    "BOOL": (np.bool_, "bool_contents"), "INT8": (np.int8, "int_contents"), "INT16": (np.int16, "int_contents"),
    "INT32": (np.int32, "int_contents"), "INT64": (np.int64, "int64_contents"), "UINT8": (np.uint8, "uint_contents"),
    "UINT16": (np.uint16, "uint_contents"), "UINT32": (np.uint32, "uint_contents"),
    "UINT64": (np.uint64, "uint64_contents"), "FP32": (np.float32, "fp32_contents"),
    "FP64": (np.float64, "fp64_contents"),
}  # fmt: skip


@given(st.sampled_from(sorted(FIELDS)), st.binary(max_size=160))
def test_typed_contents_are_the_numbers_that_were_put_in(datatype: str, content: bytes) -> None:
    dtype, field = FIELDS[datatype]
    raw = content[: len(content) // np.dtype(dtype).itemsize * np.dtype(dtype).itemsize]
    numbers = np.frombuffer(raw, np.uint8) % 2 == 1 if datatype == "BOOL" else np.frombuffer(raw, dtype)
    sent = service_pb2.InferTensorContents()
    getattr(sent, field).extend(numbers.tolist())

    got = tensor_from_contents("x", datatype, [numbers.size], messages.CONTENTS.read(sent.SerializeToString()))

    assert np.asarray(got).dtype == dtype
    assert np.array_equal(got, numbers, equal_nan=datatype.startswith("FP"))


def test_millions_of_numbers_are_unfolded_piece_by_piece() -> None:
    numbers = np.arange(-150_000, 150_000, dtype=np.int32).reshape(300, 1000)
    sent = service_pb2.InferTensorContents(int_contents=numbers.ravel().tolist()).SerializeToString()

    got = tensor_from_contents("x", "INT32", [300, 1000], messages.CONTENTS.read(sent))

    assert np.array_equal(got, numbers)


@pytest.mark.parametrize(
    ("fields", "datatype", "count", "why"),
    [
        ({"int_contents": [1]}, "FP32", 1, "travels in fp32_contents, not in int_contents"),
        ({"fp32_contents": [1]}, "FP16", 1, "send it in raw_input_contents"),
        ({"fp32_contents": [1]}, "BF16", 1, "not supported here; send FP32"),
        ({"fp32_contents": [1, 2]}, "FP32", 3, "2 elements came, its shape says 3"),
        ({"bytes_contents": [b"a"]}, "BYTES", 2, "1 elements came, its shape says 2"),
        ({"int_contents": [300]}, "INT8", 1, "int8 cannot hold all of its numbers"),
        ({"uint_contents": [256]}, "UINT8", 1, "uint8 cannot hold all of its numbers"),
        ({}, "FP32", 1 << 60, "too many elements"),
        ({}, "FP32", -1, "impossible"),
    ],
)
def test_contents_that_do_not_fit_their_tensor_are_refused(
    fields: dict[str, list[Any]], datatype: str, count: int, why: str
) -> None:
    sent = service_pb2.InferTensorContents(**fields).SerializeToString()

    with pytest.raises(BadCall, match=f"^cannot read tensor 'x': .*{why}"):
        tensor_from_contents("x", datatype, [count], messages.CONTENTS.read(sent))


@pytest.mark.parametrize("folded", [b"\x80" * 4, b"\x80" * 11 + b"\x01", b"\x80" * (1 << 19) + b"\x01"])
def test_numbers_that_never_end_are_refused(folded: bytes) -> None:
    content = b"\x12" + varint(len(folded)) + folded

    with pytest.raises(BadCall, match=r"end within a number|more than 10 bytes"):
        tensor_from_contents("x", "INT32", [folded.count(b"\x01")], messages.CONTENTS.read(content))


def test_the_error_crosses_process_borders() -> None:
    error = pickle.loads(pickle.dumps(MalformedMessage("it ends within a field")))

    assert str(error) == str(MalformedMessage("it ends within a field"))
