"""Messages and memory between a host and its worker: all arrives as it was, and nothing is read outside of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_runtime.contract.errors import TransportError
from edge_runtime.serving.calls import Values
from edge_runtime.serving.worker_messages import (
    MESSAGE_MAX_BYTES,
    Ask,
    Channel,
    FromHost,
    Inbox,
    Outbox,
    Placed,
    Refusal,
)

ARRAYS = hnp.arrays(
    st.sampled_from(["float32", "uint8", "int64", "float16", "bool", ">f4"]), hnp.array_shapes(max_dims=4, max_side=5)
)
VALUES = st.one_of(ARRAYS, st.lists(st.binary(max_size=200), max_size=6))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Channel]]:
    """A raw end, and a channel that reads what it sends."""
    raw, other = socket.socketpair()
    with raw, other:
        yield raw, Channel(other, FromHost)


def arrived(outbox: Outbox, inbox: Inbox, tensors: dict[str, Values]) -> dict[str, Values]:
    placed, descriptor = outbox.put(tensors)
    inbox.take(descriptor)
    return inbox.values(placed)


@given(st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), min_size=1, max_size=4))
def test_tensors_of_any_kind_arrive_as_they_were_call_after_call(calls: list[dict[str, Values]]) -> None:
    outbox, inbox = Outbox(), Inbox()

    for tensors in calls:
        there = arrived(outbox, inbox, tensors)

        assert there.keys() == tensors.keys()
        for name, values in tensors.items():
            other = there[name]
            if isinstance(values, list):
                assert other == values
            else:
                assert not isinstance(other, list)
                assert (other.dtype, other.shape) == (values.dtype, values.shape)
                assert other.tobytes() == values.tobytes()


def test_after_tensors_that_could_not_be_written_the_next_ones_arrive_all_the_same() -> None:
    outbox, inbox = Outbox(), Inbox()
    arrived(outbox, inbox, {"x": np.ones(8)})
    with pytest.raises(TypeError):
        outbox.put({"x": np.full(100_000, None)})

    there = arrived(outbox, inbox, {"x": np.full(8, 2.0)})

    assert list(there["x"]) == [2.0] * 8


@given(
    st.builds(
        Placed,
        name=st.just("x"),
        offset=st.integers(-(2**40), 2**40),
        dtype=st.sampled_from(["<f4", "|u1", "|O", "nonsense", "", "<V3", "<U7"]),
        shape=st.lists(st.integers(-3, 2**40), max_size=4).map(tuple),
        lengths=st.lists(st.integers(-3, 2**40), max_size=4).map(tuple),
    )
)
def test_nothing_outside_the_memory_is_read(place: Placed) -> None:
    outbox, inbox = Outbox(), Inbox()
    arrived(outbox, inbox, {"x": np.arange(1000, dtype=np.float32)})

    try:
        (values,) = inbox.values([place]).values()
    except TransportError:
        return

    size = sum(map(len, values)) if isinstance(values, list) else values.nbytes
    assert size <= os.sysconf("SC_PAGE_SIZE")


def test_memory_that_was_handed_over_cannot_be_shrunk_any_more() -> None:
    outbox = Outbox()
    placed, descriptor = outbox.put({"x": np.ones(100)})
    assert descriptor is not None
    own = os.dup(descriptor)
    inbox = Inbox()
    inbox.take(descriptor)

    with pytest.raises(PermissionError):
        os.ftruncate(own, 0)
    os.close(own)

    np.testing.assert_array_equal(inbox.values(placed)["x"], np.ones(100))


def test_memory_of_nothing_and_no_memory_are_refused() -> None:
    empty = os.memfd_create("empty", os.MFD_ALLOW_SEALING)
    read_end, write_end = os.pipe()

    for descriptor in (empty, read_end):
        with pytest.raises(TransportError):
            Inbox().take(descriptor)
    os.close(write_end)
    with pytest.raises(TransportError):
        Inbox().values([Placed("x", 0, "<f4", (1,))])


def test_objects_never_cross(ends: tuple[socket.socket, Channel]) -> None:
    with pytest.raises(TypeError):
        Outbox().put({"x": np.array([{}])})


def test_messages_arrive_with_what_was_handed_over(ends: tuple[socket.socket, Channel]) -> None:
    raw, channel = ends
    message = Ask([Placed("x", 0, "<f4", (2, 3))], ("y",), (7, True, False), 12.5, is_vouched_for=True)
    descriptor = os.memfd_create("something")
    os.write(descriptor, b"here")

    Channel(raw, FromHost).send(message, descriptor)
    there, received = channel.receive(60)

    assert there == message
    assert received is not None
    assert os.pread(received, 10, 0) == b"here"
    for one in (descriptor, received):
        os.close(one)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xff\xff\xff",
        (MESSAGE_MAX_BYTES + 1).to_bytes(4, "little"),
        b"\x03\x00\x00\x00abc",
        b"\x01\x00\x00\x00\xc0",
    ],
    ids=["endless", "too long", "nonsense", "nothing"],
)
def test_what_is_no_message_is_refused_without_memory_for_it(
    ends: tuple[socket.socket, Channel], content: bytes
) -> None:
    raw, channel = ends
    raw.sendall(content)

    with pytest.raises(TransportError):
        channel.receive(60)


def test_an_end_that_hangs_up_is_noticed_wherever_it_does(ends: tuple[socket.socket, Channel]) -> None:
    raw, channel = ends
    raw.sendall(b"\x10\x00\x00\x00half")
    raw.shutdown(socket.SHUT_WR)

    for _ in range(2):
        with pytest.raises(EOFError):
            channel.receive(60)


def test_a_long_message_arrives_whole(ends: tuple[socket.socket, Channel]) -> None:
    raw, channel = ends
    message = Refusal("other", "x" * 100_000, "", "", "code")

    Channel(raw, FromHost).send(message)
    there, descriptor = channel.receive(60)

    assert (there, descriptor) == (message, None)
