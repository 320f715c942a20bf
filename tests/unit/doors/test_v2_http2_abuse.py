"""An HTTP/2 connection of the gRPC door whose client takes the most of it: what that may cost, and who is let be."""

from __future__ import annotations

import gc
import struct
import weakref

from edge_runtime.doors.v2 import http2_cutter as frames
from edge_runtime.doors.v2.grpc_limits import GrpcLimits
from edge_runtime.doors.v2.grpc_stream import Share, Stream
from edge_runtime.doors.v2.http2 import Http2Connection
from edge_runtime.doors.v2.http2_nuisance import FORGIVEN_PER_S, NUISANCE_MAX
from edge_runtime.doors.v2.http_body import Body
from tests.unit.doors.test_v2_http2 import STREAMING, Peer, frame, prefixed

CODE_INITIAL_WINDOW = 4
MIB = 1024 * 1024


def asked(peer: Peer) -> Stream:
    number = peer.call()
    peer.message(number, b"?")
    return next(event.stream for event in peer.events if event.stream.number == number)


def opened(number: int, size: int) -> bytes:
    return frame(frames.WINDOW_UPDATE, 0, number, size.to_bytes(4, "big"))


def sent(peer: Peer) -> int:
    """Bytes of tensors that the server has to say; nothing of it is heard."""
    return sum(len(part) for part in peer.server.outgoing() if isinstance(part, memoryview))


def test_a_client_that_opens_both_windows_for_every_4_kib_gets_all_of_a_long_answer() -> None:
    peer = Peer()
    stream = asked(peer)
    peer.server.answer(stream, [bytes(16 * MIB)], 16 * MIB)

    got = news = sent(peer)
    while news:
        for _ in range(0, news, 4096):
            peer.send(opened(0, 4096) + opened(stream.number, 4096))
        news = sent(peer)
        got += news

    assert not peer.server.is_over
    assert got == 16 * MIB + 5


def test_windows_moved_byte_by_byte_make_answers_dribble_only_for_so_long() -> None:
    peer = Peer()
    streams = [asked(peer) for _ in range(100)]
    peer.send(frame(frames.SETTINGS, 0, 0, struct.pack(">HI", CODE_INITIAL_WINDOW, 0)) + opened(0, 1 << 30))
    for stream in streams:
        peer.server.answer(stream, [bytes(MIB)], MIB)
    peer.server.outgoing()

    moves = 0
    while not peer.server.is_over:
        moves += 1
        assert moves < NUISANCE_MAX
        peer.send(frame(frames.SETTINGS, 0, 0, struct.pack(">HI", CODE_INITIAL_WINDOW, moves)))
        peer.server.outgoing()

    assert moves <= NUISANCE_MAX // len(streams) + 1


def test_a_stream_whose_messages_never_end_where_a_frame_does_is_not_taken_for_stuck() -> None:
    peer = Peer()
    number = peer.call(STREAMING)
    message = prefixed(bytes(100))
    peer.send(frame(frames.DATA, 0, number, message[:50]))
    (stream,) = peer.server.streams

    began = stream.since
    peer.now = 40.0
    peer.send(frame(frames.DATA, 0, number, message[50:] + message[:50]))

    assert began == 0.0
    assert stream.since == 40.0


def test_empty_messages_that_nobody_has_answered_take_memory_too() -> None:
    peer = Peer(total=MIB)
    number = peer.call(STREAMING)

    sent_messages = 0
    while not any(event.is_gone for event in peer.events):
        sent_messages += 1000
        peer.send(frame(frames.DATA, 0, number, prefixed(b"") * 1000))
        assert sent_messages < 100_000
    peer.hear()

    assert len(peer.events) < 3000
    assert peer.trailers(number)["grpc-status"] == "8"
    peer.budget.take(MIB)  # all of it is there again


def test_what_came_of_a_call_that_is_over_is_let_go_in_the_middle_of_a_frame() -> None:
    peer = Peer()
    number = peer.call()
    content = prefixed(bytes(MIB // 2))
    whole = frame(frames.DATA, frames.END_STREAM, number, content)
    peer.send(whole[: MIB // 4])
    stream, assembly = peer.server._streams[number]
    assert assembly._body is not None
    memory = weakref.ref(assembly._body)
    del assembly

    peer.server.reset(stream, frames.CANCEL)
    peer.server.shed()
    gc.collect()
    is_kept = memory() is not None
    peer.send(whole[MIB // 4 :])
    another = asked(peer)

    assert not is_kept
    assert another in peer.server.streams


def test_buffers_that_wait_for_a_next_message_are_bounded_for_all_clients_together() -> None:
    peer = Peer()
    rules = peer.house.rules
    size = rules.spares._left // 2
    bodies = []
    for _ in range(3):
        body = Body(Share(peer.budget))
        body.begin(size, 0)
        while body.size < size:
            body.filled(len(body.room()))
        bodies.append(body)
    clients = [Http2Connection(peer.house, 0.0) for _ in bodies]

    for client, body in zip(clients, bodies, strict=True):
        client.keep(body)
    kept = [client._spare is not None for client in clients]
    for client in clients:
        client.lose()
        client.keep(bodies[0])

    assert kept == [True, True, False]
    assert all(client._spare is None for client in clients)
    rules.spares.take(2 * size)  # all of it is there again


def test_as_many_clients_as_are_taken_leave_half_of_a_process_s_descriptors() -> None:
    assert 2 * GrpcLimits().connections <= 1024 // 2


def test_a_buffer_that_an_engine_still_reads_is_not_given_to_the_next_message() -> None:
    peer = Peer()
    first, second = b"1" * (MIB // 2), b"2" * (MIB // 2)
    number = peer.call()
    peer.send(frame(frames.DATA, frames.END_STREAM, number, prefixed(first)))
    (body,) = (event.arrived.body for event in peer.events if event.arrived is not None)
    assert body is not None
    engine_reads = body.content()

    peer.client.reset_stream(number)
    peer.exchange()
    peer.server.keep(body)
    peer.send(frame(frames.DATA, frames.END_STREAM, peer.call(), prefixed(second)))
    last = [event.arrived.body for event in peer.events if event.arrived is not None][-1]
    assert last is not None

    assert bytes(last.content()) == second
    assert bytes(engine_reads) == first


def test_calls_that_are_refused_at_the_gate_are_taken_so_many_times() -> None:
    peer = Peer()

    for _ in range(NUISANCE_MAX + 1):
        peer.call("/s/Nothing")
        if peer.server.is_over:
            break

    assert peer.goodbye == frames.ENHANCE_YOUR_CALM


def test_a_client_that_is_refused_now_and_then_is_let_be() -> None:
    peer = Peer()

    for _ in range(NUISANCE_MAX + 500):
        peer.now += 1 / FORGIVEN_PER_S
        peer.call("/s/Nothing", is_end=True)

    assert not peer.server.is_over
