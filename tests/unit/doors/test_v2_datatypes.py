"""Tensors as the protocol carries them: what fits is a view, what does not is one clear error."""

import json
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from edge_runtime.doors.v2.datatypes import (
    datatype_of,
    json_values,
    raw_bytes,
    split_elements,
    tensor_from_bytes,
    tensor_from_json,
)
from edge_runtime.serving.calls import BadCall

DTYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"]
some_array = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


@given(some_array)
def test_raw_bytes_come_back_as_the_same_array(array: np.ndarray) -> None:
    read = tensor_from_bytes("x", datatype_of(array.dtype.name), array.shape, bytes(raw_bytes(array)))

    assert isinstance(read, np.ndarray)
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@given(some_array.filter(lambda array: bool(np.isfinite(array).all())))
@example(np.array([0, 2**63], np.uint64))
def test_json_comes_back_as_the_same_array_flat_and_nested(array: np.ndarray) -> None:
    datatype = datatype_of(array.dtype.name)

    flat = tensor_from_json("x", datatype, array.shape, json.dumps(json_values("x", array)).encode())
    nested = tensor_from_json(
        "x", datatype, array.shape, json.dumps(array.tolist() if array.ndim else [array.item()]).encode()
    )

    for read in (flat, nested):
        assert isinstance(read, np.ndarray)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_elements_come_back_from_their_framing(elements: list[bytes]) -> None:
    assert split_elements("x", len(elements), raw_bytes(elements)) == elements


@given(st.binary(max_size=64), st.integers(0, 1 << 40))
def test_framing_written_by_a_stranger_is_elements_or_one_error(content: bytes, count: int) -> None:
    try:
        elements = split_elements("x", count, content)
    except BadCall:
        return

    assert raw_bytes(elements) == content


def test_an_element_that_claims_four_gigabytes_takes_no_memory() -> None:
    with pytest.raises(BadCall, match="past the end"):
        split_elements("x", 1, struct.pack("<I", 0xFFFFFFFF) + b"abc")


def test_a_tensor_that_does_not_start_at_a_multiple_of_its_item_is_copied() -> None:
    content = memoryview(b"\0" + np.arange(4, dtype=np.float32).tobytes())[1:]

    read = tensor_from_bytes("x", "FP32", (4,), content)

    assert isinstance(read, np.ndarray)
    assert read.flags.aligned
    np.testing.assert_array_equal(read, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("datatype", "shape", "content", "why"),
    [
        ("FP32", [2, 2], bytes(15), "takes 16 bytes, 15 came"),
        ("FP32", [-1], bytes(4), "impossible"),
        ("FP32", [1 << 40, 1 << 40], bytes(4), "too many elements"),
        ("FP32", [0, 1 << 62, 1 << 62], b"", "too many elements"),
        ("FP32", [1] * 33, bytes(4), "impossible"),
        ("BF16", [2], bytes(4), "BF16.*send FP32"),
        ("float32", [1], bytes(4), "use one of BOOL"),
        ("BOOL", [2], b"\x01\x02", "neither 0 nor 1"),
        ("BYTES", [2], b"\0\0\0\0", "do not fit"),
        ("BYTES", [1], b"\0\0\0\0x", "follow its 1 elements"),
        ("BYTES", [65537], bytes(4 * 65537), "at most 65536"),
    ],
)
def test_bytes_that_do_not_fit_are_refused_by_name(datatype: str, shape: list[int], content: bytes, why: str) -> None:
    with pytest.raises(BadCall, match=f"'image'.*{why}"):
        tensor_from_bytes("image", datatype, shape, content)


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("UINT8", [1], b"[256]"),
        ("INT8", [1], b"[-129]"),
        ("UINT64", [1], b"[18446744073709551616]"),
        ("INT32", [1], b"[1.5]"),
        ("INT32", [2], b"[1,true]"),
        ("BOOL", [1], b"[1]"),
        ("FP32", [1], b'["1"]'),
        ("FP32", [1], b"[NaN]"),
        ("FP32", [1], b"[1e39]"),
        ("FP32", [2], b"[1]"),
        ("FP32", [2, 2], b"[[1,2],[3]]"),
        ("FP32", [2, 2], b"[[1,2,3,4]]"),
        ("FP32", [1], b"[" * 100_000),
        ("FP32", [1 << 40], b"[1]"),
        ("BYTES", [1], b"[1]"),
        ("FP32", [1], b"{}"),
    ],
)
def test_json_values_that_are_not_of_the_datatype_are_refused(datatype: str, shape: list[int], data: bytes) -> None:
    with pytest.raises(BadCall, match="'x'"):
        tensor_from_json("x", datatype, shape, data)


def test_bytes_that_are_no_text_are_not_given_as_json() -> None:
    with pytest.raises(BadCall, match="ask for binary data"):
        json_values("x", [b"\xff"])
