"""Messages come out as they went in, whether they are like the one before or not."""

from __future__ import annotations

import socket
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.client.frames import HEAD_MAX_BYTES, Kind
from edge_runtime.client.stream import Frame, FrameStream


class Message(NamedTuple):
    """Few values for everything, so that many are alike."""

    kind: Kind
    flags: int
    number: int
    left_us: int
    head: bytes
    body: bytes


MESSAGES = st.builds(
    Message,
    st.sampled_from([Kind.CALL, Kind.LIST]),
    st.sampled_from([0, 1]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 7]),
    st.sampled_from([b"", b"one", b"two", b"a longer one"]),
    st.sampled_from([b"", b"", b"8 bytes.", b"large" * 1000]),
)


@given(st.lists(MESSAGES, max_size=8), st.booleans())
def test_messages_come_out_as_they_went_in(messages: list[Message], asks_for_repeated: bool) -> None:
    near, far = socket.socketpair()
    with near, far:
        sending, receiving = FrameStream(near, 10), FrameStream(far, 10)
        for message in messages:
            sending.send(
                message.kind,
                message.head,
                [message.body] if message.body else (),
                number=message.number,
                flags=message.flags,
                time_left_us=message.left_us,
            )
        near.shutdown(socket.SHUT_WR)

        found = [_received(receiving, asks_for_repeated) for _ in messages]

        assert found == messages
        assert receiving.receive() is None


def _received(stream: FrameStream, asks_for_repeated: bool) -> Message:
    frame = (stream.receive_repeated() if asks_for_repeated else None) or stream.receive()
    assert frame is not None
    body = memoryview(bytearray(frame.body_bytes))
    stream.receive_body(body)
    return Message(Kind(frame.kind), frame.flags, frame.number, frame.time_left_us, frame.head, bytes(body))


def test_what_differs_in_its_number_only_is_the_same_frame_again() -> None:
    near, far = socket.socketpair()
    with near, far:
        sending, receiving = FrameStream(near, 10), FrameStream(far, 10)
        frames: list[Frame | None] = []
        numbers = []
        for number, head in enumerate([b"x", b"x", b"y"]):
            sending.send(Kind.CALL, head, number=number)
            frame = receiving.receive()
            frames.append(frame)
            numbers.append(frame.number if frame else None)

    assert frames[0] is frames[1]
    assert frames[2] is not frames[1]
    assert numbers == [0, 1, 2]


def test_waiting_for_a_repeated_message_never_takes_long() -> None:
    near, far = socket.socketpair()
    with near, far:
        sending, receiving = FrameStream(near, 10), FrameStream(far, 10)

        assert receiving.receive_repeated() is None
        near.sendall(b"\1")
        assert receiving.receive_repeated() is None

        # What came is not lost.
        assert not receiving.is_between_messages
        near.sendall(b"\0" * 31)
        frame = receiving.receive()

        assert frame is not None
        assert frame.kind == Kind.CALL
        assert sending.is_between_messages


def test_messages_as_long_as_they_may_be_come_out_as_they_went_in() -> None:
    near, far = socket.socketpair()
    sent = [Message(Kind.CALL, 0, 1, 0, letter * HEAD_MAX_BYTES, b"x" * 4096) for letter in (b"a", b"b", b"b")]
    found = []
    with near, far:
        sending, receiving = FrameStream(near, 10), FrameStream(far, 10)
        for message in sent:
            sending.send(message.kind, message.head, [message.body], number=message.number)
            found.append(_received(receiving, asks_for_repeated=False))

    assert found == sent
