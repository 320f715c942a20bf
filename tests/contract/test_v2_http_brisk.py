"""HTTP clients whose questions are short and many: answered where they are read, as anybody else is."""

from __future__ import annotations

import errno
import gc
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime.doors import loan, pace
from edge_runtime.doors.v2 import http, http_connection, http_lent
from edge_runtime.doors.v2.http_answer import HttpAnswer
from edge_runtime.doors.v2.http_body import HttpError
from edge_runtime.doors.v2.http_limits import HttpLimits
from edge_runtime.doors.v2.http_parser import Request, RequestReader
from edge_runtime.serving.host import ModelHost
from tests.contract.test_v2_grpc_under_load import until
from tests.fakes.hanging_backend import Hanging
from tests.fakes.open_files import open_files
from tests.fakes.pixels import write_pixels
from tests.fakes.v2_http_door import LOGITS, OpenDoor, infer, open_door, post, read_answer

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n"
KINDS = {
    "a question": infer(id="a"),
    "a question with a deadline": infer(parameters={"timeout": 50_000_000}),
    "a hurried question": infer(parameters={"timeout": 90_000}),
    "a question whose answer is to be folded": infer("Accept-Encoding: gzip"),
    "a question for nobody": post("/v2/models/nobody/infer", b"{}"),
    "a question without inputs": post("/v2/models/pixels/infer", b'{"inputs": []}'),
    "no JSON": post("/v2/models/pixels/infer", b"{"),
    "metadata": b"GET /v2/models/pixels HTTP/1.1\r\nHost: h\r\n\r\n",
    "another method": b"GET /v2/models/pixels/infer HTTP/1.1\r\nHost: h\r\n\r\n",
    "another path": LIVE,
    "a body in chunks": b"POST /v2/models/pixels/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"%x\r\n" % len(infer().partition(b"\r\n\r\n")[2])
    + infer().partition(b"\r\n\r\n")[2]
    + b"\r\n0\r\n\r\n",
}
"""Requests after which a connection goes on."""


@dataclass
class Open:
    """A door whose clients are all brisk."""

    opened: OpenDoor
    backend: Hanging

    @property
    def lent(self) -> int:
        return len(self.members)

    @property
    def members(self) -> list[http_lent.LentConnection]:
        return list(self.opened.door._server.round._members.values())

    @property
    def connections(self) -> int:
        return self.opened.door.statistics().connections

    @contextmanager
    def client(self) -> Iterator[socket.socket]:
        """A client that is lent."""
        before = self.members
        with self.opened.connect() as peer:
            until(lambda: ask(peer) == LOGITS and any(one not in before for one in self.members))
            yield peer


def ask(peer: socket.socket, request: bytes = infer()) -> list[list[float]]:
    peer.sendall(request)
    return answer(peer)


def answer(peer: socket.socket) -> list[list[float]]:
    status, _, body = read_answer(peer)
    assert status == 200, body
    (output,) = json.loads(body)["outputs"]
    return [output["data"]]


@contextmanager
def opened_with(release: Path, limits: HttpLimits | None = None) -> Iterator[Open]:
    backend = Hanging()
    with ModelHost(registry={"onnxruntime": backend}) as host:
        host.load(release)
        with open_door(host, limits=limits) as opened:
            yield Open(opened, backend)
            backend.go.set()


@pytest.fixture(autouse=True)
def everybody_is_brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "OFTEN_S", 600.0)
    monkeypatch.setattr(pace, "WINDOW", 2)
    monkeypatch.setattr(loan, "SHORT_S", 60.0)
    monkeypatch.setattr(loan, "SHORT_HERE_S", 60.0)
    monkeypatch.setattr(loan, "_STAYS_S", 0.0)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write_pixels(tmp_path, "1.0.0")
    return tmp_path


@pytest.fixture
def opened(release: Path) -> Iterator[Open]:
    # Nobody goes home but for what a test does.
    with opened_with(release, HttpLimits(head_s=600.0, keep_body_s=600.0)) as opened:
        yield opened


def test_brisk_clients_are_lent_to_one_thread_and_answered_as_before(opened: Open) -> None:
    with opened.client() as one, opened.client() as other:
        answers = [ask(peer) for peer in (one, other) * 20]
        rounds = [thread for thread in threading.enumerate() if thread.name == "v2-http-round"]

        assert answers == [LOGITS] * 40
        assert opened.lent == 2
        assert len(rounds) == 1
        assert opened.opened.door.statistics().answered >= 40


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_brisk_client_asks_it_is_told_what_anybody_is(opened: Open, kind: str) -> None:
    with opened.client() as brisk, opened.opened.connect() as newcomer:
        for peer in (brisk, newcomer):
            peer.sendall(KINDS[kind])
        told, expected = read_answer(brisk), read_answer(newcomer)

        assert told == expected
        assert ask(brisk) == LOGITS


@pytest.mark.parametrize("kind", ["a question for nobody", "a question without inputs", "no JSON"])
def test_who_asks_wrongly_stays_where_it_is(opened: Open, kind: str) -> None:
    with opened.client() as peer:
        peer.sendall(KINDS[kind])
        status, _, _ = read_answer(peer)

        assert 400 <= status < 500
        assert opened.lent == 1


@pytest.mark.parametrize("kind", ["a hurried question", "a question whose answer is to be folded", "another path"])
def test_who_asks_what_takes_its_time_goes_home(opened: Open, kind: str) -> None:
    with opened.client() as peer:
        peer.sendall(KINDS[kind])
        read_answer(peer)

        until(lambda: opened.lent == 0)
        assert [ask(peer) for _ in range(5)] == [LOGITS] * 5


def test_who_is_answered_slowly_stays_at_home_for_a_while(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened.client() as peer:
        monkeypatch.setattr(loan, "_STAYS_S", 600.0)
        (lent,) = opened.members
        monkeypatch.setattr(lent._loan._in_round, "_short_s", 0.0)

        until(lambda: ask(peer) == LOGITS and opened.lent == 0)
        assert [ask(peer) for _ in range(5)] == [LOGITS] * 5
        assert opened.lent == 0


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=5), st.data())
def test_requests_cut_anywhere_and_sent_ahead_are_answered_in_their_order(
    opened: Open, kinds: list[str], data: st.DataObject
) -> None:
    sent = b"".join(KINDS[kind] for kind in kinds)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(sent) - 1), max_size=4)))
    with opened.client() as brisk, opened.opened.connect() as newcomer:
        for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            brisk.sendall(sent[start:end])
        newcomer.sendall(sent)

        assert [read_answer(brisk) for _ in kinds] == [read_answer(newcomer) for _ in kinds]


@pytest.mark.parametrize("sent", [
    b"nonsense\r\n\r\n",
    b"POST /v2/models/pixels/infer HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdefgh\r\n0\r\n\r\n",
    b"POST /v2/models/pixels/infer HTTP/1.1\r\nHost: h\r\nContent-Length: 999999999999\r\n\r\n",
], ids=["no head", "a chunk that is longer than it says", "a huge body"])  # fmt: skip
def test_what_is_no_request_is_refused_as_from_anybody(opened: Open, sent: bytes) -> None:
    with opened.client() as brisk, opened.opened.connect() as newcomer:
        for peer in (brisk, newcomer):
            peer.sendall(sent)

        told = read_answer(brisk)
        assert told == read_answer(newcomer)
        assert told[0] in {400, 413}
        assert brisk.recv(1) == b""
    until(lambda: opened.connections == 0)


def test_what_failed_once_is_not_tried_again(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    # A body that found no memory in its midst would be read from there as if it were another one.
    with opened.client() as peer:
        fail_once(monkeypatch, HttpError(503, "there is no memory"))
        peer.sendall(infer())

        assert read_answer(peer)[0] == 503
        assert peer.recv(1) == b""


def test_a_client_that_wants_to_be_asked_for_its_body_is(opened: Open) -> None:
    head, _, body = infer("Expect: 100-continue").partition(b"\r\n\r\n")
    with opened.client() as peer:
        peer.sendall(head + b"\r\n\r\n")

        assert peer.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert ask(peer, body) == LOGITS


def test_a_client_that_asks_for_the_last_time_is_answered_and_let_go(opened: Open) -> None:
    with opened.client() as peer:
        peer.sendall(infer("Connection: close"))
        _, headers, _ = read_answer(peer)

        assert headers["connection"] == "close"
        assert peer.recv(1) == b""


def test_an_answer_that_the_socket_takes_in_part_arrives_whole(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened.client() as peer:
        whole = os.writev
        monkeypatch.setattr(http_lent, "os", _Partly(lambda fd, parts: whole(fd, [parts[0][:20]])))
        answers = [ask(peer) for _ in range(6)]

        assert answers == [LOGITS] * 6


def test_a_client_that_goes_away_leaves_nothing_behind(opened: Open) -> None:
    before = open_files(is_first_look=True)
    with opened.client() as gone, opened.client() as cut_off:
        gone.close()
        cut_off.sendall(infer()[:-5])
    until(lambda: not opened.lent and opened.connections == 0)

    until(lambda: open_files() == before)


def test_a_question_that_hangs_keeps_nobody_else_waiting(opened: Open) -> None:
    with opened.client() as stuck, opened.client() as other:
        opened.backend.go.clear()
        stuck.sendall(infer())
        assert opened.backend.is_hanging.wait(60)

        quick = [ask(other) for _ in range(5)]
        with opened.opened.connect() as newcomer:
            newcomer.sendall(LIVE)
            is_live = read_answer(newcomer)[0] == 200
        opened.backend.go.set()

        assert quick == [LOGITS] * 5
        assert is_live
        assert answer(stuck) == LOGITS


def test_closing_the_door_ends_those_who_are_lent(opened: Open) -> None:
    with opened.client() as one, opened.client() as other:
        opened.opened.door.stop(5.0)

        assert one.recv(1) == other.recv(1) == b""
        until(lambda: not opened.lent)
        assert opened.connections == 0


def test_closing_the_door_waits_for_a_request_that_has_begun(opened: Open) -> None:
    with opened.client() as peer:
        peer.sendall(infer()[:-5])
        (lent,) = opened.members
        until(lambda: not lent._reader.is_idle)
        closing = threading.Thread(target=opened.opened.door.stop, args=(30.0,))
        closing.start()
        until(lambda: opened.lent == 0)
        peer.sendall(infer()[-5:])

        status, headers, _ = read_answer(peer)
        closing.join(30)
        assert status == 200
        assert headers["connection"] == "close"
        assert not closing.is_alive()


def test_an_idle_client_goes_home_and_gives_its_buffer_back(release: Path) -> None:
    with opened_with(release, HttpLimits(keep_body_s=0.05)) as opened, opened.client() as peer:
        budget = opened.opened.door._server.budget

        until(lambda: opened.lent == 0 and budget._left == HttpLimits().bodies_bytes)
        assert ask(peer) == LOGITS


def test_a_request_that_does_not_come_whole_is_refused_in_time(release: Path) -> None:
    limits = HttpLimits(head_s=0.05, body_s=0.05, body_bytes_per_s=1e9)
    with opened_with(release, limits) as opened, opened.client() as peer:
        peer.sendall(infer()[:-5])

        status, _, body = read_answer(peer)
        assert status == 408
        assert b"did not come in time" in body


def test_who_has_idled_longest_makes_room_though_it_is_lent(release: Path) -> None:
    with opened_with(release, HttpLimits(connections=2, keep_body_s=600.0)) as opened:
        before = open_files(is_first_look=True)
        with opened.client() as first, opened.client() as longest:
            assert ask(first) == LOGITS
            with opened.opened.connect() as newcomer:
                assert ask(newcomer) == LOGITS
                assert ask(first) == LOGITS
                assert longest.recv(1) == b""
        until(lambda: not opened.lent and opened.connections == 0)

        until(lambda: open_files() == before)


def test_who_is_being_answered_makes_no_room(release: Path) -> None:
    limits = HttpLimits(connections=2, keep_body_s=600.0)
    with opened_with(release, limits) as opened, opened.client() as stuck, opened.client() as other:
        opened.backend.go.clear()
        stuck.sendall(infer())
        assert opened.backend.is_hanging.wait(60)
        assert ask(other) == LOGITS
        until(lambda: any(one.is_idle for one in opened.opened.door._server._connections))
        with opened.opened.connect() as newcomer:
            newcomer.sendall(LIVE)
            is_live = read_answer(newcomer)[0] == 200
        opened.backend.go.set()

        assert is_live
        assert other.recv(1) == b""
        assert answer(stuck) == LOGITS


def test_who_fetches_an_answer_is_not_idle_and_leaves_a_closing_door_when_it_is_whole(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = HttpAnswer(200, (bytes(40_000_000),))
    with opened.client() as peer:
        (connection,) = opened.opened.door._server._connections
        monkeypatch.setattr(http, "infer_answer", lambda *_: long)
        peer.sendall(infer())
        # More than sockets hold: the rest waits in the server until it is fetched.
        until(lambda: connection._is_paused)
        is_idle = connection.is_idle
        closing = threading.Thread(target=opened.opened.door.stop, args=(600.0,))
        closing.start()
        until(lambda: connection._is_last)

        assert not is_idle
        assert read_answer(peer)[2] == long.parts[0]
        assert peer.recv(1) == b""
        closing.join(60)
        assert not closing.is_alive()


def test_a_body_that_fails_unexpectedly_costs_its_client_and_nobody_else(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened.client() as peer, opened.client() as other:
        fail_once(monkeypatch, MemoryError())
        peer.sendall(infer())

        assert ended(peer)
        assert ask(other) == LOGITS
        until(lambda: opened.connections == 1)


def test_the_body_of_a_client_that_was_cut_off_is_not_kept(release: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        with opened_with(release, HttpLimits(keep_body_s=600.0)) as opened, opened.client() as peer:
            server = opened.opened.door._server
            (connection,) = server._connections
            server._loop.call_soon_threadsafe(connection.abort)
            del connection

            assert ended(peer)
            until(lambda: server.budget._left == HttpLimits().bodies_bytes)
    finally:
        gc.enable()


def test_without_more_descriptors_a_client_is_answered_but_not_lent(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(http_connection.os, "dup", refuse)
    with opened.opened.connect() as peer:
        answers = [ask(peer) for _ in range(6)]

        assert answers == [LOGITS] * 6
        assert opened.connections == 1
        assert not opened.lent


def ended(peer: socket.socket) -> bool:
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


def fail_once(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    """The next request that is looked for is not found for that reason."""
    poll, failures = RequestReader.poll, iter([failure])

    def failing(reader: RequestReader) -> Request | None:
        if (one := next(failures, None)) is not None:
            raise one
        return poll(reader)

    monkeypatch.setattr(RequestReader, "poll", failing)


class _Partly:
    """The module `os` with another `writev`."""

    def __init__(self, writev: Callable[[int, list[bytes]], int]) -> None:
        self.writev = writev

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)
