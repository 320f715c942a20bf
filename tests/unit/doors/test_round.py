"""Clients that share a thread, and what becomes of those who would keep the others waiting."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue

import pytest

from edge_runtime.doors.round import Round
from tests.fakes.open_files import open_files

PATIENCE_S = 30


class Client:
    """Both ends of a conversation: the answer to a byte is the number of the thread that gave it."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.settimeout(PATIENCE_S)
        self.stays = True
        self.before_answer: Callable[[], object] = lambda: None
        self.went_on = SimpleQueue[int]()
        self.is_recalled = False

    def fileno(self) -> int:
        return self.far.fileno()

    def answer_next(self) -> bool:
        if self.is_recalled:
            return False
        self.far.recv(1)
        self.before_answer()
        stays = self.stays
        self.far.sendall(threading.get_ident().to_bytes(8, "little"))
        return stays

    def hang_up(self) -> None:
        self.far.shutdown(socket.SHUT_RDWR)

    def ask(self) -> int:
        self.near.sendall(b"?")
        return self.heard()

    def heard(self) -> int:
        return int.from_bytes(self.near.recv(8), "little")

    def leave(self) -> None:
        self.stays = False
        self.ask()
        self.went_on.get(timeout=PATIENCE_S)


def go_on(client: Client) -> None:
    client.went_on.put(threading.get_ident())


@contextmanager
def together(count: int, round_: Round[Client] | None = None) -> Iterator[list[Client]]:
    """Clients in one round, which is empty in the end."""
    round_ = round_ or Round[Client](go_on)
    clients = [Client() for _ in range(count)]
    for client in clients:
        assert round_.join(client)
    yield clients
    for client in list(round_._members.values()):
        client.leave()
    for client in clients:
        client.near.close()
        client.far.close()


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name in {"local-round", "local-watch"}]


def test_one_thread_answers_all() -> None:
    with together(4) as clients:
        threads = {client.ask() for client in [*clients, *clients]}

    assert len(threads) == 1


def test_an_answer_that_takes_long_keeps_nobody_else_waiting() -> None:
    goes_on = threading.Event()
    with together(3) as (slow, *others):
        slow.before_answer = goes_on.wait
        slow.near.sendall(b"?")

        answered = {other.ask() for other in [*others, *others]}
        goes_on.set()
        thread = slow.heard()

        assert len(answered) == 1
        assert thread not in answered
        # The thread that it held up stays with it.
        assert slow.went_on.get(timeout=PATIENCE_S) == thread


def test_a_hang_is_noticed_after_a_time_without_questions() -> None:
    goes_on = threading.Event()
    round_ = Round[Client](go_on)
    with together(2, round_) as (slow, other):
        while round_._asked.is_set():
            pass  # the watch goes to rest

        slow.before_answer = goes_on.wait
        slow.near.sendall(b"?")

        assert other.ask()
        goes_on.set()
        slow.heard()


def test_who_must_go_on_alone_leaves_the_others_to_another_thread() -> None:
    with together(3) as (leaving, *others):
        first = others[0].ask()
        leaving.stays = False

        assert leaving.ask() == first
        assert leaving.went_on.get(timeout=PATIENCE_S) == first
        assert {other.ask() for other in others} != {first}


def test_nothing_is_left_behind_the_last_one() -> None:
    before = open_files(is_first_look=True)
    with together(2) as clients:
        clients[0].ask()

    for thread in own_threads():
        thread.join(PATIENCE_S)
    assert not own_threads()
    assert open_files() == before


def test_who_is_recalled_leaves_without_having_asked() -> None:
    round_ = Round[Client](go_on)
    with together(2, round_) as (recalled, other):
        recalled.is_recalled = True

        round_.recall(recalled)

        assert recalled.went_on.get(timeout=PATIENCE_S)
        assert other.ask()
        assert list(round_._members.values()) == [other]


def test_who_fetches_nothing_can_be_recalled_too() -> None:
    round_ = Round[Client](go_on)
    with together(2, round_) as (recalled, other):
        recalled.far.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                recalled.far.send(bytes(4096))
        recalled.is_recalled = True
        round_.recall(recalled)

        assert recalled.went_on.get(timeout=PATIENCE_S)
        assert other.ask()


def test_all_are_recalled_who_are_recalled_at_once() -> None:
    round_ = Round[Client](go_on)
    before = open_files(is_first_look=True)
    with together(5, round_) as (*recalled, other):
        for client in recalled:
            client.is_recalled = True
            round_.recall(client)
            round_.recall(client)

        assert all(client.went_on.get(timeout=PATIENCE_S) for client in recalled)
        assert other.ask()
        assert list(round_._members.values()) == [other]
    assert open_files() == before


def test_to_recall_who_has_left_changes_nothing() -> None:
    round_ = Round[Client](go_on)
    with together(2, round_) as (gone, other):
        gone.leave()

        round_.recall(gone)

        assert other.ask()


def test_without_more_threads_a_client_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    client = Client()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)

        assert not Round[Client](go_on).join(client)


def test_without_more_threads_who_must_go_on_alone_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with together(2) as (leaving, other), monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        leaving.stays = False
        leaving.ask()
        leaving.went_on.get(timeout=PATIENCE_S)

        assert leaving.near.recv(1) == b""
        assert other.ask()


@pytest.mark.parametrize("count", [1, 2])
def test_who_cannot_be_answered_is_hung_up_on_and_the_others_are_answered(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise MemoryError

    with together(count) as (failing, *others):
        failing.before_answer = fail
        failing.near.sendall(b"?")

        assert failing.near.recv(1) == b""
        assert failing.went_on.get(timeout=PATIENCE_S)
        assert all(other.ask() for other in others)
    assert "failed unexpectedly" in caplog.text


def test_who_is_hung_up_on_is_served_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def go_on_slowly(client: Client) -> None:
        lead = round_._lead
        # Whom the lead is said to be serving, the watch gives a thread; that would end the lead, and strand the others.
        watched.put(lead and lead.serving)
        go_on(client)

    watched = SimpleQueue[Client | None]()
    round_ = Round[Client](go_on_slowly)
    with together(2, round_) as (leaving, _), monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        leaving.leave()

        assert watched.get_nowait() is None
