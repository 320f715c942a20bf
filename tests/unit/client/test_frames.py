"""The local door's wire format: what is written is read again, and whatever else comes is one clear error."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.client import frames
from edge_runtime.client.frames import (
    AnswerHead,
    CallHead,
    DescriptionHead,
    RefusalHead,
    Room,
    TensorRecord,
    WelcomeHead,
)
from edge_runtime.contract.errors import ContractError

names = st.text(st.characters(codec="utf-8"), max_size=20)
sizes = st.integers(0, 2**64 - 1)
records = st.builds(
    TensorRecord,
    names,
    st.sampled_from(frames.DTYPES),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=frames.AXES_MAX).map(tuple),
    st.integers(0, 2**32 - 1),
    sizes,
    sizes,
)
tensors = st.lists(records, max_size=5).map(tuple)
rooms = st.builds(Room, st.integers(0, 2**32 - 1), sizes, sizes)
calls = st.builds(CallHead, names, tensors, names, st.lists(names, max_size=4).map(tuple), names, rooms)
READERS = (
    frames.unpack_hello,
    frames.unpack_welcome,
    frames.unpack_call,
    frames.unpack_answer,
    frames.unpack_description,
    frames.unpack_listing,
    frames.unpack_refusal,
    lambda content: frames.unpack_elements(content, 3),
)


@given(calls)
def test_a_call_is_read_as_it_was_written(head: CallHead) -> None:
    assert frames.unpack_call(frames.pack_call(head)) == head


@given(st.builds(AnswerHead, names, names, tensors))
def test_an_answer_is_read_as_it_was_written(head: AnswerHead) -> None:
    assert frames.unpack_answer(frames.pack_answer(head)) == head


@given(st.builds(DescriptionHead, names, names, names, tensors, tensors))
def test_a_description_is_read_as_it_was_written(head: DescriptionHead) -> None:
    assert frames.unpack_description(frames.pack_description(head)) == head


@given(st.builds(RefusalHead, names, names, names, names, st.integers(0, 2**32 - 1)))
def test_a_refusal_is_read_as_it_was_written(head: RefusalHead) -> None:
    assert frames.unpack_refusal(frames.pack_refusal(head)) == head


@given(st.lists(st.tuples(names, names, names), max_size=10))
def test_a_list_of_models_is_read_as_it_was_written(models: list[tuple[str, str, str]]) -> None:
    assert frames.unpack_listing(frames.pack_listing(models)) == models


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_elements_are_read_as_they_were_written(elements: list[bytes]) -> None:
    assert frames.unpack_elements(frames.pack_elements(elements), len(elements)) == elements


def test_a_welcome_is_read_as_it_was_written() -> None:
    welcome = WelcomeHead(1, 16, 1 << 30, 1 << 28)

    assert frames.unpack_welcome(frames.pack_welcome(welcome)) == welcome


@pytest.mark.parametrize("read", READERS)
@given(content=st.binary(max_size=300))
def test_bytes_from_a_stranger_are_read_or_refused(read: Callable[[bytes], object], content: bytes) -> None:
    with suppress(ContractError):
        read(content)


@given(calls, st.data())
def test_a_call_that_was_cut_off_is_refused(head: CallHead, data: st.DataObject) -> None:
    whole = frames.pack_call(head)
    cut = data.draw(st.integers(0, len(whole) - 1))

    with pytest.raises(ContractError, match="cannot read a call"):
        frames.unpack_call(whole[:cut])


@given(calls)
def test_a_call_with_something_behind_it_is_refused(head: CallHead) -> None:
    with pytest.raises(ContractError, match="left over"):
        frames.unpack_call(frames.pack_call(head) + b"\0")


def test_more_tensors_than_are_allowed_are_refused_before_they_are_read() -> None:
    head = bytearray(frames.pack_call(CallHead("m", ())))
    head[8:10] = (60000).to_bytes(2, "little")

    with pytest.raises(ContractError, match="60000 tensors"):
        frames.unpack_call(bytes(head))


def test_a_head_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(ContractError, match="allowed"):
        frames.pack_call(CallHead("m", tuple(TensorRecord("n" * 1000, "uint8", (1,)) for _ in range(100))))


def test_the_format_is_the_one_that_is_documented() -> None:
    """What a client in another language was built from must not change under it."""
    record = TensorRecord("x", "float32", (1, 2), 3, 64, 8)
    head = CallHead("net", (record,), "2.0", ("y",), "s", Room(3, 128, 4096))

    assert frames.pack_call(head).hex(" ", -4) == (
        "03000300 01000100 01000000 03000000 80000000 00000000 00100000 00000000 6e657432 2e307301 00790a02 "
        "01000300 00004000 00000000 00000800 00000000 00000100 00000000 00000200 00000000 000078"
    )
    assert frames.HEADER.pack(1, 2, 0, 7, 90, -1, 250_000, 8).hex(" ", -4) == (
        "01020000 07000000 5a000000 ffffffff 90d00300 00000000 08000000 00000000"
    )
