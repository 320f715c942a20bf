"""The webhook sink against a real server: refused, slow, failing, hanging up, and one that takes what it is sent."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.contract.errors import ContractError
from edge_runtime.pipelines.description import WebhookSink
from edge_runtime.pipelines.records import Finding, Record
from edge_runtime.pipelines.sinks import webhook
from edge_runtime.pipelines.sinks.posting import signature, verdict
from edge_runtime.pipelines.sinks.webhook import Webhook
from edge_runtime.pipelines.statistics import Stage, StageReport
from tests.fakes.pipelines import boxes, frame
from tests.fakes.pki import make_ca

SECRET = "0123456789abcdef0123456789abcdef"
FOUND = Finding("faces", {"objects": boxes(("face", 0.875, (4, 5, 20, 30)))})


class Hook(ThreadingHTTPServer):
    """Does what `plan` says to one request after the other, then takes all of them."""

    daemon_threads = True

    def __init__(self, *plan: int | str) -> None:
        super().__init__(("127.0.0.1", 0), _Answering)
        self.plan = list(plan)
        self.heads: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        """Of every request, whatever became of it."""
        self.raw: list[bytes] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.arrived = threading.Semaphore(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/in/a-secret-path"


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hook

    def do_POST(self) -> None:
        hook = self.server
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        hook.raw.append(raw)
        hook.bodies.append(json.loads(raw))
        hook.heads.append(dict(self.headers))
        hook.arrived.release()
        hook.goes_on.wait(30)
        todo = hook.plan.pop(0) if hook.plan else 204
        if todo == "slow":
            hook.goes_on.clear()
            hook.goes_on.wait(30)
        if isinstance(todo, int):
            self.send_response(todo)
            self.send_header("Content-Length", "0")
            if todo == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
        else:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def listening(*plan: int | str) -> Iterator[Hook]:
    with Hook(*plan) as hook:
        thread = threading.Thread(target=hook.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield hook
        finally:
            hook.goes_on.set()
            hook.shutdown()


class Sent:
    """A sink that has begun, what it told, and what it counted."""

    def __init__(self, url: str, *, live: Sequence[str] = (), **keys: Any) -> None:
        self.told: list[str] = []
        self.stopping = threading.Event()
        self.stage = Stage("sink", "hook")
        self.sink = Webhook("hook", WebhookSink(url=url, **keys), self.told.append, self.stopping, live=live)
        self.sink.begin(self.stage)

    def records(self, *numbers: int, source: str = "door") -> None:
        for number in numbers:
            self.sink.deliver(Record("entrance", frame(number, source=source), (FOUND,)))

    def close(self) -> StageReport:
        self.sink.close()
        return self.stage.report()


def frames(bodies: list[Any]) -> list[Any]:
    return [[one["frame"] for one in body] if isinstance(body, list) else body["frame"] for body in bodies]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    path.chmod(0o600)
    return path


def test_each_record_is_posted_as_json_in_order() -> None:
    with listening() as hook:
        sent = Sent(hook.url)
        sent.records(0, 1, 2)
        report = sent.close()

    assert frames(hook.bodies) == [0, 1, 2]
    assert hook.bodies[0]["findings"][0]["answer"]["objects"][0]["label"] == "face"
    assert {head["Content-Type"] for head in hook.heads} == {"application/json"}
    assert len({head["Edgefleet-Delivery"] for head in hook.heads}) == 3
    assert (report.done, report.failed, report.dropped, sent.told) == (3, 0, 0, [])


def test_what_waits_goes_in_one_request_as_a_list_where_wished() -> None:
    with listening() as hook:
        sent = Sent(hook.url, batch=3)
        hook.goes_on.clear()
        sent.records(0)
        assert hook.arrived.acquire(timeout=30)
        sent.records(1, 2, 3, 4)
        hook.goes_on.set()
        report = sent.close()

    assert frames(hook.bodies) == [[0], [1, 2, 3], [4]]
    assert report.done == 5


@pytest.mark.parametrize("fault", [500, 503, 429, "hang up", "slow"])
def test_a_request_that_fails_for_now_is_sent_again_as_the_same_delivery(fault: int | str) -> None:
    with listening(fault) as hook:
        sent = Sent(hook.url, timeout_s=0.2)
        sent.records(7)
        hook.arrived.acquire(timeout=30)
        assert hook.arrived.acquire(timeout=30)
        hook.goes_on.set()
        report = sent.close()

    assert set(frames(hook.bodies)) == {7}
    assert len({head["Edgefleet-Delivery"] for head in hook.heads}) == 1
    assert (report.done, report.failed) == (1, 0)
    assert "it is tried again" in sent.told[0]
    assert sent.told[-1].endswith("is back")


@pytest.mark.parametrize("status", [302, 307, 400, 401, 404])
def test_what_the_server_refuses_is_not_sent_again_and_no_redirect_is_followed(status: int) -> None:
    with listening(status) as hook:
        sent = Sent(hook.url)
        sent.records(0, 1)
        report = sent.close()

    assert frames(hook.bodies) == [0, 1]
    assert (report.done, report.failed) == (1, 1)
    assert f"it answers {status}" in sent.told[0]


def test_a_server_that_is_not_there_costs_records_not_the_pipeline(secret: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/in/a-secret-path"
        sent = Sent(url, patience_s=0.1, token_file=secret)
        sent.records(0, 1, 2)
        report = sent.close()

    assert (report.done, report.failed) == (0, 3)
    assert "Connection refused" in sent.told[0]
    assert not any("a-secret-path" in line or SECRET in line for line in sent.told)


def test_the_path_of_the_url_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with listening() as hook:
        sent = Sent(hook.url)
        sent.records(0)
        report = sent.close()

    assert report.done == 1
    assert "a-secret-path" not in caplog.text


@pytest.mark.parametrize(("second", "kept"), [("door", [0, 3, 4]), ("folder", [0, 1, 4])])
def test_a_full_line_loses_its_oldest_record_of_a_live_source_and_none_of_files(second: str, kept: list[int]) -> None:
    with listening() as hook:
        sent = Sent(hook.url, live=["door"], waiting=2)
        hook.goes_on.clear()
        sent.records(0)
        assert hook.arrived.acquire(timeout=30)
        sent.records(1, source=second)
        sent.records(2, 3, 4)
        hook.goes_on.set()
        report = sent.close()

    assert frames(hook.bodies) == kept
    assert (report.done, report.dropped) == (3, 2)


def test_a_full_line_holds_files_back_and_loses_none() -> None:
    with listening() as hook:
        sent = Sent(hook.url, waiting=2)
        hook.goes_on.clear()
        giving = threading.Thread(target=sent.records, args=range(6))
        giving.start()
        assert hook.arrived.acquire(timeout=30)
        hook.goes_on.set()
        giving.join(30)
        report = sent.close()

    assert frames(hook.bodies) == [0, 1, 2, 3, 4, 5]
    assert (report.done, report.dropped) == (6, 0)


def test_whoever_ends_the_pipeline_does_not_wait_for_a_server_that_is_away(monkeypatch) -> None:
    monkeypatch.setattr(webhook, "_LAST_PATIENCE_S", 0.2)
    with listening(*[500] * 50) as hook:
        sent = Sent(hook.url, patience_s=3600)
        sent.records(0, 1, 2)
        assert hook.arrived.acquire(timeout=30)
        sent.stopping.set()
        report = sent.close()

    assert report.done + report.failed == 3
    assert report.failed > 0


def test_token_and_signature_come_from_files(secret: Path) -> None:
    with listening() as hook:
        sent = Sent(hook.url, token_file=secret, secret_file=secret)
        sent.records(0)
        sent.close()

    (head,) = hook.heads
    at, _, mac = head["Edgefleet-Signature"].partition(",v1=")
    message = at.removeprefix("t=").encode() + b"." + hook.raw[0]
    assert head["Authorization"] == f"Bearer {SECRET}"
    assert mac == hmac.new(SECRET.encode(), message, hashlib.sha256).hexdigest()
    assert sent.told == []


def test_a_secret_that_others_can_read_is_said(secret: Path) -> None:
    secret.chmod(0o644)
    with listening() as hook:
        sent = Sent(hook.url, token_file=secret)
        sent.close()

    assert "chmod 600" in sent.told[0]


def test_a_server_is_trusted_by_its_authority_alone(tmp_path: Path) -> None:
    ca = make_ca(tmp_path)
    issued = ca.issue("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert_file, issued.key_file)
    with listening() as hook:
        hook.socket = context.wrap_socket(hook.socket, server_side=True)
        url = f"https://localhost:{hook.server_address[1]}/in"
        stranger = Sent(url, patience_s=0.1)
        stranger.records(0)
        refused = stranger.close()
        known = Sent(url, ca_file=ca.ca_file)
        known.records(1)
        taken = known.close()

    assert (refused.done, refused.failed, taken.done) == (0, 1, 1)
    assert "CERTIFICATE_VERIFY_FAILED" in stranger.told[0]
    assert frames(hook.bodies) == [1]


@pytest.mark.parametrize(
    ("url", "because"),
    [
        ("ftp://host/in", "begins with 'ftp'"), ("file:///etc/passwd", "begins with 'file'"),
        ("host/in", "begins with"), ("https://", "begins with"), ("https://user:word@host/in", "holds credentials"),
        ("https://host:99999/in", "cannot be read"), ("https://host/a\nb", "cannot be read"),
        ("https://host/" + "a" * 3000, "cannot be read"), ("https://hóst/", "cannot be read"),
    ],
    ids=["ftp", "file", "no scheme", "no host", "credentials", "port", "line", "long", "accent"],
)  # fmt: skip
def test_what_is_no_web_address_is_refused_before_a_frame_is_read(url: str, because: str) -> None:
    with pytest.raises(ContractError, match=because):
        Sent(url)


def test_what_is_meant_for_this_machine_goes_to_no_proxy(secret: Path, monkeypatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with listening() as proxy, listening() as hook:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        sent = Sent(hook.url, token_file=secret)
        sent.records(0)
        report = sent.close()

    assert (proxy.heads, report.done) == ([], 1)
    assert hook.heads[0]["Authorization"] == f"Bearer {SECRET}"


def test_a_server_that_goes_on_answering_for_ever_is_hung_up_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        endless = threading.Thread(target=answer_for_ever, args=(server,), daemon=True)
        endless.start()
        sent = Sent(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout_s=0.05, patience_s=0.1)
        sent.records(0)
        closing = threading.Thread(target=sent.close, daemon=True)
        closing.start()
        closing.join(30)

    assert not closing.is_alive()
    assert sent.stage.report().failed == 1


def answer_for_ever(server: socket.socket) -> None:
    """No piece comes late, and none is the last."""
    with suppress(OSError):
        while True:
            with server.accept()[0] as client, suppress(OSError):
                while True:
                    client.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")


def test_a_token_never_crosses_the_network_in_the_clear(secret: Path) -> None:
    with pytest.raises(ContractError, match="in the clear; write https://"):
        Sent("http://example.test/in", token_file=secret)


@pytest.mark.parametrize("change", [lambda path: path.write_text("short"), lambda path: path.unlink()],
                         ids=["short", "missing"])  # fmt: skip
def test_a_secret_that_cannot_be_used_is_refused(secret: Path, change: Callable[[Path], object]) -> None:
    change(secret)

    with pytest.raises(ContractError, match="secret"):
        Sent("https://example.test/in", secret_file=secret)


@given(st.binary(), st.binary(), st.integers(0, 2**40), st.integers(0, 2**40))
def test_another_body_or_second_has_another_signature(one: bytes, other: bytes, at: int, later: int) -> None:
    key = SECRET.encode()

    assert (signature(key, one, at) == signature(key, other, later)) == ((one, at) == (other, later))


@given(st.integers(100, 599), st.text("0189 .,:+-GMT", max_size=12))
def test_every_answer_has_a_verdict(status: int, retry_after: str) -> None:
    posted = verdict(status, retry_after)

    assert (posted.verdict == "taken") == (200 <= status < 300)
    assert 0 <= posted.retry_after_s < 100_000
