"""Our own v2 HTTP client: against our own door, and against servers that misbehave."""

from __future__ import annotations

import io
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_runtime.client import (
    BadRequest,
    Busy,
    ModelNotServed,
    NoAnswerInTime,
    NotUnderstood,
    Refused,
    ServerGone,
    TooLate,
    connect,
)
from edge_runtime.client.http import HttpClient
from edge_runtime.contract.errors import ContractError
from edge_runtime.doors.access import Access, TlsFiles
from edge_runtime.doors.door import Listen
from edge_runtime.doors.v2.http import HttpDoor
from edge_runtime.doors.v2.service import V2Service
from edge_runtime.serving.host import ModelHost
from tests.fakes.models import Build, write_release
from tests.fakes.pki import make_ca

PIXELS = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
MANY = np.random.default_rng(7).random((5000, 1, 2, 2), np.float32)
TOKEN = b"0123456789abcdef"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelHost]:
    folder = tmp_path_factory.mktemp("pixels") / "release"
    write_release(folder, [Build("plain")])
    with ModelHost() as host:
        host.load(folder)
        yield host


@contextmanager
def opened(host: ModelHost, access: Access | None = None, port: int = 0) -> Iterator[str]:
    service = V2Service(host, "1.2.3", None)
    door = HttpDoor(service, Listen("127.0.0.1", port), access or Access())
    door.start()
    try:
        yield door.address
    finally:
        door.stop(5.0)
        service.regions.close()


@pytest.fixture(scope="module")
def address(host: ModelHost) -> Iterator[str]:
    with opened(host) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[HttpClient]:
    with connect(address) as client:
        assert isinstance(client, HttpClient)
        yield client


def test_tensors_are_answered_again_and_again(client: HttpClient) -> None:
    for rows in (1, 5000, 3, 120_000, 1):
        batch = np.resize(MANY, (rows, 1, 2, 2))

        answer = client.infer("pixels", {"x": batch})

        np.testing.assert_array_equal(answer["logits"], batch.reshape(-1, 4) * 2)
        assert (answer.model, answer.version) == ("pixels", "1.0.0")


def test_an_answer_keeps_its_memory(client: HttpClient) -> None:
    first = client.infer("pixels", {"x": MANY})["logits"]
    client.infer("pixels", {"x": MANY * 9})

    np.testing.assert_array_equal(first, MANY.reshape(-1, 4) * 2)


def test_an_array_in_any_order_is_answered(client: HttpClient) -> None:
    turned = np.asfortranarray(MANY.astype(">f4"))[::-1]

    np.testing.assert_array_equal(client.infer("pixels", {"x": turned})["logits"], MANY[::-1].reshape(-1, 4) * 2)


def test_an_encoded_picture_is_answered_with_the_public_output(client: HttpClient) -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 0], [0, 255]], np.uint8)).save(file, "PNG")

    answer = client.infer("pixels", {"image": [file.getvalue()]}, ["classes", "logits"])

    assert b'"three"' in answer["classes"][0]
    assert answer["logits"].tolist() == [[0, 0, 0, 2]]  # type: ignore[union-attr]


def test_a_model_says_what_it_takes_and_gives(client: HttpClient) -> None:
    described = client.describe("pixels")

    assert [(one.name, one.dtype, one.shape) for one in described.inputs] == [("image", "uint8", (-1, 2, 2, 1))]
    assert [one.name for one in described.outputs] == ["logits", "classes"]


def test_a_model_or_version_that_is_not_served_is_named(client: HttpClient) -> None:
    with pytest.raises(ModelNotServed, match="cats"):
        client.infer("cats", {"x": PIXELS})
    with pytest.raises(ModelNotServed, match=r"9\.9"):
        client.infer("pixels", {"x": PIXELS}, version="9.9")


@pytest.mark.parametrize("inputs", [{"y": MANY}, {"x": MANY[:, 0]}, {"x": MANY.astype(np.float64)}, {}])
def test_wrong_inputs_are_refused_and_the_client_goes_on(client: HttpClient, inputs: dict[str, object]) -> None:
    with pytest.raises(Refused):
        client.infer("pixels", inputs)  # type: ignore[arg-type]

    assert client.infer("pixels", {"x": PIXELS})["logits"].tolist() == [[0, 2, 4, 6]]  # type: ignore[union-attr]


def test_an_array_of_objects_is_refused_before_it_is_sent(client: HttpClient) -> None:
    with pytest.raises(BadRequest, match="cannot travel"):
        client.infer("pixels", {"x": np.array([None])})


def test_a_deadline_is_sent_and_kept(client: HttpClient) -> None:
    assert client.infer("pixels", {"x": PIXELS}, deadline_s=60.0, priority=2).version == "1.0.0"
    with pytest.raises(TooLate):
        client.infer("pixels", {"x": PIXELS}, deadline_s=-1.0)


def test_each_of_many_threads_gets_its_own_answer(client: HttpClient) -> None:
    def ask(factor: int) -> bool:
        answer = client.infer("pixels", {"x": MANY * factor})
        return bool((answer["logits"] == MANY.reshape(-1, 4) * factor * 2).all())  # type: ignore[union-attr]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(64)))


def test_a_server_that_was_started_again_is_asked_again(host: ModelHost) -> None:
    with opened(host) as address:
        client = connect(address)
        client.infer("pixels", {"x": PIXELS})

    with client, opened(host, port=int(address.rpartition(":")[2])):
        assert client.infer("pixels", {"x": PIXELS}).model == "pixels"


def test_a_server_that_has_gone_is_said_so(host: ModelHost) -> None:
    with opened(host) as address:
        client = connect(address)

    with client, pytest.raises(ServerGone):
        client.infer("pixels", {"x": PIXELS})
    with pytest.raises(ServerGone, match="edge-runtime serve"):
        connect(address)


def test_a_token_is_sent(host: ModelHost) -> None:
    with opened(host, Access(token=TOKEN)) as address:
        with HttpClient(address, token=TOKEN.decode()) as client:
            assert client.infer("pixels", {"x": PIXELS}).model == "pixels"
        with HttpClient(address) as client, pytest.raises(Refused) as error:
            client.infer("pixels", {"x": PIXELS})

    assert error.value.code == "unauthorized"


def test_tls_is_spoken_with_servers_that_are_trusted_and_with_no_others(host: ModelHost, tmp_path: Path) -> None:
    ca = make_ca(tmp_path)
    issued = ca.issue("localhost")
    trusting = ssl.create_default_context(cafile=ca.ca_file)
    with opened(host, Access(TlsFiles(issued.cert_file, issued.key_file), TOKEN)) as address:
        with connect(address, token=TOKEN.decode(), tls=trusting) as client:
            for rows in (1, 50_000, 2):
                batch = np.resize(MANY, (rows, 1, 2, 2))
                np.testing.assert_array_equal(client.infer("pixels", {"x": batch})["logits"], batch.reshape(-1, 4) * 2)
        with pytest.raises(ServerGone, match=r"its certificate is not trusted .*; give its authority"):
            connect(address, token=TOKEN.decode())
        plain = connect(address.replace("https:", "http:"), token=TOKEN.decode())
        with plain, pytest.raises(ServerGone, match="if it speaks TLS, use https"):
            plain.describe("pixels")


def test_a_server_without_tls_is_named_as_such(host: ModelHost) -> None:
    with opened(host) as address, pytest.raises(ServerGone, match=r"TLS was not agreed on .*; if it .*, use http://"):
        connect(address.replace("http:", "https:"))


def test_a_token_may_end_like_the_file_it_came_from(host: ModelHost) -> None:
    with (
        opened(host, Access(token=TOKEN)) as address,
        HttpClient(address, token=f"{TOKEN.decode()}\n") as client,
    ):
        assert client.infer("pixels", {"x": PIXELS}).model == "pixels"


@pytest.mark.parametrize("address", ["http://", "http:", "ftp://here", "somewhere", "unix:", ""])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ContractError, match="address"):
        connect(address)


def test_a_token_cannot_smuggle_a_header() -> None:
    with pytest.raises(ContractError, match="no header can carry this token"):
        HttpClient("http://127.0.0.1:1", token="a\r\nX: y")


@contextmanager
def answering(*responses: bytes) -> Iterator[str]:
    """A server that answers each request, on a connection of its own, with given bytes; then it hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked = threading.Event()

    def serve() -> None:
        for response in responses:
            peer, _ = listener.accept()
            with peer:
                peer.recv(1 << 16)
                peer.sendall(response)
                if not response:
                    asked.wait(30)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        asked.set()
        thread.join()
        listener.close()


def response(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def answer(size: int, binary: bytes, **changes: object) -> bytes:
    one = {"name": "y", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": size}, **changes}
    text = json.dumps({"model_name": "m", "model_version": "1", "outputs": [one]}).encode()
    return response("200 OK", text + binary, f"Inference-Header-Content-Length: {len(text)}")


def test_a_well_formed_answer_of_any_server_is_read() -> None:
    with answering(answer(8, np.float32([1, 2]).tobytes())) as address, connect(address) as client:
        assert client.infer("m", {"x": PIXELS})["y"].tolist() == [1, 2]  # type: ignore[union-attr]


def test_an_answer_in_json_is_read() -> None:
    text = json.dumps({"outputs": [{"name": "y", "datatype": "INT64", "shape": [2, 1], "data": [3, 4]}]}).encode()

    with answering(response("200 OK", text)) as address, connect(address) as client:
        assert client.infer("m", {"x": PIXELS})["y"].tolist() == [[3], [4]]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "bad",
    [
        b"220 mail.example.org ESMTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nInference-Header-Content-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
        response("200 OK", b"{}") + b"more than announced",
        response("200 OK", b"not JSON"),
        response("200 OK", b"[]"),
        response("200 OK", b'{"outputs": [{"name": "y"}]}'),
        answer(8, b"1234"),
        answer(12, b"1" * 12),
        answer(-8, b"1" * 8),
        answer(8, b"1" * 8, shape=[-2]),
        answer(8, b"1" * 8, datatype="FP99"),
        answer(8, b"1" * 8, datatype="BYTES"),
        answer(8, b"1" * 8, shape=[1 << 62, 1 << 62]),
    ],
)
def test_what_is_no_answer_is_not_understood(bad: bytes) -> None:
    with answering(bad) as address, connect(address) as client, pytest.raises(NotUnderstood):
        client.infer("m", {"x": PIXELS})


def test_an_answer_that_breaks_off_means_that_the_server_has_gone() -> None:
    with (
        answering(answer(8, b"1" * 8)[:-3]) as address,
        connect(address) as client,
        pytest.raises(ServerGone, match="inside an answer"),
    ):
        client.infer("m", {"x": PIXELS})


def test_a_server_that_says_nothing_is_not_waited_for_longer_than_asked() -> None:
    with answering(b"") as address, connect(address, patience_s=0.2) as client, pytest.raises(NoAnswerInTime):
        client.infer("m", {"x": PIXELS})


def test_a_full_queue_says_when_to_come_back() -> None:
    busy = response("503 Service Unavailable", b'{"error": "cannot answer: 9 wait; try later"}', "Retry-After: 3")

    with answering(busy) as address, connect(address) as client, pytest.raises(Busy, match="9 wait") as error:
        client.infer("m", {"x": PIXELS})

    assert (error.value.retry_after_s, error.value.remedy) == (3.0, "try later")


def test_an_error_without_a_reason_still_says_its_status() -> None:
    with (
        answering(response("502 Bad Gateway", b"<html>nginx</html>")) as address,
        connect(address) as client,
        pytest.raises(Refused, match="502"),
    ):
        client.infer("m", {"x": PIXELS})


def test_a_socket_file_that_is_no_door_names_what_to_start(tmp_path: Path) -> None:
    with pytest.raises(ServerGone, match="--uds"):
        connect(f"unix:{tmp_path}/nothing")
