"""What a ModelInfer request asks, when it is like one before and when it is not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.doors.v2 import grpc_infer
from edge_runtime.doors.v2.grpc_infer import Asked, InferReader
from edge_runtime.doors.v2.messages import INFER_REQUEST
from edge_runtime.doors.v2.regions import SystemRegions
from edge_runtime.doors.v2.wire import Document, MalformedMessage
from edge_runtime.serving.calls import BadCall


def request(*tensors: Any, model: str = "m", **fields: Any) -> bytes:
    described: list[Document] = [
        {"name": f"x{place}", "datatype": "FP32", "shape": list(np.shape(tensor))}
        for place, tensor in enumerate(tensors)
    ]
    raws = [np.asarray(tensor, "<f4").tobytes() for tensor in tensors]
    return INFER_REQUEST.write({"model_name": model, "inputs": described} | fields | {"raw_input_contents": raws})


def numbers(asked: Asked) -> list[list[float]]:
    return [np.ravel(values).tolist() for values in asked.call.inputs.values()]  # type: ignore[arg-type]


@pytest.fixture
def reader() -> InferReader:
    return InferReader(SystemRegions())


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Messages that were parsed."""
    found: list[bytes] = []
    read = INFER_REQUEST.read

    class Counting:
        def read(self, content: bytes) -> Document:
            found.append(content)
            return read(content)

    monkeypatch.setattr(grpc_infer, "INFER_REQUEST", Counting())
    return found


def test_another_tensor_in_the_same_request_is_not_parsed_again(reader: InferReader, parsed: list[bytes]) -> None:
    one, other = request([1, 2], [3.0]), request([4, 5], [6.0])

    asked = [numbers(reader.read(content, 0)) for content in (one, other, one)]

    assert asked == [[[1, 2], [3]], [[4, 5], [6]], [[1, 2], [3]]]
    assert parsed == [one]


@pytest.mark.parametrize(
    ("change", "tells"),
    [
        (lambda: request([1, 2], model="n"), lambda asked: asked.model == "n"),
        (lambda: request([[1, 2]], model=""), lambda asked: asked.model == ""),
        (lambda: request([1, 2], id="7"), lambda asked: asked.id == "7"),
    ],
    ids=["model of the same length", "shape instead of a name", "with an id"],
)
def test_another_request_is_told_apart(
    reader: InferReader, change: Callable[[], bytes], tells: Callable[[Asked], bool]
) -> None:
    reader.read(request([1, 2]), 0)

    assert tells(reader.read(change(), 0))


def test_only_a_long_request_like_one_that_was_read_is_quick(reader: InferReader) -> None:
    long = [0.0] * (grpc_infer.QUICK_BYTES // 4 + 1)
    reader.read(request(long), 0)

    assert reader.is_quick(request(long))
    assert not reader.is_quick(request(long, model="n"))


def test_deadlines_begin_when_each_request_comes(reader: InferReader) -> None:
    timeout = {"parameters": [{"key": "timeout", "value": {"int64_param": 1_000_000}}]}

    deadlines = [reader.read(request([1.0], **timeout), now).call.deadline for now in (10.0, 20.0)]

    assert deadlines == [11, 21]


def test_a_request_that_is_refused_is_refused_again(reader: InferReader) -> None:
    content = request([1, 2], inputs=[{"name": "x", "datatype": "FP32", "shape": [3]}])

    for _ in range(2):
        with pytest.raises(BadCall, match="takes 12 bytes, 8 came"):
            reader.read(content, 0)


def test_shared_memory_is_looked_for_each_time(reader: InferReader) -> None:
    place: list[Document] = [
        {"key": "shared_memory_region", "value": {"string_param": "gone"}},
        {"key": "shared_memory_byte_size", "value": {"int64_param": 4}},
    ]
    given_there: Document = {"name": "x", "datatype": "FP32", "shape": [1], "parameters": place}
    for content in (request(inputs=[given_there]), request([1.0], outputs=[{"name": "y", "parameters": place}])):
        for _ in range(2):
            with pytest.raises(BadCall, match="gone"):
                reader.read(content, 0)


def test_what_is_remembered_is_bounded(reader: InferReader) -> None:
    for length in range(1, 4 * grpc_infer._FORMS_MAX):
        reader.read(request([1.0], model="m" * length), 0)
    reader.read(request([1.0], model="m" * grpc_infer._TEXT_MAX), 0)

    assert len(reader._forms) <= grpc_infer._FORMS_MAX
    assert all(len(text) < grpc_infer._TEXT_MAX for form in reader._forms.values() for _, text in form.texts)


def test_what_is_remembered_keeps_no_tensor(reader: InferReader) -> None:
    beside: Document = {"fp32_contents": [b"1234"]}
    given: Document = {"name": "x0", "datatype": "FP32", "shape": [1], "contents": beside}
    large = request(np.zeros(100_000), inputs=[given])
    users = sys.getrefcount(large)

    with pytest.raises(BadCall, match="typed contents beside raw ones"):
        reader.read(large, 0)

    assert sys.getrefcount(large) == users


@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 255))
def test_a_reader_that_remembers_reads_as_one_that_does_not(content: bytes, place: int, byte: int) -> None:
    known = request([1, 2], [3.0])
    changed = bytearray(known)
    changed[place % len(changed)] = byte
    remembering = InferReader(SystemRegions())
    remembering.read(known, 0)

    for message in (bytes(changed), content):
        assert _read(remembering, message) == _read(InferReader(SystemRegions()), message)


def _read(reader: InferReader, message: bytes) -> object:
    try:
        asked = reader.read(message, 0)
    except (BadCall, MalformedMessage) as error:
        return str(error)
    inputs = {name: np.asarray(values).tobytes() for name, values in asked.call.inputs.items()}
    return asked.model, asked.version, asked.id, asked.wishes, asked.call.outputs, inputs
