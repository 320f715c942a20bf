"""Peers of the gRPC door that speak no gRPC, or no more: each is ended in time, and the others are answered."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import numpy as np
import pytest
from tritonclient.grpc import service_pb2_grpc

from edge_runtime.doors.v2 import http2_cutter as frames
from edge_runtime.doors.v2.grpc import GrpcDoor
from edge_runtime.doors.v2.grpc_service import SERVICE
from edge_runtime.doors.v2.service import V2Service
from edge_runtime.serving.host import ModelHost
from tests.contract.test_v2_grpc import Open, open_door, request
from tests.contract.test_v2_grpc_under_load import until
from tests.fakes.pixels import write_pixels
from tests.unit.doors.test_v2_http2 import frame, head, prefixed

INFER = f"/{SERVICE}/ModelInfer"
LIMITS = {"handshake_s": 0.1, "patience_s": 0.2, "send_s": 0.2, "linger_s": 0.2}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pixels")
    write_pixels(folder, "1.0.0")
    return folder


@pytest.fixture
def opened(release: Path) -> Iterator[Open]:
    with ModelHost() as host:
        host.load(release)
        opened = open_door(V2Service(host, "1"), **LIMITS)
        yield opened
        opened.door.stop(1.0)


class Peer:
    """A client on a socket of its own."""

    def __init__(self, peer: socket.socket) -> None:
        self.socket = peer
        self.wire = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.heard: deque[h2.events.Event] = deque()

    def greet(self) -> None:
        self.wire.initiate_connection()
        self.socket.sendall(self.wire.data_to_send())

    def call(self, content: bytes, *, is_end: bool = True, whole: bool = True) -> int:
        number = self.wire.get_next_available_stream_id()
        self.wire.send_headers(number, head(INFER))
        message = prefixed(content)
        self.wire.send_data(number, message if whole else message[:-1], end_stream=is_end)
        self.socket.sendall(self.wire.data_to_send())
        return number

    def ask(self) -> None:
        self.call(request().SerializeToString())
        self.hear_until(h2.events.StreamEnded)

    def hear_until(self, kind: type[h2.events.Event]) -> Any:
        while True:
            while self.heard:
                event = self.heard.popleft()
                if isinstance(event, kind):
                    return event
            data = self.socket.recv(65536)
            assert data, "the connection was ended"
            self.heard.extend(self.wire.receive_data(data))

    def is_ended(self) -> bool:
        """Whether the server ends it, whatever it says before."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True


@contextmanager
def connected(door: GrpcDoor) -> Iterator[Peer]:
    where = ("127.0.0.1", int(door.address.rpartition(":")[2]))
    with socket.create_connection(where, timeout=30) as peer:
        yield Peer(peer)


@contextmanager
def _answered(opened: Open) -> Iterator[Peer]:
    with connected(opened.door) as peer:
        peer.greet()
        peer.ask()
        yield peer


def is_answering(opened: Open) -> bool:
    with grpc.insecure_channel(opened.door.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        return bool(service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request()).raw_output_contents)


@pytest.mark.parametrize(
    "said", [b"", b"PRI * HTTP/2.0\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\0\x05"]
)
def test_who_does_not_greet_is_ended(opened: Open, said: bytes) -> None:
    with connected(opened.door) as peer:
        peer.socket.sendall(said)

        assert peer.is_ended()
    until(lambda: opened.door.statistics().connections == 0)
    assert is_answering(opened)


def test_a_plain_client_is_answered(opened: Open) -> None:
    with connected(opened.door) as peer:
        peer.greet()
        peer.call(request().SerializeToString())

        data = peer.hear_until(h2.events.DataReceived).data
        ended = peer.hear_until(h2.events.StreamEnded)

    assert np.float32(2.0).tobytes() in data
    assert ended.stream_id == 1


def test_half_a_message_is_cut_off_and_its_connection_goes_on(opened: Open) -> None:
    with connected(opened.door) as peer:
        peer.greet()
        peer.call(request().SerializeToString(), is_end=False, whole=False)
        reset = peer.hear_until(h2.events.StreamReset)
        peer.call(request().SerializeToString())

        assert int(reset.error_code) == frames.CANCEL
        assert peer.hear_until(h2.events.StreamEnded)


def test_a_stream_without_a_request_ends_at_its_deadline_and_gives_its_place_back(opened: Open) -> None:
    with connected(opened.door) as peer:
        peer.greet()
        peer.wire.send_headers(1, [*head(f"/{SERVICE}/ModelStreamInfer"), ("grpc-timeout", "1m")])
        peer.socket.sendall(peer.wire.data_to_send())

        told = dict(peer.hear_until(h2.events.ResponseReceived).headers)

        assert told["grpc-status"] == "4"
        until(lambda: opened.door._calls is not None and opened.door._calls._streams == 0)


def test_an_answer_for_which_no_window_is_ever_opened_is_given_up(opened: Open) -> None:
    with connected(opened.door) as peer:
        peer.wire.local_settings.initial_window_size = 0
        peer.wire.local_settings.acknowledge()
        peer.greet()
        peer.call(request().SerializeToString())

        reset = peer.hear_until(h2.events.StreamReset)

    assert int(reset.error_code) == frames.CANCEL
    until(lambda: opened.door.statistics().connections == 0)


def test_who_breaks_the_protocol_in_the_middle_of_a_call_hears_so_and_takes_nobody_along(opened: Open) -> None:
    with connected(opened.door) as peer, connected(opened.door) as other:
        peer.greet()
        other.greet()
        peer.call(request().SerializeToString(), is_end=False, whole=False)
        peer.socket.sendall(frame(frames.DATA, 0, 0, b"x"))
        other.call(request().SerializeToString())

        assert int(peer.hear_until(h2.events.ConnectionTerminated).error_code) == frames.PROTOCOL_ERROR
        assert peer.is_ended()
        assert other.hear_until(h2.events.StreamEnded)


def test_a_client_that_leaves_in_the_middle_of_a_message_leaves_nothing_behind(opened: Open) -> None:
    with connected(opened.door) as peer:
        peer.greet()
        peer.call(request().SerializeToString(), is_end=False, whole=False)
        until(lambda: opened.door._calls is not None and opened.door._calls._calls == 1)

    until(lambda: opened.door._calls is not None and opened.door._calls._calls == 0)
    assert is_answering(opened)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_requests_may_be_folded(opened: Open, coding: str) -> None:
    folding = {"gzip": grpc.Compression.Gzip, "deflate": grpc.Compression.Deflate}[coding]
    asked = request(id="7" * 1000)
    with grpc.insecure_channel(opened.door.address, compression=folding) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(asked)

    assert answer.id == "7" * 1000


def test_one_client_too_many_takes_the_place_of_the_one_that_has_idled_longest(release: Path) -> None:
    with ModelHost() as host:
        host.load(release)
        opened = open_door(V2Service(host, "1"), connections=2)
        with ExitStack() as clients:
            first, second, _third = (clients.enter_context(_answered(opened)) for _ in range(3))

            first.hear_until(h2.events.ConnectionTerminated)
            is_over = first.is_ended()
            second.call(request().SerializeToString())
            second.hear_until(h2.events.StreamEnded)
        opened.door.stop(0)

    assert is_over


def test_a_client_that_still_sends_at_the_stop_reads_its_goodbye(release: Path) -> None:
    with ModelHost() as host:
        host.load(release)
        opened = open_door(V2Service(host, "1"))
        with _answered(opened) as peer, ThreadPoolExecutor(1) as pool:
            stopped = pool.submit(opened.door.stop, 30.0)
            peer.hear_until(h2.events.ConnectionTerminated)
            for _ in range(100):
                peer.socket.sendall(frame(frames.PING, 0, 0, bytes(8)))

            end = peer.socket.recv(65536)
            peer.socket.close()
            stopped.result(30)

    assert end == b""


def test_a_door_that_closes_waits_no_longer_than_a_moment_for_who_does_not_hang_up(opened: Open) -> None:
    with _answered(opened):
        closing = threading.Thread(target=opened.door.stop, args=(600.0,))
        closing.start()
        closing.join(60)

    assert not closing.is_alive()
