"""An HTTP/2 connection of the gRPC door, byte by byte: which calls come of what a client sends, and who is stopped."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.doors.budget import Budget
from edge_runtime.doors.v2 import http2_cutter as frames
from edge_runtime.doors.v2.grpc_head import CallHead, CallRefused
from edge_runtime.doors.v2.grpc_limits import GrpcLimits
from edge_runtime.doors.v2.grpc_stream import Event, MessageRules, Stream
from edge_runtime.doors.v2.http2 import Http2Connection
from edge_runtime.doors.v2.http2_library import STREAM_WINDOW, STREAMS_MAX
from edge_runtime.doors.v2.http2_nuisance import FORGIVEN_PER_S, NUISANCE_MAX

UNARY, STREAMING = "/s/Unary", "/s/Streaming"
MESSAGE_MAX = 20 * 1024 * 1024


@dataclass
class House:
    """Lets in whoever calls one of two methods."""

    rules: MessageRules
    refused: int = 0
    under_way: int = 0

    def gate(self, head: CallHead) -> bool:
        if head.path not in {UNARY, STREAMING}:
            raise CallRefused("UNIMPLEMENTED", "there is no such method")
        self.under_way += 1
        return head.path == STREAMING

    def count_refused(self) -> None:
        self.refused += 1

    def forget(self, stream: Stream) -> None:
        assert stream.is_over
        self.under_way -= 1


@dataclass
class Peer:
    """A client without a socket, and the server's end of its connection."""

    total: int = 1 << 30
    max_bytes: int = MESSAGE_MAX
    events: list[Event] = field(default_factory=list)
    said: list[h2.events.Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.budget = Budget(self.total, "memory for messages")
        self.house = House(MessageRules(self.max_bytes, self.budget, lambda _size: 0))
        self.server = Http2Connection(self.house, 0.0)
        self.now = 0.0
        config = h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False)
        self.client = h2.connection.H2Connection(config)
        self.client.initiate_connection()
        self.exchange()

    def send(self, data: bytes, chunk: Callable[[int], int] = lambda room: room) -> None:
        """Have the server receive bytes, so many at a time as `chunk` makes of the room there is."""
        view = memoryview(data)
        while view:
            room = self.server.buffer()
            assert len(room)
            count = max(1, min(len(room), len(view), chunk(len(room))))
            room[:count] = view[:count]
            view = view[count:]
            self.events += self.server.advance(count, self.now)

    def hear(self) -> None:
        """Have the client receive what the server has to say."""
        for part in self.server.outgoing():
            self.said += self.client.receive_data(bytes(part))

    def exchange(self) -> None:
        """Bytes both ways, until nobody has anything to say."""
        while data := self.client.data_to_send():
            self.send(data)
            self.hear()
        self.hear()

    def call(self, path: str = UNARY, *more: tuple[str, str], is_end: bool = False) -> int:
        number = self.client.get_next_available_stream_id()
        self.client.send_headers(number, [*head(path), *more], end_stream=is_end)
        self.exchange()
        return number

    def message(self, number: int, content: bytes, *, is_end: bool = True) -> None:
        self.client.send_data(number, prefixed(content), end_stream=is_end)
        self.exchange()

    def trailers(self, number: int) -> dict[str, str]:
        """What ended a call, as the client heard it."""
        ends = (h2.events.TrailersReceived, h2.events.ResponseReceived)
        told = [dict(one.headers) for one in self.said if isinstance(one, ends) and one.stream_id == number]
        return {str(name): str(value) for name, value in told[-1].items()}

    @property
    def goodbye(self) -> int | None:
        """Why the server ended the connection; None: it has not."""
        ended = [one for one in self.said if isinstance(one, h2.events.ConnectionTerminated)]
        return int(ended[-1].error_code or 0) if ended else None


def head(path: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "here"),
        ("te", "trailers"), ("content-type", "application/grpc"),
    ]  # fmt: skip


def prefixed(content: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(content)) + content


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, number) + payload


def messages(events: list[Event]) -> list[tuple[int, bytes]]:
    return [
        (one.stream.number, bytes(one.arrived.body.content()))
        for one in events
        if one.arrived is not None and one.arrived.body is not None
    ]


def pieces(data: st.DataObject, content: bytes) -> list[bytes]:
    """It, cut anywhere."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=8)))
    return [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]


@settings(max_examples=100)
@given(st.data())
def test_however_the_bytes_come_the_calls_are_the_same(data: st.DataObject) -> None:
    peer = Peer()
    sizes = data.draw(st.lists(st.sampled_from([0, 1, 4, 5, 300, 70_000]), min_size=1, max_size=4))
    contents = [bytes([place + 1]) * size for place, size in enumerate(sizes)]
    wire, expected = bytearray(), []
    for content in contents:
        number = peer.client.get_next_available_stream_id()
        peer.client.send_headers(number, head(data.draw(st.sampled_from([UNARY, STREAMING]))))
        wire += peer.client.data_to_send()
        cut = pieces(data, prefixed(content))
        for place, piece in enumerate(cut):
            is_last = place == len(cut) - 1
            padding = data.draw(st.sampled_from([None, 0, 1, 255]))
            flags = (frames.END_STREAM if is_last else 0) | (0 if padding is None else frames.PADDED)
            padded = piece if padding is None else bytes([padding]) + piece + bytes(padding)
            wire += frame(frames.DATA, flags, number, padded)
        expected.append((number, content))

    chunks = data.draw(st.lists(st.integers(1, 100_000), min_size=1, max_size=20))
    turn = cycle(chunks)
    peer.send(bytes(wire), lambda _: next(turn))

    assert messages(peer.events) == expected
    assert [one.stream.number for one in peer.events if one.arrived is None] == [number for number, _ in expected]
    assert not peer.server.is_over


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=400))
def test_bytes_that_are_no_http2_end_the_connection_and_nothing_else(garbage: bytes) -> None:
    peer = Peer()

    peer.send(garbage + bytes(frame(frames.SETTINGS, 0, 0, b"x")))

    assert not messages(peer.events)


@settings(max_examples=300)
@given(st.data())
def test_frames_of_any_kind_in_any_order_never_do_more_than_end_the_connection(data: st.DataObject) -> None:
    peer = Peer()
    numbers = st.sampled_from([0, 1, 2, 3, 5, 7, 0x7FFF_FFFF])
    block = b"".join(bytes(part) for part in _blocks(peer))
    payloads = st.one_of(
        st.binary(max_size=40), st.just(block), st.just(prefixed(b"abc")), st.just(bytes(4)), st.just(b"\0\0\0\1")
    )
    for _ in range(data.draw(st.integers(1, 25))):
        kind, flags = data.draw(st.integers(0, 11)), data.draw(st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x2D]))
        peer.send(frame(kind, flags, data.draw(numbers), data.draw(payloads)))
        for stream in peer.server.streams:
            if data.draw(st.booleans()):
                peer.server.answer(stream, [b"yes"], 3)
    peer.server.lose()

    assert peer.house.under_way == 0
    peer.budget.take(peer.total)


def _blocks(peer: Peer) -> list[bytes]:
    other = h2.connection.H2Connection(peer.client.config)
    other.initiate_connection()
    other.data_to_send()
    other.send_headers(1, head(UNARY))
    return [other.data_to_send()[9:]]


def test_a_call_is_answered_with_headers_message_and_status() -> None:
    peer = Peer()
    number = peer.call()
    peer.message(number, b"question")

    (stream,) = peer.server.streams
    peer.server.answer(stream, [b"an", b"swer"], 6)
    peer.hear()

    heard = b"".join(one.data for one in peer.said if isinstance(one, h2.events.DataReceived))
    assert heard == prefixed(b"answer")
    assert peer.trailers(number) == {"grpc-status": "0"}
    assert peer.house.under_way == 0
    assert peer.server.is_quiet


def test_headers_that_come_again_and_again_mean_what_they_meant() -> None:
    peer = Peer()
    asked = [
        (path, coding, other)
        for turn in range(4)
        for path in (UNARY, STREAMING, STREAMING)
        for coding, other in (("gzip", "a"), ("gzip", "a"), ("deflate", "a"), ("gzip", "b" * turn))
    ]

    for path, coding, other in asked:
        # The last one moves the places to which the others refer.
        peer.call(path, ("grpc-encoding", coding), ("x", other), is_end=True)

    heads = [one.stream.head for one in peer.events]
    assert [(head.path, head.coding) for head in heads] == [(path, coding) for path, coding, _ in asked]


def test_an_answer_waits_for_the_windows_that_the_client_opens() -> None:
    peer = Peer()
    number = peer.call()
    peer.message(number, b"question")
    answer = bytes(200_000)

    (stream,) = peer.server.streams
    peer.server.answer(stream, [answer], len(answer))
    peer.hear()
    held_back = stream.pending
    while stream.pending:
        peer.client.increment_flow_control_window(70_000)
        peer.client.increment_flow_control_window(70_000, number)
        peer.exchange()

    assert held_back == len(answer) + 5 - 65_535
    assert sum(len(one.data) for one in peer.said if isinstance(one, h2.events.DataReceived)) == len(answer) + 5
    assert peer.trailers(number) == {"grpc-status": "0"}


@pytest.mark.parametrize(("in_ten_seconds", "given_up_at"), [(10_000, None), (1, 130.0)])
def test_an_answer_is_fetched_as_slowly_as_the_limit_says(in_ten_seconds: int, given_up_at: float | None) -> None:
    limits = GrpcLimits(send_s=60.0, send_bytes_per_s=1000.0)
    peer = Peer()
    number = peer.call()
    peer.message(number, b"question")
    (stream,) = peer.server.streams
    peer.server.answer(stream, [bytes(200_000)], 200_000)
    ended: list[float] = []

    while peer.server.calls:
        peer.now += 10.0
        peer.client.increment_flow_control_window(in_ten_seconds)
        peer.client.increment_flow_control_window(in_ten_seconds, number)
        peer.exchange()
        ended += [peer.now for _ in peer.server.expire(peer.now, limits)]

    # A minute, and 65 seconds for the 65,535 bytes that its first window held.
    assert ended == ([] if given_up_at is None else [given_up_at])


def test_an_answer_of_which_nothing_is_fetched_any_more_is_given_up() -> None:
    peer = Peer()
    peer.message(peer.call(), b"question")
    (stream,) = peer.server.streams
    peer.server.answer(stream, [bytes(1 << 20)], 1 << 20)

    first = peer.server.expire(60.0, GrpcLimits(send_s=60.0))
    then = peer.server.expire(60.1, GrpcLimits(send_s=60.0))

    assert (first, then) == ([], [Event(stream, is_gone=True)])


def test_a_stream_on_which_nothing_is_asked_ends_at_its_deadline() -> None:
    peer = Peer()
    number = peer.call(STREAMING, ("grpc-timeout", "10S"))
    peer.message(number, b"question", is_end=False)
    (stream,) = peer.server.streams

    under_way = peer.server.expire(10.1, GrpcLimits())
    peer.server.took(stream)
    ended = peer.server.expire(10.1, GrpcLimits())
    peer.hear()

    assert (under_way, ended) == ([], [Event(stream, is_gone=True)])
    assert peer.trailers(number)["grpc-status"] == "4"
    assert peer.house.under_way == 0


def test_long_messages_never_wait_for_a_window_and_their_calls_are_refused_beyond_their_size() -> None:
    peer = Peer()
    number, content = peer.call(), bytes(MESSAGE_MAX)
    wire = memoryview(prefixed(content))
    for start in range(0, len(wire), frames.FRAME_MAX_BYTES):
        piece = wire[start : start + frames.FRAME_MAX_BYTES]
        peer.client.increment_flow_control_window(1)
        peer.send(frame(frames.DATA, 0, number, bytes(piece)))
        peer.hear()

    longer = peer.call()
    peer.send(frame(frames.DATA, 0, longer, struct.pack(">BI", 0, MESSAGE_MAX + 1)))
    peer.hear()

    assert [size for _, size in ((n, len(c)) for n, c in messages(peer.events))] == [MESSAGE_MAX]
    assert peer.trailers(longer)["grpc-status"] == "8"


def test_announced_messages_are_counted_and_those_beyond_the_memory_for_all_are_refused() -> None:
    peer = Peer(total=100)
    numbers = [peer.call() for _ in range(3)]

    for number in numbers:
        peer.send(frame(frames.DATA, 0, number, prefixed(bytes(60))[:30]))
        peer.hear()

    assert peer.house.under_way == 1
    assert [peer.trailers(number)["grpc-status"] for number in numbers[1:]] == ["8", "8"]
    assert "memory for messages" in peer.trailers(numbers[1])["grpc-message"]
    peer.send(frame(frames.RST_STREAM, 0, numbers[0], bytes(4)))
    peer.budget.take(100)


def test_what_comes_for_a_refused_call_is_thrown_away_and_the_next_call_is_taken() -> None:
    peer = Peer(max_bytes=10)
    refused = peer.call()
    peer.send(frame(frames.DATA, 0, refused, prefixed(bytes(100_000))))
    for _ in range(40):
        peer.send(frame(frames.DATA, 0, refused, bytes(frames.FRAME_MAX_BYTES)))
    peer.send(frame(frames.DATA, frames.END_STREAM, refused))
    peer.hear()

    number = peer.call()
    peer.message(number, b"short")

    assert messages(peer.events) == [(number, b"short")]
    assert not peer.server.is_over


def test_a_stream_takes_message_after_message_and_tells_of_one_for_which_there_was_no_room() -> None:
    peer = Peer(total=10)
    number = peer.call(STREAMING)
    for content in (b"12345", bytes(50), b"67890"):
        peer.message(number, content, is_end=False)

    arrived = [one.arrived for one in peer.events if one.arrived is not None]

    assert [one.refusal is not None for one in arrived] == [False, True, False]
    assert messages(peer.events) == [(number, b"12345"), (number, b"67890")]


def test_the_window_of_a_stream_is_opened_only_when_its_messages_are_answered() -> None:
    peer = Peer()
    number = peer.call(STREAMING)
    (stream,) = peer.server.streams
    half = bytes(STREAM_WINDOW // 2)
    for start in range(0, len(half), frames.FRAME_MAX_BYTES):
        content = half[start : start + frames.FRAME_MAX_BYTES - 5]
        peer.send(frame(frames.DATA, 0, number, prefixed(content)))
    waiting = stream.window

    for _ in range(stream.unread):
        peer.server.took(stream)

    assert waiting <= STREAM_WINDOW // 2
    assert stream.window == STREAM_WINDOW


def test_more_than_the_window_of_a_stream_resets_it() -> None:
    peer = Peer()
    number = peer.call(STREAMING)
    for _ in range(STREAM_WINDOW // frames.FRAME_MAX_BYTES + 1):
        peer.send(frame(frames.DATA, 0, number, prefixed(bytes(frames.FRAME_MAX_BYTES - 5))))
    peer.hear()

    reset = [one for one in peer.said if isinstance(one, h2.events.StreamReset)]

    assert [int(one.error_code or 0) for one in reset] == [frames.FLOW_CONTROL_ERROR]
    assert not peer.server.is_over


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (lambda _: frame(frames.PING, 0, 0, bytes(8)), frames.ENHANCE_YOUR_CALM),
        (lambda _: frame(frames.SETTINGS, 0, 0), frames.ENHANCE_YOUR_CALM),
        (lambda _: frame(frames.PRIORITY, 0, 1, b"\0\0\0\3\0"), frames.ENHANCE_YOUR_CALM),
        (lambda _: frame(frames.DATA, 0, 1), frames.ENHANCE_YOUR_CALM),
        (lambda _: frame(frames.DATA, frames.PADDED, 1, b"\0"), frames.ENHANCE_YOUR_CALM),
        (lambda _: frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"), frames.ENHANCE_YOUR_CALM),
        (lambda _: frame(0xEE, 0, 0, b"?"), frames.ENHANCE_YOUR_CALM),
    ],
)
def test_frames_that_bring_nothing_further_are_taken_so_many_times(attack: Callable[[int], bytes], code: int) -> None:
    peer = Peer()
    peer.call(STREAMING)

    for turn in range(NUISANCE_MAX + 1):
        peer.send(attack(turn))
        if not turn % 100:
            peer.hear()
    peer.hear()

    assert peer.goodbye == code
    assert peer.house.under_way == 0


def test_calls_that_are_opened_only_to_be_reset_are_taken_so_many_times() -> None:
    peer = Peer()

    for _ in range(NUISANCE_MAX + 1):
        if peer.server.is_over:
            break
        number = peer.client.get_next_available_stream_id()
        peer.client.send_headers(number, head(UNARY))
        peer.client.reset_stream(number)
        peer.exchange()

    assert peer.goodbye == frames.ENHANCE_YOUR_CALM


def test_with_time_and_with_every_message_a_nuisance_is_forgotten() -> None:
    peer = Peer()
    number = peer.call(STREAMING)
    for turn in range(3 * NUISANCE_MAX):
        peer.now += 1 / FORGIVEN_PER_S
        peer.send(frame(frames.PING, 0, 0, bytes(8)))
        if not turn % 100:
            peer.hear()

    for _ in range(3 * NUISANCE_MAX):
        peer.send(frame(frames.PING, 0, 0, bytes(8)) + frame(frames.DATA, 0, number, prefixed(b"")))

    assert not peer.server.is_over


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frame(frames.HEADERS, 0, 9, b"x") + frame(frames.DATA, 0, 1, b"x"), frames.PROTOCOL_ERROR),
        (frame(frames.DATA, 0, 0, b"x"), frames.PROTOCOL_ERROR),
        (frame(frames.DATA, 0, 99, b"x"), frames.PROTOCOL_ERROR),
        (frame(frames.DATA, frames.PADDED, 1, b"\5abc"), frames.PROTOCOL_ERROR),
        (frame(frames.PUSH_PROMISE, frames.END_HEADERS, 1, b"\0\0\0\2"), frames.PROTOCOL_ERROR),
        (frame(frames.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2, frames.FLOW_CONTROL_ERROR),
        (b"\xff\xff\xff" + bytes(6), frames.FRAME_SIZE_ERROR),
        (b"\xff\xff\xff\1" + bytes(5), frames.ENHANCE_YOUR_CALM),
        (frame(frames.HEADERS, 0, 9) + frame(frames.CONTINUATION, 0, 9, bytes(30_000)) * 3, frames.ENHANCE_YOUR_CALM),
    ],
)
def test_whoever_breaks_the_protocol_is_told_how(wire: bytes, code: int) -> None:
    peer = Peer()
    peer.call(STREAMING)

    peer.send(wire)
    peer.hear()

    assert peer.goodbye == code
    assert peer.house.under_way == 0


def test_headers_that_unfold_to_more_than_they_may_are_not_unfolded() -> None:
    peer = Peer()
    number = peer.call()
    peer.client.send_headers(number + 2, [*head(UNARY), ("x", "y" * 4000)])
    peer.exchange()
    block = bytes([0xBE]) * 2000  # each refers to the four kilobytes before

    peer.send(frame(frames.HEADERS, frames.END_HEADERS, number + 4, block))
    peer.hear()

    assert peer.goodbye == frames.ENHANCE_YOUR_CALM


def test_more_calls_at_once_than_a_client_was_told_end_the_connection() -> None:
    peer = Peer()
    for _ in range(STREAMS_MAX):
        peer.call()
    assert peer.server.calls == STREAMS_MAX

    block = _blocks(peer)[0]
    peer.send(frame(frames.HEADERS, frames.END_HEADERS, 2 * STREAMS_MAX + 1, block))

    assert peer.server.is_over


def test_after_a_goodbye_calls_under_way_are_answered_and_new_ones_refused() -> None:
    peer = Peer()
    number = peer.call()
    peer.server.drain()
    late = number + 2
    peer.send(frame(frames.HEADERS, frames.END_HEADERS, late, _blocks(peer)[0]))
    peer.send(frame(frames.DATA, frames.END_STREAM, number, prefixed(b"question")))

    (stream,) = peer.server.streams
    is_spent = peer.server.is_spent
    peer.server.answer(stream, [b"answer"], 6)
    out = b"".join(bytes(part) for part in peer.server.outgoing())

    assert frame(frames.RST_STREAM, 0, late, struct.pack(">I", frames.REFUSED_STREAM)) in out
    assert b"answer" in out
    assert (is_spent, peer.server.is_spent) == (False, True)


def test_a_client_that_says_goodbye_is_answered_all_the_same() -> None:
    peer = Peer()
    peer.message(peer.call(), b"question")
    peer.send(frame(frames.GOAWAY, 0, 0, bytes(8)))

    (stream,) = peer.server.streams
    peer.server.answer(stream, [b"answer"], 6)

    assert b"answer" in b"".join(bytes(part) for part in peer.server.outgoing())
    assert peer.server.is_spent


def test_a_length_that_was_announced_is_nothing_to_mind() -> None:
    peer = Peer()
    number = peer.call(UNARY, ("content-length", "13"))

    peer.send(frame(frames.DATA, frames.END_STREAM, number, prefixed(b"question")))

    assert messages(peer.events) == [(number, b"question")]


@pytest.mark.parametrize("wire", [prefixed(b"question")[:-1], b"\0\0", prefixed(b"abc", flag=1), prefixed(b"", flag=7)])
def test_a_message_that_ends_early_or_is_none_is_one_clear_error(wire: bytes) -> None:
    peer = Peer()
    number = peer.call()

    peer.send(frame(frames.DATA, frames.END_STREAM, number, wire))
    peer.hear()

    assert peer.trailers(number)["grpc-status"] == "13"
    assert peer.house.refused == 1
    assert not peer.server.is_over
