"""Strangers at the v2 HTTP door: each gets one precise answer, or none, and nobody else notices."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.contract.errors import TransportError
from edge_runtime.doors.access import Access, TlsFiles
from edge_runtime.doors.door import Listen
from edge_runtime.doors.v2 import listening
from edge_runtime.doors.v2.http import HttpDoor
from edge_runtime.doors.v2.http_body import FIRST_BYTES
from edge_runtime.doors.v2.http_limits import HttpLimits
from edge_runtime.inference.requests.admission import Admission
from edge_runtime.serving.host import ModelHost
from tests.fakes.faulty_backend import Faults, FaultyBackend
from tests.fakes.pixels import write_pixels
from tests.fakes.pki import make_ca
from tests.fakes.v2_http_door import LOGITS, PIXELS, OpenDoor, infer, open_door, post, read_answer

TOKEN = b"0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pixels")
    write_pixels(folder, "1.0.0")
    return folder


@pytest.fixture(scope="module")
def opened(release: Path) -> Iterator[OpenDoor]:
    with ModelHost() as host:
        host.load(release)
        with open_door(host) as opened:
            yield opened


@pytest.fixture
def impatient(release: Path) -> Iterator[OpenDoor]:
    """A door whose patience is short."""
    limits = HttpLimits(
        connections=3, head_s=0.05, body_s=0.05, body_bytes_per_s=1e9, idle_s=30.0, send_s=0.2, linger_s=0.2,
        body_bytes=1024 * 1024,
    )  # fmt: skip
    with ModelHost() as host:
        host.load(release)
        with open_door(host, limits=limits) as opened:
            yield opened


@pytest.fixture
def slow(release: Path) -> Iterator[tuple[OpenDoor, Faults]]:
    """A door before an engine that waits until it may go on."""
    faults = Faults(blocks=threading.Event())
    with ModelHost(registry={"onnxruntime": FaultyBackend(faults, "onnxruntime")}) as host:
        faults.blocks.set()
        host.load(release)
        faults.blocks.clear()
        while faults.running.acquire(blocking=False):
            pass
        with open_door(host) as opened:
            yield opened, faults
            faults.blocks.set()


def binary_infer(rows: int = 1, tail: bytes = b"") -> bytes:
    """A request whose tensor is a view of the body, for an answer of the same kind."""
    size = {"binary_data_size": 16 * rows}
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 1, 2, 2], "parameters": size}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    return post("/v2/models/pixels/infer", head + PIXELS.tobytes() * rows + tail, length)


def answered(opened: OpenDoor) -> bool:
    """Whether somebody else is answered now."""
    with opened.connect() as peer:
        peer.sendall(infer())
        status, _, body = read_answer(peer)
    return status == 200 and json.loads(body)["outputs"][0]["data"] == LOGITS[0]


def ends(peer: socket.socket) -> bool:
    """Whether the server closes the connection."""
    try:
        while peer.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_requests_sent_ahead_are_answered_one_after_another(opened: OpenDoor) -> None:
    many = [infer(id=str(number)) for number in range(100)]
    with opened.connect() as peer:
        # More than the server takes ahead: it stops reading, and goes on.
        sender = threading.Thread(target=peer.sendall, args=[b"".join(many)])
        sender.start()
        ids = [json.loads(read_answer(peer)[2])["id"] for _ in many]
        sender.join()

    assert ids == [str(number) for number in range(100)]


def test_a_client_that_asks_first_is_told_to_go_on(opened: OpenDoor) -> None:
    content = infer("Expect: 100-continue")
    head, _, body = content.partition(b"\r\n\r\n")
    with opened.connect() as peer:
        peer.sendall(head + b"\r\n\r\n")
        assert read_answer(peer)[0] == 100
        peer.sendall(body)

        assert read_answer(peer)[0] == 200


def test_a_client_that_asks_first_is_refused_before_it_sends(opened: OpenDoor) -> None:
    with opened.connect() as peer:
        peer.sendall(
            b"POST /v2/models/pixels/infer HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
            b"Content-Length: 999999999999\r\n\r\n"
        )

        assert read_answer(peer)[0] == 413


def test_a_body_in_chunks_is_answered(opened: OpenDoor) -> None:
    _, _, body = infer().partition(b"\r\n\r\n")

    def chunks() -> Iterator[bytes]:
        yield body[:10]
        yield body[10:]

    with httpx.Client(base_url=opened.door.address) as client:
        answer = client.post("/v2/models/pixels/infer", content=chunks())

    assert answer.json()["outputs"][0]["data"] == LOGITS[0]


def test_an_old_client_is_answered_and_its_connection_closed(opened: OpenDoor) -> None:
    with opened.connect() as peer:
        peer.sendall(b"GET /v2 HTTP/1.0\r\n\r\n")
        status, headers, _ = read_answer(peer)

        assert (status, headers["connection"]) == (200, "close")
        assert ends(peer)


def test_who_ends_its_side_after_asking_is_still_answered(slow: tuple[OpenDoor, Faults]) -> None:
    opened, faults = slow
    with opened.connect() as peer:
        peer.sendall(infer())
        faults.running.acquire(timeout=30)
        peer.shutdown(socket.SHUT_WR)
        assert faults.blocks
        faults.blocks.set()

        assert read_answer(peer)[0] == 200
        assert ends(peer)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client\r\n\r\n", 400),
        (b"GET /v2 HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (post("/v2/models/pixels/infer", b"", "Transfer-Encoding: chunked"), 400),
        (b"POST /v2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n", 431),
        (post("/v2/repository/index", bytes(70_000)), 413),
        (post("/v2/models/pixels/infer", b"x", f"Content-Length: {1 << 60}"), 400),
        (f"POST /v2/models/pixels/infer HTTP/1.1\r\nHost: h\r\nContent-Length: {1 << 50}\r\n\r\n".encode(), 413),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(opened: OpenDoor, content: bytes, status: int) -> None:
    with opened.connect() as peer:
        peer.sendall(content)
        found, headers, body = read_answer(peer)

        assert (found, headers["connection"], list(json.loads(body))) == (status, "close", ["error"])
        peer.shutdown(socket.SHUT_WR)
        assert ends(peer)
    assert answered(opened)


def test_a_client_that_sends_a_large_body_can_read_why_it_was_refused(opened: OpenDoor) -> None:
    with opened.connect() as peer:
        peer.sendall(b"POST /v2/repository/index HTTP/1.1\r\nHost: h\r\nContent-Length: 8000000\r\n\r\n")
        peer.sendall(bytes(8_000_000))

        assert read_answer(peer)[0] == 413


@pytest.mark.parametrize(
    "content", [b"", b"GET", b"GET /v2 HTTP/1.1\r\nHost: h\r\n", infer()[:-3], infer()[:60], infer()[:-1]]
)
def test_who_hangs_up_in_the_middle_is_forgotten(opened: OpenDoor, content: bytes) -> None:
    with opened.connect() as peer:
        peer.sendall(content)

    assert answered(opened)


@pytest.mark.parametrize("content", [b"GET /v2 HTTP/1.1\r\nHost:", infer()[:-1], infer()[:-30]])
def test_who_never_finishes_a_request_is_told_so_and_closed(impatient: OpenDoor, content: bytes) -> None:
    with impatient.connect() as peer:
        peer.sendall(content)

        assert read_answer(peer)[0] == 408
        assert ends(peer)
    assert answered(impatient)


def test_a_trickle_does_not_hold_a_connection_open(impatient: OpenDoor) -> None:
    ended = threading.Event()
    with impatient.connect() as peer:

        def trickle() -> None:
            try:
                while not ended.wait(0.02):
                    peer.sendall(b"X")
            except OSError:
                pass

        peer.sendall(b"GET /v2 HTTP/1.1\r\nX: ")
        sender = threading.Thread(target=trickle)
        sender.start()
        status, _, _ = read_answer(peer)
        ended.set()
        sender.join()

    assert status == 408


def test_who_does_not_fetch_its_answer_is_cut_off(impatient: OpenDoor) -> None:
    with impatient.connect() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # Each answer is many times longer than its request; nobody reads them.
        requests = b"GET /v2/models/stats HTTP/1.1\r\nHost: h\r\n\r\n" * 1_000_000
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            peer.sendall(requests)

    assert answered(impatient)


def test_idle_connections_make_room_for_new_ones(impatient: OpenDoor) -> None:
    peers = [impatient.connect() for _ in range(3)]
    for peer in peers:
        peer.sendall(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert read_answer(peer)[0] == 200

    assert answered(impatient)
    [closed] = select.select(peers, [], [], 30)[0]
    assert closed.recv(1) == b""
    for peer in peers:
        peer.close()


def test_when_all_are_busy_a_new_client_is_told_to_come_again(release: Path) -> None:
    with ModelHost() as host:
        host.load(release)
        with open_door(host, limits=HttpLimits(connections=1)) as opened, opened.connect() as busy:
            busy.sendall(b"GET /v2 HTTP/1.1\r\n")
            # Connections are taken in order, bytes are not: wait until the server has seen the first.
            while not opened.door._server._connections or next(iter(opened.door._server._connections)).is_idle:
                time.sleep(0.01)
            with opened.connect() as peer:
                status, headers, _ = read_answer(peer)

    assert (status, headers["retry-after"]) == (503, "1")


def test_huge_declared_sizes_take_no_memory(opened: OpenDoor) -> None:
    budget = opened.door._server.budget
    before = budget._left
    peers = [opened.connect() for _ in range(20)]
    for peer in peers:
        peer.sendall(
            b"POST /v2/models/pixels/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 268435456\r\n\r\n" + bytes(99)
        )

    assert answered(opened)
    assert before - budget._left <= 21 * FIRST_BYTES
    for peer in peers:
        peer.close()


def test_numbers_written_as_endless_text_are_not_read(opened: OpenDoor) -> None:
    body = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [' + b"1," * 5_000_000

    with httpx.Client(base_url=opened.door.address) as client:
        answer = client.post("/v2/models/pixels/infer", content=body)

    assert (answer.status_code, "send binary data" in answer.json()["error"]) == (413, True)


def test_a_gzip_bomb_is_refused(impatient: OpenDoor) -> None:
    bomb = gzip.compress(bytes(50 * 1024 * 1024))

    with httpx.Client(base_url=impatient.door.address) as client:
        answer = client.post("/v2/models/pixels/infer", content=bomb, headers={"Content-Encoding": "gzip"})

    assert answer.status_code == 413
    assert answered(impatient)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b'{"inputs": {}}', b'{"inputs": [1]}', b"[" * 100_000,
        b'{"inputs": ' + b"[" * 100_000, b'{"inputs": [], "outputs": 5}', b"\xff\xfe",
        b'{"inputs": [{"name": "x", "shape": [1e999], "datatype": "FP32"}]}',
        b'{"inputs": [], "parameters": {"timeout": -1}}', b'{"inputs": [], "outputs": [{"name": "a"}, {"name": "a"}]}',
    ],
)  # fmt: skip
def test_json_that_asks_nothing_is_one_error(opened: OpenDoor, body: bytes) -> None:
    with opened.connect() as peer:
        peer.sendall(post("/v2/models/pixels/infer", body) + infer())
        first, second = read_answer(peer), read_answer(peer)

    assert (first[0], list(json.loads(first[2])), second[0]) == (400, ["error"], 200)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "image", "y", ""]) | json_values,
        "shape": st.lists(st.integers(-1, 5), max_size=5) | json_values,
        "datatype": st.sampled_from(["FP32", "UINT8", "BYTES", "BOOL", "BF16", "?"]) | json_values,
    },
    optional={
        "data": st.lists(st.floats(allow_nan=False) | st.integers() | st.text(max_size=3), max_size=8) | json_values,
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "shared_memory_region", "shared_memory_byte_size"]), json_values
        )
        | json_values,
    },
)
questions = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=3) | json_values},
    optional={"outputs": json_values, "parameters": json_values, "id": json_values},
)


@given(question=questions, tail=st.binary(max_size=20), cut=st.integers(-3, 3))
@settings(max_examples=150)
def test_any_question_is_answered_or_refused_and_the_connection_lives(
    opened: OpenDoor, question: Any, tail: bytes, cut: int
) -> None:
    head = json.dumps(question).encode()
    with opened.connect() as peer:
        length = f"Inference-Header-Content-Length: {max(0, len(head) + cut)}"
        peer.sendall(post("/v2/models/pixels/infer", head + tail, length) + infer())
        first, second = read_answer(peer), read_answer(peer)

    assert first[0] in {200, 400, 504}
    assert second[0] == 200


def test_bytes_that_belong_to_no_input_are_refused(opened: OpenDoor) -> None:
    with opened.connect() as peer:
        peer.sendall(binary_infer(tail=b"more"))
        status, _, body = read_answer(peer)

    assert (status, "4 bytes of the body belong to no input" in json.loads(body)["error"]) == (400, True)


def test_answers_that_a_client_fetches_late_come_whole_and_in_order(opened: OpenDoor) -> None:
    rows = 200_000
    with opened.connect() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 * 1024)
        sender = threading.Thread(target=peer.sendall, args=[binary_infer(rows) * 3])
        sender.start()
        # More than sockets hold: the rest waits in the server until it is fetched.
        _until(lambda: any(one._pending() for one in opened.door._server._connections))
        answers = [read_answer(peer) for _ in range(3)]
        sender.join()

    for status, headers, body in answers:
        assert status == 200
        numbers = body[int(headers["inference-header-content-length"]) :]
        assert numbers == np.resize(np.array(LOGITS, np.float32), (rows, 4)).tobytes()


def test_an_answered_request_leaves_its_buffer_to_the_next(release: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        with ModelHost() as host, open_door(host) as opened, opened.connect() as peer:
            host.load(release)
            stores = []
            for _ in range(5):
                peer.sendall(binary_infer())
                assert read_answer(peer)[0] == 200
                [connection] = opened.door._server._connections
                # The worker that answered is about to let go of the tensor.
                _until(connection._reader._body.is_unused)
                stores.append(id(connection._reader._body._store))
    finally:
        gc.enable()

    assert len(set(stores)) == 1


@contextmanager
def all_busy(opened: OpenDoor, faults: Faults) -> Iterator[list[socket.socket]]:
    """As many requests as the model takes at once, all of them inside the engine."""
    with ExitStack() as stack:
        peers = [stack.enter_context(opened.connect()) for _ in range(_admission(opened).slots)]
        for peer in peers:
            peer.sendall(infer())
            faults.running.acquire(timeout=30)
        yield peers


@pytest.mark.parametrize("is_abrupt", [False, True])
def test_a_client_that_goes_away_takes_its_waiting_request_along(
    slow: tuple[OpenDoor, Faults], is_abrupt: bool
) -> None:
    opened, faults = slow
    before = faults.runs
    with all_busy(opened, faults) as busy, opened.connect() as last:
        with opened.connect() as gone:
            gone.sendall(infer())
            _until(lambda: _admission(opened).waiting == 1)
            if is_abrupt:
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        _until(lambda: _admission(opened).waiting == 0)
        last.sendall(infer())
        assert faults.blocks
        faults.blocks.set()

        assert [read_answer(peer)[0] for peer in (*busy, last)] == [200] * (len(busy) + 1)
    assert faults.runs == before + len(busy) + 1


def test_a_request_that_waits_past_its_deadline_never_runs(slow: tuple[OpenDoor, Faults]) -> None:
    opened, faults = slow
    before = faults.runs
    with all_busy(opened, faults) as busy, opened.connect() as late:
        late.sendall(infer(parameters={"timeout": 20_000}))
        status, _, body = read_answer(late)
        assert faults.blocks
        faults.blocks.set()

        assert (status, "deadline" in json.loads(body)["error"]) == (504, True)
        assert [read_answer(peer)[0] for peer in busy] == [200] * len(busy)
    assert faults.runs == before + len(busy)


def test_more_requests_than_may_wait_are_told_when_to_come_again(release: Path) -> None:
    faults = Faults(blocks=threading.Event())
    assert faults.blocks
    faults.blocks.set()
    with ModelHost(queue_limit=1, registry={"onnxruntime": FaultyBackend(faults, "onnxruntime")}) as host:
        host.load(release)
        while faults.running.acquire(blocking=False):
            pass
        faults.blocks.clear()
        with open_door(host) as opened, all_busy(opened, faults) as busy, opened.connect() as waits:
            waits.sendall(infer())
            _until(lambda: _admission(opened).waiting == 1)
            with opened.connect() as more:
                more.sendall(infer())
                status, headers, _ = read_answer(more)
            faults.blocks.set()

            assert (status, int(headers["retry-after"]) >= 1) == (503, True)
            assert [read_answer(peer)[0] for peer in (*busy, waits)] == [200] * (len(busy) + 1)


def test_an_engine_that_waits_keeps_nobody_from_other_answers(slow: tuple[OpenDoor, Faults]) -> None:
    opened, faults = slow
    with opened.connect() as first:
        first.sendall(infer())
        faults.running.acquire(timeout=30)

        with triton.InferenceServerClient(opened.netloc) as client:
            assert client.is_server_live()
            assert client.get_model_metadata("pixels")["name"] == "pixels"
        assert faults.blocks
        faults.blocks.set()
        assert read_answer(first)[0] == 200


def test_a_door_that_stops_answers_what_is_under_way_and_closes_the_rest(slow: tuple[OpenDoor, Faults]) -> None:
    opened, faults = slow
    with opened.connect() as busy, opened.connect() as idle, ThreadPoolExecutor(1) as pool:
        idle.sendall(b"GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n")
        read_answer(idle)
        busy.sendall(infer())
        faults.running.acquire(timeout=30)
        stopping = pool.submit(opened.door.stop, 30.0)
        assert ends(idle)
        with pytest.raises(OSError, match="refused"):
            opened.connect()
        assert faults.blocks
        faults.blocks.set()

        status, headers, _ = read_answer(busy)
        assert (status, headers["connection"]) == (200, "close")
        stopping.result(timeout=30)


def test_a_door_that_stops_does_not_wait_for_ever(slow: tuple[OpenDoor, Faults]) -> None:
    opened, faults = slow
    with opened.connect() as busy:
        busy.sendall(infer())
        faults.running.acquire(timeout=30)

        opened.door.stop(0.05)

        assert ends(busy)


def test_a_port_that_is_taken_is_one_clear_error(opened: OpenDoor) -> None:
    other = HttpDoor(opened.service, Listen("127.0.0.1", opened.door.port))

    with pytest.raises(TransportError, match=r"cannot listen at 127\.0\.0\.1.*choose another port"):
        other.start()


def test_a_web_page_cannot_make_its_visitors_browser_ask_a_door_without_a_token(opened: OpenDoor) -> None:
    with httpx.Client(base_url=opened.door.address) as client:
        path, page = "/v2/repository/models/pixels/unload", {"Origin": "https://elsewhere.example"}

        refused = client.post(path, content="{}", headers=page)

        assert refused.status_code == 403
        assert "a web page asks" in refused.json()["error"]
        assert client.get("/v2/models/pixels/ready").status_code == 200


@pytest.fixture(scope="module")
def guarded(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OpenDoor, Path]]:
    ca = make_ca(tmp_path_factory.mktemp("ca"))
    issued = ca.issue("server")
    with ModelHost() as host:
        host.load(release)
        with open_door(host, access=Access(TlsFiles(issued.cert_file, issued.key_file), TOKEN)) as opened:
            yield opened, ca.ca_file


def test_with_tls_and_token_stock_clients_are_answered(guarded: tuple[OpenDoor, Path]) -> None:
    opened, ca = guarded
    with triton.InferenceServerClient(opened.netloc, ssl=True, ssl_options={"ca_certs": str(ca)}) as client:
        name = client.get_server_metadata(headers={"Authorization": f"Bearer {TOKEN.decode()}"})["name"]

    assert name == "edge-runtime"


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}])
def test_without_the_token_nothing_is_read_or_told_but_that_the_server_lives(
    guarded: tuple[OpenDoor, Path], header: dict[str, str]
) -> None:
    opened, ca = guarded
    with httpx.Client(base_url=opened.door.address, verify=ssl.create_default_context(cafile=ca)) as client:
        for path in ("/v2", "/v2/models/pixels", "/nowhere"):
            answer = client.get(path, headers=header)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert client.post("/v2/models/pixels/infer", content=bytes(100_000), headers=header).status_code == 401
        assert client.get("/v2/health/ready", headers=header).status_code == 200


def test_who_begins_no_handshake_is_closed(release: Path, tmp_path: Path) -> None:
    issued = make_ca(tmp_path).issue("server")
    with (
        ModelHost() as host,
        open_door(
            host, access=Access(TlsFiles(issued.cert_file, issued.key_file), TOKEN), limits=HttpLimits(head_s=0.05)
        ) as opened,
        opened.connect() as peer,
    ):
        assert ends(peer)


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, listening._new_loop])
def test_sockets_that_never_shake_hands_keep_nobody_out_and_are_bounded(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    monkeypatch.setattr(listening, "_new_loop", make_loop)
    ca = make_ca(tmp_path)
    issued = ca.issue("server")
    limits = HttpLimits(connections=4, head_s=3600.0)
    with ModelHost() as host:
        host.load(release)
        with (
            open_door(host, access=Access(TlsFiles(issued.cert_file, issued.key_file)), limits=limits) as opened,
            ExitStack() as silent,
        ):
            peers = [silent.enter_context(opened.connect()) for _ in range(12)]
            are_ended = [ends(peer) for peer in peers[:8]]
            trusting = ssl.create_default_context(cafile=ca.ca_file)
            with httpx.Client(base_url=opened.door.address, verify=trusting) as client:
                status = client.get("/v2/health/live").status_code
                statistics = opened.door.statistics()

    assert are_ended == [True] * 8
    assert status == 200
    assert statistics.turned_away == 9


def test_a_large_tensor_passes_through_tls(guarded: tuple[OpenDoor, Path]) -> None:
    opened, ca = guarded
    tensor = {"name": "x", "datatype": "FP32", "shape": [8, 1, 2, 2], "parameters": {"binary_data_size": 128}}
    head = json.dumps({"inputs": [tensor], "padding": "x" * 3_000_000}).encode()
    with httpx.Client(base_url=opened.door.address, verify=ssl.create_default_context(cafile=ca)) as client:
        answer = client.post(
            "/v2/models/pixels/infer",
            content=head + bytes(128),
            headers={
                "Authorization": f"Bearer {TOKEN.decode()}",
                "Inference-Header-Content-Length": str(len(head)),
            },
        )

    assert answer.json()["outputs"][0]["shape"] == [8, 4]


def _admission(opened: OpenDoor) -> Admission:
    seat = opened.host.find("pixels")._place.live.seating.seat
    assert seat is not None
    return seat.admission


def _until(holds: Any) -> None:
    """Wait for what another thread is about to do."""
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_length_of_thousands_of_digits_is_refused_as_any_other_that_is_wrong(opened: OpenDoor) -> None:
    with opened.connect() as peer:
        peer.sendall(post("/v2/models/pixels/infer", bytes(40_000), f"Inference-Header-Content-Length: {'9' * 5000}"))

        status, _, body = read_answer(peer)

    assert (status, b"Inference-Header-Content-Length" in body) == (400, True)


def test_a_burst_of_clients_never_makes_more_connections_than_are_allowed(release: Path) -> None:
    counted: list[int] = []
    with ModelHost() as host, open_door(host, limits=HttpLimits(connections=3)) as opened, ExitStack() as stack:
        host.load(release)
        server = opened.door._server
        admit = server.admit

        def counting(connection: Any) -> bool:
            admitted = admit(connection)
            counted.append(len(server._connections))
            return admitted

        server.admit = counting  # type: ignore[method-assign]
        is_held, may_go_on = threading.Event(), threading.Event()
        # All of them wait in the kernel until the loop has a turn.
        server._loop.call_soon_threadsafe(lambda: (is_held.set(), may_go_on.wait(30)))
        assert is_held.wait(30)
        for _ in range(20):
            stack.enter_context(opened.connect())
        may_go_on.set()
        _until(lambda: len(counted) == 20)

    assert max(counted) == 3


def test_models_that_take_long_to_load_keep_nobody_from_other_answers(tmp_path: Path) -> None:
    for version in ("1.0.0", "2.0.0"):
        write_pixels(tmp_path / version, version)
    faults = Faults(blocks_open=threading.Event())
    with (
        ModelHost(registry={"onnxruntime": FaultyBackend(faults, "onnxruntime")}) as host,
        open_door(host, repository=tmp_path) as opened,
        ThreadPoolExecutor(3) as pool,
        httpx.Client(base_url=opened.door.address, timeout=60) as client,
    ):
        loads = [pool.submit(client.post, "/v2/repository/models/pixels/load") for _ in range(3)]
        _until(lambda: faults.opened == 1)
        try:
            listed = client.post("/v2/repository/index", timeout=20)
        finally:
            assert faults.blocks_open
            faults.blocks_open.set()

        assert [load.result().status_code for load in loads] == [200] * 3
    assert (listed.status_code, len(listed.json())) == (200, 2)
