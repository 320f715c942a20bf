"""One client's connection: receives into one buffer, asks, sends header, JSON and tensors with one call.

While its client is brisk it is lent to the round, whose thread receives and answers then, and the event loop does not.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import suppress
from math import inf
from typing import Final, Literal, Protocol, cast

from edge_runtime.doors.loan import Loan
from edge_runtime.doors.round import Round
from edge_runtime.doors.v2.http_answer import CONTINUE, HttpAnswer, http_error_answer, render
from edge_runtime.doors.v2.http_body import HttpError, MemoryBudget
from edge_runtime.doors.v2.http_exchange import Exchange
from edge_runtime.doors.v2.http_lent import AnswererHere, LentConnection
from edge_runtime.doors.v2.http_limits import HttpLimits
from edge_runtime.doors.v2.http_parser import Admitted, Head, Request, RequestReader
from edge_runtime.doors.v2.listening import after, drop
from edge_runtime.doors.v2.sending import PARTS_MAX, Buffer, rest_of

_SCRAP_BYTES: Final = 64 * 1024


class Server(AnswererHere, Protocol):
    """What a connection needs of the door it came through."""

    limits: HttpLimits
    budget: MemoryBudget
    round: Round[LentConnection]
    """Where brisk clients are answered."""

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for one more."""

    def leave(self, connection: Connection) -> None:
        """It is closed."""

    def gate(self, head: Head) -> Admitted:
        """Look at a head before its body is received. Raises: HttpError."""

    def answer(self, connection: Connection, exchange: Exchange, request: Request) -> None:
        """See that `finish` (on the event loop) or `deliver` (elsewhere) is called for the exchange, now or later."""


class Connection(asyncio.BufferedProtocol):
    """One connection; lives on the event loop's thread, but for `deliver`."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._reader = RequestReader(server.gate, server.budget)
        self._transport: asyncio.Transport | None = None
        self._fd = -1
        """A second descriptor of the socket: no other can take its number while a worker writes."""
        self._writing = threading.Lock()
        self._exchange: Exchange | None = None
        self._unanswered: Request | None = None
        """Came while the connection was lent, and was not answered there."""
        self._loan = Loan()
        self._lent: LentConnection | None = None
        """Who has the reader while the connection is lent."""
        self._is_lost = self._is_coming_home = False
        self._phase: Literal["idle", "head", "body", "busy", "ending"] = "idle"
        self._since = time.monotonic()
        """When the phase began."""
        self._deadline = inf
        """When the sweep may end it."""
        self._received = 0
        self._is_polling = self._is_paused = self._is_last = self._has_continued = False
        self._failed: HttpError | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request has begun."""
        return self._phase == "idle" and not (self._lent is not None and self._lent.began)

    @property
    def idle_since(self) -> float:
        """When its last request was answered, `time.monotonic()` seconds."""
        return self._since if self._lent is None else self._lent.active_at

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        self._transport = cast("asyncio.Transport", transport)
        if transport.get_extra_info("sslcontext") is None:
            with suppress(OSError):  # no more descriptors: the event loop sends
                self._fd = os.dup(transport.get_extra_info("socket").fileno())
        if not self._server.admit(self):
            self._turn_away(HttpError(503, "as many clients are connected as this server takes"))
            self._loop.call_later(self._server.limits.linger_s, self.abort)
            return
        self._enter("idle", self._server.limits.idle_s)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (the signature is asyncio's)
        """Where the next bytes go."""
        if self._phase != "ending":
            try:
                return self._reader.buffer()
            except HttpError as error:
                # Told when the loop has done what it is in the middle of.
                self._failed = error
        return memoryview(bytearray(_SCRAP_BYTES))

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        if self._failed is not None:
            failed, self._failed = self._failed, None
            self._refuse(failed)
        if self._phase == "ending":
            return
        self._received += nbytes
        self._reader.advance(nbytes)
        if self._exchange is None and not self._is_paused:
            self._next()
        elif self._reader.is_full and self._transport is not None:
            # What was sent ahead waits in the kernel until its turn comes.
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more: it has gone, unless its request runs already."""
        # TLS knows no half-closed connections.
        if self._exchange is None or self._exchange.withdraw() or self._fd < 0:
            return False
        self._is_last = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (the signature is asyncio's)
        """The client has gone; what waits for it is withdrawn."""
        self._phase, self._deadline = "ending", inf
        exchange, self._exchange = self._exchange, None
        with self._writing:
            if exchange is not None:
                exchange.is_gone = True
            self._is_lost = True
            if (lent := self._lent) is None or self._is_coming_home:
                self._close_descriptor()
            else:
                lent.hang_up()
        self._server.leave(self)
        if exchange is not None:
            exchange.withdraw()
            exchange.end()
        if lent is None:
            self._reader.release()

    def pause_writing(self) -> None:
        """The client does not fetch its answer."""
        self._is_paused = True
        self._deadline = time.monotonic() + self._server.limits.send_s

    def resume_writing(self) -> None:
        """The client goes on."""
        self._is_paused = False
        if self._phase != "ending" and self._exchange is None:
            self._next()

    def watch(self, exchange: Exchange, deadline: float) -> None:
        """Withdraw a request that still waits at its deadline (`time.monotonic()` seconds)."""
        if self._exchange is exchange:
            exchange.alarm = after(self._loop, deadline, exchange.withdraw)

    def deliver(self, exchange: Exchange, answer: HttpAnswer) -> None:
        """Send the answer from any thread: what the socket takes at once does not wait for the event loop's turn."""
        keeps_alive = exchange.head.keeps_alive and not self._is_last
        parts = render(answer, keeps_alive=keeps_alive, is_head=exchange.head.method == "HEAD")
        exchange.status = answer.status
        sent = 0
        with self._writing:
            if exchange.is_gone:
                return
            # Else there, so that the client is lent before its next question is here.
            if exchange.is_direct and not self._loan.is_due and len(parts) <= PARTS_MAX:
                with suppress(OSError):
                    # What is wrong with the socket, the loop will find.
                    sent = os.writev(self._fd, parts)
        # A loop that has ended has nobody to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._settle, exchange, parts, sent, keeps_alive)

    def finish(self, exchange: Exchange, answer: HttpAnswer) -> None:
        """Send the answer to the request under way; nothing when its client has gone."""
        keeps_alive = exchange.head.keeps_alive and not self._is_last
        parts = render(answer, keeps_alive=keeps_alive, is_head=exchange.head.method == "HEAD")
        exchange.status = answer.status
        self._settle(exchange, parts, 0, keeps_alive)

    def _settle(self, exchange: Exchange, parts: list[bytes | memoryview], sent: int, keeps_alive: bool) -> None:  # noqa: FBT001
        """The answer has been sent that far: send the rest, and turn to the next request."""
        if self._exchange is not exchange:
            return
        self._exchange, self._has_continued = None, False
        self._server.count(exchange.status)
        if exchange.asked_at:
            self._loan.note(exchange.asked_at, time.monotonic(), exchange.left_us)
        exchange.end()
        if sent:
            self._leave(rest_of(parts, sent))
        else:
            self._send(parts)
        if self._is_last or not keeps_alive:
            self.close()
        elif not self._is_polling and not self._is_paused:
            self._next()

    def expire(self, now: float) -> None:
        """End what takes too long, give back what is not needed."""
        limits = self._server.limits
        if (lent := self._lent) is not None:
            if lent.is_due(now, limits):
                self._call_back(lent)
        elif now < self._deadline:
            if self._phase == "idle" and now - self._since > limits.keep_body_s:
                self._reader.release()
        elif self._phase in {"head", "body"} and not self._is_paused:
            self._refuse(HttpError(408, "the request did not come in time"))
        else:
            drop(self._transport)

    def close(self) -> None:
        """End the connection once what was written is sent."""
        self._phase = "ending"
        self._deadline = time.monotonic() + self._server.limits.send_s
        if self._transport is not None:
            self._transport.close()

    def drain(self) -> None:
        """End the connection after the answer to what has begun, or now."""
        self._is_last = True
        if self._lent is not None:
            self._call_back(self._lent)
        elif self._phase == "idle":
            self.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _next(self) -> None:
        self._is_polling = True
        try:
            while self._exchange is None and not self._is_paused and self._phase != "ending":
                request, self._unanswered = self._unanswered or self._reader.poll(), None
                if request is None:
                    self._wait()
                    break
                self._phase, self._deadline = "busy", inf
                self._exchange = Exchange(request.head)
                self._exchange.is_direct = self._fd >= 0 and not self._pending()
                self._server.answer(self, self._exchange, request)
        except HttpError as error:
            self._refuse(error)
        finally:
            self._is_polling = False

    def _wait(self) -> None:
        limits, awaited = self._server.limits, self._reader.awaited
        if awaited is not None:
            if self._phase != "body":
                self._enter("body", limits.body_s)
            # Slow links are given time by what they bring; a trickle is not.
            self._deadline = self._since + limits.body_s + self._received / limits.body_bytes_per_s
            if awaited.expects_continue and not self._has_continued:
                self._has_continued = True
                self._send([CONTINUE])
        elif self._reader.is_idle:
            if self._is_last:
                self.close()
                return
            self._enter("idle", limits.idle_s)
            if self._lend():
                return
        elif self._phase != "head":
            self._enter("head", limits.head_s)
        if self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()

    def _enter(self, phase: Literal["idle", "head", "body"], seconds: float) -> None:
        self._phase, self._received = phase, 0
        self._since = time.monotonic()
        self._deadline = self._since + seconds

    def _lend(self) -> bool:
        """Leave receiving and answering to the round, if the client is brisk and nothing is under way."""
        transport = self._transport
        if not self._loan.is_due or self._fd < 0 or self._is_last or transport is None or self._pending():
            return False
        transport.pause_reading()
        self._loan.begin()
        lent = LentConnection(self._fd, self._reader, self._server, self._loan, self._give_back)
        self._lent = lent
        if not self._server.round.join(lent):
            self._lent = None
            self._loan.stay()
        return self._lent is not None

    def _call_back(self, lent: LentConnection) -> None:
        lent.is_recalled = True
        self._server.round.recall(lent)

    def _give_back(self, lent: LentConnection) -> None:
        """On the round's thread: have the event loop go on."""
        with self._writing:
            if self._is_lost:
                self._close_descriptor()
                # Together they would last until cycles are collected, and the memory of a body with them.
                self._lent = None
                return
            self._is_coming_home = True
        # A loop that has ended has nobody to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._take_back, lent)

    def _take_back(self, lent: LentConnection) -> None:
        self._lent, self._is_coming_home = None, False
        self._loan.end()
        if self._phase == "ending" or self._transport is None:
            self._reader.release()
            return
        # Not idle, who has not fetched the answer.
        self._phase, self._deadline = "busy", inf
        self._transport.resume_reading()
        self._leave(lent.left)
        if lent.failed is not None:
            self._refuse(lent.failed)
        elif lent.is_last:
            self.close()
        else:
            self._unanswered = lent.request
            self._next()

    def _close_descriptor(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _refuse(self, error: HttpError) -> None:
        if self._phase != "ending":
            self._server.count(error.status)
            self._turn_away(error)

    def _turn_away(self, error: HttpError) -> None:
        """Say why, and read on for a moment: an answer that meets unread bytes is lost to a reset."""
        transport = self._transport
        if self._phase == "ending" or transport is None:
            return
        self._phase = "ending"
        self._reader.release()
        self._send(render(http_error_answer(error), keeps_alive=False, is_head=False))
        self._deadline = time.monotonic() + self._server.limits.linger_s
        if not transport.is_closing() and transport.can_write_eof():
            with suppress(OSError, RuntimeError):
                transport.write_eof()

    def _pending(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def _send(self, parts: list[bytes | memoryview]) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._fd < 0 or len(parts) > PARTS_MAX or self._pending():
            transport.writelines(parts)
            return
        # Past the transport, which would join the parts first (asyncio before 3.12), or wait for the loop's next turn.
        try:
            sent = os.writev(self._fd, parts)
        except BlockingIOError:
            sent = 0
        except OSError:
            transport.abort()
            return
        self._leave(rest_of(parts, sent))

    def _leave(self, rest: list[Buffer]) -> None:
        """Leave what the socket did not take to the transport."""
        for part in rest:
            if self._transport is not None:
                self._transport.write(part)
