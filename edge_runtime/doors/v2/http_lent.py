"""A connection while it is lent: one thread receives and answers what brisk clients ask."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, final

from edge_runtime.doors.loan import Loan
from edge_runtime.doors.v2.http_answer import HttpAnswer, render
from edge_runtime.doors.v2.http_body import HttpError
from edge_runtime.doors.v2.http_limits import HttpLimits
from edge_runtime.doors.v2.http_parser import Request, RequestReader
from edge_runtime.doors.v2.sending import PARTS_MAX, Buffer, rest_of

_READS_MAX: Final = 16
"""Before it is another's turn."""


class AnswererHere(Protocol):
    """What a lent connection needs of the door it came through."""

    def count(self, status: int) -> None:
        """A request got an answer of that status; from any thread."""

    def answer_here(self, request: Request) -> tuple[HttpAnswer, float] | None:
        """Answer in this thread if it is a short question.

        Returns:
            The answer and how many seconds it took; None: it is another question, or the model is not free.
        """


@final
class LentConnection:
    """Has a connection's reader for as long as the connection is lent; lives on the round's thread.

    Args:
        descriptor: of the socket; remains the connection's, who closes it.
        reader: of its requests.
        server: who answers.
        loan: whether the client still asks as who is lent should.
        give_back: told when the event loop is to go on.

    Attributes:
        is_recalled: the connection is to go home before its next answer.
        active_at: when something came last, `time.monotonic()` seconds.
        began: when a request began that is not answered; 0: none.
        request: came, and is not answered.
        failed: the last thing that came is no request.
        left: what the socket did not take of an answer.
        is_last: after this answer the connection ends.
    """

    __slots__ = (
        "_descriptor", "_give_back", "_loan", "_reader", "_server",
        "active_at", "began", "failed", "is_last", "is_recalled", "left", "request",
    )  # fmt: skip

    def __init__(
        self,
        descriptor: int,
        reader: RequestReader,
        server: AnswererHere,
        loan: Loan,
        give_back: Callable[[LentConnection], None],
    ) -> None:
        self._descriptor = descriptor
        self._reader = reader
        self._server = server
        self._loan = loan
        self._give_back = give_back
        self.active_at = time.monotonic()
        self.began = 0.0
        self.request: Request | None = None
        self.failed: HttpError | None = None
        self.left: list[Buffer] = []
        self.is_last = self.is_recalled = False

    def is_due(self, now: float, limits: HttpLimits) -> bool:
        """Whether it is to be recalled: to give its buffer back, or because a request takes long to come."""
        since, limit_s = (self.began, limits.head_s) if self.began else (self.active_at, limits.keep_body_s)
        return now - since > limit_s

    def fileno(self) -> int:
        """As `Member.fileno`."""
        return self._descriptor

    def answer_next(self) -> bool:
        """As `Member.answer_next`; what is received and not answered is left to the event loop."""
        if self.is_recalled:
            return False
        reader = self._reader
        try:
            for _ in range(_READS_MAX):
                room = reader.buffer()
                count = os.readv(self._descriptor, [room])
                if not count:
                    return False
                self.active_at = time.monotonic()
                self.began = self.began or self.active_at
                reader.advance(count)
                if (request := reader.poll()) is not None:
                    return self._answer(request)
                if count < len(room):
                    break  # nothing more is there
        except BlockingIOError:
            pass
        except OSError:
            return False
        except HttpError as error:
            self.failed = error
            return False
        if reader.is_idle:
            self.began = 0.0  # nothing came, or what stands between requests
        return (head := reader.awaited) is None or not head.expects_continue

    def hang_up(self) -> None:
        """As `Member.hang_up`."""
        self.is_last = True
        with suppress(OSError):  # it has hung up itself
            peer = socket.socket(fileno=self._descriptor)
            try:
                peer.shutdown(socket.SHUT_RDWR)
            finally:
                peer.detach()

    def go_home(self) -> None:
        """Have the event loop go on."""
        self._give_back(self)

    def _answer(self, request: Request) -> bool:
        """Answer and stay, or leave the request to the event loop."""
        answered = self._server.answer_here(request)
        if answered is None:
            self.request = request
            return False
        answer, took_s = answered
        self.is_last = not request.head.keeps_alive
        parts = render(answer, keeps_alive=not self.is_last, is_head=False)
        self._server.count(answer.status)
        try:
            sent = os.writev(self._descriptor, parts[:PARTS_MAX])
        except BlockingIOError:
            sent = 0
        self.left = rest_of(parts, sent)
        if self.left:
            return False
        stays = self._loan.goes_on(self.active_at, took_s) and self._reader.is_idle and not self.is_last
        if stays:
            self.began = 0.0
        return stays
