"""gRPC clients whose questions are short and many: answered where they are read, and nobody waits for a hang."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import h2.errors
import h2.events
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from edge_runtime.doors import loan, pace
from edge_runtime.doors.access import Access
from edge_runtime.doors.door import Listen
from edge_runtime.doors.v2.grpc import GrpcDoor
from edge_runtime.doors.v2.grpc_calls import GrpcCalls
from edge_runtime.doors.v2.grpc_service import GrpcService
from edge_runtime.doors.v2.service import V2Service
from edge_runtime.serving.host import ModelHost
from tests.contract.test_v2_grpc import request
from tests.contract.test_v2_grpc_sockets import connected
from tests.contract.test_v2_grpc_under_load import until
from tests.fakes.hanging_backend import Hanging
from tests.fakes.pixels import write_pixels

ANSWER = [0.0, 2.0, 1.0, 0.5]


@dataclass
class Open:
    """A door behind which every client is brisk after so many questions."""

    door: GrpcDoor
    backend: Hanging

    @property
    def calls(self) -> GrpcCalls:
        calls = self.door._calls
        assert calls is not None
        return calls

    @property
    def lent(self) -> int:
        return len(self.calls.round._members)

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A client with a connection of its own, which those of one process otherwise share."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self.door.address, options) as channel:
            yield service_pb2_grpc.GRPCInferenceServiceStub(channel)

    @contextmanager
    def brisk_client(self) -> Iterator[Any]:
        before = self.lent
        with self.client() as client:
            until(lambda: ask(client) == ANSWER and self.lent == before + 1)
            yield client


def ask(client: Any) -> Any:
    (raw,) = client.ModelInfer(request()).raw_output_contents
    return np.frombuffer(raw, np.float32).tolist()


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    monkeypatch.setattr(pace, "OFTEN_S", 600.0)
    monkeypatch.setattr(loan, "SHORT_S", 60.0)
    monkeypatch.setattr(loan, "SHORT_HERE_S", 60.0)
    write_pixels(tmp_path, "1.0.0")
    backend = Hanging()
    with ModelHost(registry={"onnxruntime": backend}) as host:
        host.load(tmp_path)
        door = GrpcDoor(GrpcService(V2Service(host, "1")), Listen("127.0.0.1", 0), Access())
        door.start()
        yield Open(door, backend)
        backend.go.set()
        door.stop(5.0)


def test_brisk_clients_are_lent_to_one_thread_and_answered_as_before(opened: Open) -> None:
    with opened.brisk_client() as one, opened.brisk_client() as other:
        answers = [ask(client) for client in (one, other) * 20]
        rounds = [thread for thread in threading.enumerate() if thread.name == "v2-grpc-round"]

        assert answers == [ANSWER] * 40
        assert opened.lent == 2
        assert len(rounds) == 1


def test_another_question_is_answered_and_brings_the_client_back(opened: Open) -> None:
    with opened.brisk_client() as client:
        assert client.ServerLive(service_pb2.ServerLiveRequest()).live

        until(lambda: opened.lent == 0)
        assert ask(client) == ANSWER


def test_an_error_is_told_as_anywhere_else_and_changes_nothing(opened: Open) -> None:
    with opened.brisk_client() as client:
        asked = request()
        asked.model_name = "nobody"

        with pytest.raises(grpc.RpcError, match="it is not served here") as caught:
            client.ModelInfer(asked)

        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert ask(client) == ANSWER


def test_a_client_that_goes_away_leaves_nothing_behind(opened: Open) -> None:
    with opened.brisk_client():
        pass

    until(lambda: not opened.lent and opened.door.statistics().connections == 0)


def test_an_engine_that_hangs_on_one_brisk_client_keeps_no_other_waiting(opened: Open) -> None:
    with opened.brisk_client() as stuck, opened.brisk_client() as other:
        opened.backend.go.clear()
        late: list[Any] = []
        waiting = threading.Thread(target=lambda: late.append(ask(stuck)))
        waiting.start()
        assert opened.backend.is_hanging.wait(60)

        quick = [ask(other) for _ in range(5)]
        with opened.client() as newcomer:
            is_live = newcomer.ServerLive(service_pb2.ServerLiveRequest()).live
        opened.backend.go.set()
        waiting.join(60)

        assert quick == [ANSWER] * 5
        assert is_live
        assert late == [ANSWER]


def test_closing_the_door_ends_those_who_are_lent(opened: Open) -> None:
    with opened.brisk_client(), opened.brisk_client():
        opened.door.stop(5.0)

        until(lambda: not opened.lent)
        assert opened.door.statistics().connections == 0


def test_who_is_lent_when_the_door_closes_is_told_so_and_waited_for(opened: Open) -> None:
    with connected(opened.door) as peer:
        peer.greet()
        while not opened.lent:
            peer.ask()
        closing = threading.Thread(target=opened.door.stop, args=(30.0,))
        closing.start()

        said = peer.hear_until(h2.events.ConnectionTerminated)
        peer.socket.sendall(bytes(16 << 20))  # meets a reset unless the door reads on
        ended = peer.socket.recv(1)
        peer.socket.close()
        closing.join(60)

    assert said.error_code == h2.errors.ErrorCodes.NO_ERROR
    assert said.last_stream_id == peer.wire.highest_outbound_stream_id
    assert ended == b""
    assert not closing.is_alive()
