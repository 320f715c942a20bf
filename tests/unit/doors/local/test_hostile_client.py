"""Whatever a client of the local door does, it gets one clear answer or is hung up on; no other notices."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.client import BadRequest, Busy, Refused, frames
from edge_runtime.client.frames import HEADER, CallHead, Kind, Room, TensorRecord
from edge_runtime.client.local import LocalClient
from edge_runtime.client.local_connection import LocalConnection
from edge_runtime.client.regions import OwnRegion
from edge_runtime.doors.budget import Budget
from edge_runtime.doors.local import connection as connection_module
from edge_runtime.doors.local.door import LocalDoor
from edge_runtime.doors.local.limits import Limits
from edge_runtime.doors.local.planned import plan, take_inputs
from edge_runtime.doors.local.regions import ForeignRegions
from edge_runtime.serving.host import ModelHost
from tests.fakes.open_files import open_files

PIXELS = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
SMALL = Limits(connections=2, regions=2, region_max_bytes=1 << 20, mapped_max_bytes=1 << 20,
               body_max_bytes=1 << 16, bodies_max_bytes=1 << 16)  # fmt: skip


@pytest.fixture
def small(host: ModelHost, tmp_path: Path) -> Iterator[LocalDoor]:
    with LocalDoor(host, tmp_path / "s", limits=SMALL) as door:
        yield door


@pytest.fixture
def hasty(host: ModelHost, tmp_path: Path) -> Iterator[LocalDoor]:
    """For clients that are to be too slow; no other should have to hurry on a busy machine."""
    with LocalDoor(host, tmp_path / "s", limits=Limits(step_s=0.3)) as door:
        yield door


@pytest.fixture
def connection(door: LocalDoor) -> Iterator[LocalConnection]:
    connection = LocalConnection(str(door.path), 10)
    yield connection
    connection.close()


@contextmanager
def raw(door: LocalDoor) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(10)
        peer.connect(str(door.path))
        yield peer


def is_well(door: LocalDoor) -> bool:
    with LocalClient(str(door.path)) as client:
        return client.infer("pixels", {"x": PIXELS})["logits"].tolist() == [[0, 2, 4, 6]]  # type: ignore[union-attr]


def until_closed(peer: socket.socket) -> bytes:
    said = b""
    try:
        while part := peer.recv(4096):
            said += part
    except ConnectionResetError:
        pass
    return said


def _send_forever(peer: socket.socket, content: bytes) -> None:
    while True:
        peer.sendall(content)


def call(record: TensorRecord, room: Room = Room()) -> bytes:  # noqa: B008 (frozen)
    return frames.pack_call(CallHead("pixels", (record,), room=room))


@pytest.mark.parametrize(
    ("record", "because"),
    [
        (TensorRecord("x", "float32", (1, 1, 2, 2), 1, 4096 - 8, 16), "no multiple of 64|outside"),
        (TensorRecord("x", "float32", (1, 1, 2, 2), 1, 4096, 16), "outside"),
        (TensorRecord("x", "float32", (1, 1, 2, 2), 1, 2**64 - 64, 16), "outside"),
        (TensorRecord("x", "float32", (1, 1, 2, 2), 1, 8, 16), "no multiple of 64"),
        (TensorRecord("x", "float32", (1, 1, 2, 2), 2, 0, 16), "not mapped"),
        (TensorRecord("x", "float32", (1, 1, 2, 3), 1, 0, 16), "takes 24 bytes, not 16"),
        (TensorRecord("x", "float32", (-1, -1, 2, 2), 1, 0, 16), "its shape is"),
        (TensorRecord("x", "float32", (2**62, 2**62, 0), 1, 0, 0), "its shape is"),
        (TensorRecord("x", "float32", (2**62,) * 16, 1, 0, 16), "takes"),
        (TensorRecord("x", "bytes", (2**60,), 1, 0, 64), "do not hold"),
        (TensorRecord("x", "bytes", (1, 1), 1, 0, 64), "one axis"),
        (TensorRecord("x", "float32", (1, 1, 2, 2), 0, 2**63, 16), "allowed"),
        (TensorRecord("x", "float32", (1, 1, 2, 2), 0, 0, 16), "16 bytes were announced, 0 came"),
    ],
)
def test_a_tensor_that_is_not_there_is_refused(connection: LocalConnection, record: TensorRecord, because: str) -> None:
    connection.map(OwnRegion(1, 4096))

    with pytest.raises(Refused, match=because):
        connection.ask(Kind.CALL, call(record))

    assert connection.ask(Kind.LIST, b"").head


@pytest.mark.parametrize("room", [Room(1, 0, 8192), Room(1, 3, 64), Room(7, 0, 64), Room(1, 2**64 - 64, 2**64 - 64)])
def test_room_for_answers_that_is_not_there_is_refused(connection: LocalConnection, room: Room) -> None:
    connection.map(OwnRegion(1, 4096))

    with pytest.raises(Refused, match="region"):
        connection.ask(Kind.CALL, call(TensorRecord("x", "float32", (1, 1, 2, 2), 1, 0, 16), room))


def test_the_same_input_twice_is_refused(connection: LocalConnection) -> None:
    connection.map(OwnRegion(1, 4096))
    record = TensorRecord("x", "float32", (1, 1, 2, 2), 1, 0, 16)

    with pytest.raises(Refused, match="twice"):
        connection.ask(Kind.CALL, frames.pack_call(CallHead("pixels", (record, record))))


def test_a_region_that_was_unmapped_is_not_used_again(connection: LocalConnection) -> None:
    region = OwnRegion(1, 4096)
    head = call(TensorRecord("x", "float32", (1, 1, 2, 2), 1, 0, 16))
    connection.map(region)
    frame = connection.ask(Kind.CALL, head)
    connection.read_body(memoryview(bytearray(frame.body_bytes)))
    connection.unmap(region)

    with pytest.raises(Refused, match="not mapped"):
        connection.ask(Kind.CALL, head)


def _unsealed() -> int:
    descriptor = os.memfd_create("open", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 4096)
    return descriptor


def _plain_file() -> int:
    return os.open(__file__, os.O_RDONLY)


def _pipe() -> int:
    reading, writing = os.pipe()
    os.close(writing)
    return reading


def _empty() -> int:
    return _sealed(0)


def _too_large() -> int:
    return _sealed(1 << 40)


def _sealed_against_writing() -> int:
    return _sealed(4096, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE)


def _on_huge_pages() -> int:
    try:
        descriptor = os.memfd_create("huge", os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    except OSError:
        pytest.skip("this kernel has no files on huge pages")
    os.ftruncate(descriptor, 1 << 21)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return descriptor


def _sealed(size: int, seals: int = 2) -> int:
    descriptor = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


@pytest.mark.parametrize(
    ("make", "because"),
    [
        (_unsealed, "could shrink"),
        (_plain_file, "no memfd"),
        (_pipe, "no memfd"),
        (_empty, "0 bytes"),
        (_too_large, "allowed"),
        (_sealed_against_writing, "cannot map region"),
        (_on_huge_pages, "usual size"),
    ],
)
def test_memory_that_could_harm_the_server_is_refused(connection: LocalConnection, make: object, because: str) -> None:
    region = OwnRegion(1, 4096)
    os.close(region.descriptor)
    region.descriptor = make()  # type: ignore[operator]

    with pytest.raises(Refused, match=because):
        connection.map(region)

    connection.map(OwnRegion(1, 4096))


def test_a_byte_without_memory_is_refused(door: LocalDoor) -> None:
    connection = LocalConnection(str(door.path), 10)
    peer = connection._peer
    connection._stream.send(Kind.MAP, number=1)
    connection._stream.receive()
    peer.sendall(b"\0")

    answer = connection._stream.receive()

    assert answer is not None
    assert frames.unpack_refusal(answer.head).because.startswith("0 file descriptors")
    connection.close()


def test_two_files_at_once_are_refused_and_closed(door: LocalDoor) -> None:
    connection = LocalConnection(str(door.path), 10)
    before = open_files(is_first_look=True)
    connection._stream.send(Kind.MAP, number=1)
    connection._stream.receive()
    ours = [_sealed(4096), _sealed(4096), _sealed(4096)]
    socket.send_fds(connection._peer, [b"\0"], ours)

    answer = connection._stream.receive()

    assert answer is not None
    assert answer.kind == Kind.REFUSAL
    for descriptor in ours:
        os.close(descriptor)
    assert open_files() == before
    connection.close()


def test_more_regions_than_granted_are_refused(small: LocalDoor) -> None:
    connection = LocalConnection(str(small.path), 10)
    connection.map(OwnRegion(1, 4096))
    connection.map(OwnRegion(2, 4096))

    with pytest.raises(Refused, match="2 are mapped"):
        connection.map(OwnRegion(3, 4096))
    with pytest.raises(Refused, match="taken"):
        connection.map(OwnRegion(2, 4096))
    connection.close()


def test_memory_of_all_clients_together_is_bounded_and_comes_back(small: LocalDoor) -> None:
    first, second = LocalConnection(str(small.path), 10), LocalConnection(str(small.path), 10)
    first.map(OwnRegion(1, 1 << 20))
    with pytest.raises(Busy, match="0 are left"):
        second.map(OwnRegion(1, 4096))

    first.close()

    while small.statistics().connections == 2:
        pass
    second.map(OwnRegion(1, 4096))
    second.close()


def test_memory_for_bodies_comes_back_when_a_client_goes(small: LocalDoor) -> None:
    many = np.ones((4000, 1, 2, 2), np.float32)
    for _ in range(3):
        with LocalClient(str(small.path), shared_memory=False) as client:
            assert len(client.infer("pixels", {"x": many})["logits"]) == 4000
        while small.statistics().connections:
            pass


def test_memory_for_bodies_of_all_clients_together_is_bounded(small: LocalDoor) -> None:
    many = np.ones((4000, 1, 2, 2), np.float32)
    with (
        LocalClient(str(small.path), shared_memory=False) as first,
        LocalClient(str(small.path), shared_memory=False) as second,
    ):
        first.infer("pixels", {"x": many})
        with pytest.raises(Busy, match="memory for tensors"):
            second.infer("pixels", {"x": many})

        assert second.infer("pixels", {"x": PIXELS}).model == "pixels"


@pytest.mark.parametrize("is_trusted", [True, False])
def test_numbers_of_strangers_are_copied_before_they_are_looked_at(is_trusted: bool) -> None:
    regions = ForeignRegions(Limits(), Budget(1 << 20, "memory"))
    region = OwnRegion(1, 4096)
    regions._map(1, region.descriptor)
    region.close()
    meant = plan(call(TensorRecord("x", "float32", (1, 1, 2, 2), 1, 0, 16)), regions, Limits())

    taken = take_inputs(meant, memoryview(b""), is_trusted=is_trusted)["x"]
    region.memory[:16] = np.full(4, 7, np.float32).tobytes()

    assert np.asarray(taken).ravel().tolist() == ([7.0] * 4 if is_trusted else [0.0] * 4)


def test_a_client_falls_back_to_the_stream_where_no_memory_is_left(host: ModelHost, tmp_path: Path) -> None:
    limits = Limits(mapped_max_bytes=4096)
    many = np.ones((5000, 1, 2, 2), np.float32)
    with LocalDoor(host, tmp_path / "s", limits=limits), LocalClient(str(tmp_path / "s")) as client:
        assert client.infer("pixels", {"x": many})["logits"].shape == (5000, 4)  # type: ignore[union-attr]


def test_a_body_that_is_not_allowed_takes_no_memory(small: LocalDoor) -> None:
    many = np.ones((100_000, 1, 2, 2), np.float32)
    with LocalClient(str(small.path), shared_memory=False) as client:
        with pytest.raises(BadRequest, match="1600000 bytes, 65536 are allowed"):
            client.infer("pixels", {"x": many})

        assert client.infer("pixels", {"x": PIXELS}).model == "pixels"


def test_a_head_that_cannot_be_read_is_refused_and_its_body_skipped(connection: LocalConnection) -> None:
    with pytest.raises(Refused, match="cannot read a call"):
        connection.ask(Kind.CALL, b"\xff" * 50, [b"rubbish"])

    assert connection.ask(Kind.LIST, b"").head


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0",
        b"\0" * 200,
        b"\xff" * 200,
        HEADER.pack(Kind.HELLO, 0, 1, 0, 0, 0, 0, 0),
        HEADER.pack(Kind.HELLO, 0, 0, 0, 2**32 - 1, 0, 0, 0),
        HEADER.pack(Kind.CALL, 0, 0, 0, 0, 0, 0, 2**64 - 1),
        HEADER.pack(Kind.HELLO, 0, 0, 0, 12, 0, 0, 0) + b"edgeflex\1\0\0\0",
        HEADER.pack(Kind.HELLO, 0, 0, 0, 12, 0, 0, 0) + frames.pack_hello() + HEADER.pack(77, 0, 0, 0, 0, 0, 0, 0),
        HEADER.pack(Kind.HELLO, 0, 0, 0, 12, 0, 0, 0) + frames.pack_hello() + HEADER.pack(2, 0, 0, 0, 0, 0, 0, 9),
    ],
)
def test_who_breaks_the_protocol_is_hung_up_on(door: LocalDoor, said: bytes) -> None:
    with raw(door) as peer:
        peer.sendall(said)
        peer.shutdown(socket.SHUT_WR)
        until_closed(peer)

    assert is_well(door)


@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_at_all_keep_the_door_from_serving(door: LocalDoor, said: bytes, greets: bool) -> None:
    greeting = HEADER.pack(Kind.HELLO, 0, 0, 0, 12, 0, 0, 0) + frames.pack_hello() if greets else b""
    with raw(door) as peer:
        try:
            peer.sendall(greeting + said)
            peer.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        until_closed(peer)

    assert door._waiter.is_alive()


def test_another_version_of_the_protocol_is_told_so(door: LocalDoor) -> None:
    with raw(door) as peer:
        peer.sendall(HEADER.pack(Kind.HELLO, 0, 0, 5, 12, 0, 0, 0) + frames.pack_hello(9))
        said = until_closed(peer)

    kind, _, _, number, size, *_ = HEADER.unpack_from(said)
    assert (kind, number) == (Kind.REFUSAL, 5)
    assert "version 9" in frames.unpack_refusal(said[HEADER.size : HEADER.size + size]).because


def test_a_web_client_is_told_where_it_is(door: LocalDoor) -> None:
    with raw(door) as peer:
        peer.sendall(b"GET /v2/health/ready HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n")
        said = until_closed(peer)

    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"does not speak HTTP" in said


def test_one_client_too_many_is_told_so(small: LocalDoor) -> None:
    path = str(small.path)
    with LocalClient(path), LocalClient(path), pytest.raises(Busy, match="2 clients are connected"):
        LocalClient(path)

    while small.statistics().connections:
        pass
    assert is_well(small)
    assert small.statistics().turned_away == 1


@pytest.mark.parametrize("begun", [b"\0", HEADER.pack(Kind.HELLO, 0, 0, 0, 12, 0, 0, 0)])
def test_a_client_that_stops_inside_a_message_is_hung_up_on(hasty: LocalDoor, begun: bytes) -> None:
    with raw(hasty) as peer:
        peer.sendall(begun)

        assert until_closed(peer) == b""


def test_a_client_that_drips_bytes_is_hung_up_on(hasty: LocalDoor) -> None:
    with raw(hasty) as peer:
        whole = HEADER.pack(Kind.HELLO, 0, 0, 0, 60_000, 0, 0, 0) + b"x" * 60_000
        ended = threading.Event()

        def drip() -> None:
            try:
                for byte in whole:
                    peer.sendall(bytes((byte,)))
                    ended.wait(0.01)
            except OSError:
                pass

        dripping = threading.Thread(target=drip)
        dripping.start()
        assert until_closed(peer) == b""
        ended.set()
        dripping.join()


def test_a_client_that_is_silent_between_calls_is_kept(hasty: LocalDoor) -> None:
    connection = LocalConnection(str(hasty.path), 10)
    with raw(hasty) as slow:
        slow.sendall(b"\0")
        until_closed(slow)  # longer than a message may take

    assert connection.ask(Kind.LIST, b"").head
    connection.close()


def test_a_client_that_is_silent_keeps_no_memory_for_bodies(hasty: LocalDoor) -> None:
    left = hasty._budgets[1]
    whole = left._left
    with LocalClient(str(hasty.path), shared_memory=False) as client:
        client.infer("pixels", {"x": np.ones((5000, 1, 2, 2), np.float32)})
        assert left._left < whole

        while left._left < whole:
            pass  # until it was silent for longer than a message may take

        assert client.infer("pixels", {"x": PIXELS}).model == "pixels"


def test_a_call_for_which_the_process_has_no_memory_is_refused_and_costs_nothing(
    door: LocalDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(size: int) -> NoReturn:
        raise MemoryError(size)

    left = door._budgets[1]
    whole = left._left
    with LocalClient(str(door.path), shared_memory=False) as client:
        client.infer("pixels", {"x": PIXELS})
        with monkeypatch.context() as patch:
            patch.setattr(connection_module, "room_for", fail)
            with pytest.raises(Busy, match="no more"):
                client.infer("pixels", {"x": np.ones((5000, 1, 2, 2), np.float32)})

        assert left._left == whole
        # The next message is found behind the one that had no room.
        assert client.infer("pixels", {"x": PIXELS}).model == "pixels"
        assert door.statistics().connections == 1


def test_a_client_that_never_reads_is_hung_up_on(hasty: LocalDoor) -> None:
    with raw(hasty) as peer:
        peer.sendall(HEADER.pack(Kind.HELLO, 0, 0, 0, 12, 0, 0, 0) + frames.pack_hello())
        list_models = HEADER.pack(Kind.LIST, 0, 0, 1, 0, 0, 0, 0) * 1000
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            _send_forever(peer, list_models)

    assert is_well(hasty)


def test_a_client_that_dies_inside_its_call_harms_nobody(door: LocalDoor) -> None:
    for _ in range(20):
        with raw(door) as peer:
            peer.sendall(HEADER.pack(Kind.HELLO, 0, 0, 0, 12, 0, 0, 0) + frames.pack_hello())
            head = call(TensorRecord("x", "float32", (1, 1, 2, 2), 0, 0, 16))
            peer.sendall(HEADER.pack(Kind.CALL, 0, 0, 1, len(head), 0, 0, 16) + head + b"half")

    assert is_well(door)
