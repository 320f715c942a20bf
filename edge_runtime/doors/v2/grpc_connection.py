"""One gRPC client's connection: its bytes between a socket and HTTP/2, and whose turn it is to read them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from typing import Final, Protocol, cast

from edge_runtime.doors.loan import Loan
from edge_runtime.doors.pace import left_us
from edge_runtime.doors.round import Round
from edge_runtime.doors.v2.grpc_head import CallRefused
from edge_runtime.doors.v2.grpc_limits import GrpcLimits
from edge_runtime.doors.v2.grpc_outlet import Outlet
from edge_runtime.doors.v2.grpc_stream import Event, House, Stream
from edge_runtime.doors.v2.http2 import Http2Connection
from edge_runtime.doors.v2.http_body import Body
from edge_runtime.doors.v2.listening import drop
from edge_runtime.doors.v2.sending import Buffer

_READS_MAX: Final = 16
"""In the round, before it is another's turn."""


class Server(House, Protocol):
    """What a connection needs of the door it came through."""

    limits: GrpcLimits
    round: Round[GrpcConnection]
    """Where brisk clients are answered."""

    def admit(self, connection: GrpcConnection) -> bool:
        """Whether there is room for one more."""

    def leave(self, connection: GrpcConnection) -> None:
        """It is closed."""

    def heed(self, connection: GrpcConnection, event: Event) -> None:
        """Something happened to a call."""

    def answer_here(self, connection: GrpcConnection, events: list[Event]) -> float | None:
        """Answer in this thread if all that happened is one short question.

        Returns:
            Seconds that the model took; None: it was something else.
        """


class GrpcConnection(asyncio.BufferedProtocol):
    """One connection; lives on the event loop's thread, but for `answer`, `say`, `finish` and `refuse`.

    While its client is brisk it is lent to the round, whose thread reads and answers then, and the event loop does not.
    """

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._home = threading.get_ident()
        self._lock = threading.Lock()
        """Guards `_wire`, and who writes to `_outlet`."""
        self._moved = threading.Condition(self._lock)
        """Something was sent, or never will be."""
        self._wire = Http2Connection(server, time.monotonic())
        self._transport: asyncio.Transport | None = None
        self._outlet = Outlet(loop, self._lock)
        self._loan = Loan()
        self._asked_at = 0.0
        """When the last question had come."""
        self._is_lent = self._is_ending = self._is_lost = False
        self._lingers = True
        """It waits a moment for its client to hang up first."""
        self._active_at = time.monotonic()
        self._deadline = inf
        """When the sweep ends it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is here."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._server.admit(self):
            self._is_ending = True
            self._transport.abort()
            return
        self._outlet.open(self._transport)
        self._deadline = time.monotonic() + self._server.limits.handshake_s
        with self._lock:
            self._flush()

    @property
    def active_at(self) -> float:
        """When something came last, `time.monotonic()` seconds."""
        return self._active_at

    @property
    def is_idle(self) -> bool:
        """Whether it has shaken hands and has no call under way."""
        return self._wire.has_greeted and not (self._wire.calls or self._wire.is_held or self._is_ending)

    @property
    def calls(self) -> int:
        """How many are under way."""
        return self._wire.calls

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 (the signature is asyncio's)
        """Where the next bytes go."""
        return self._wire.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        now = self._active_at = time.monotonic()
        with self._lock:
            events = self._wire.advance(nbytes, now)
            self._outlet.look_again()
            self._flush()
            self._moved.notify_all()
        self._heed(events)
        if self._deadline < inf and self._wire.has_greeted and not self._wire.is_held and not self._is_ending:
            self._deadline = inf
        self._settle()

    def eof_received(self) -> None:
        """The client sends no more: it has gone."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (the signature is asyncio's)
        """The client has gone; what waits for it is withdrawn."""
        with self._lock:
            self._is_ending, self._deadline = True, inf
            left = self._wire.lose()
            self._outlet.lose()
            self._is_lost = True
            self._moved.notify_all()
        if self._is_lent:
            self.hang_up()
        else:
            self._outlet.close()
        self._server.leave(self)
        self._heed([Event(stream, is_gone=True) for stream in left])

    def pause_writing(self) -> None:
        """The client does not fetch its answers: it is not listened to either."""
        assert self._transport is not None
        with self._lock:
            self._wire.hold()
        self._deadline = time.monotonic() + self._server.limits.send_s
        if not (self._is_ending or self._is_lent):
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client goes on."""
        assert self._transport is not None
        with self._lock:
            self._wire.resume()
            self._flush()
            self._moved.notify_all()
        if not self._is_ending:
            self._deadline = inf
            if not self._is_lent:
                self._transport.resume_reading()

    def answer(self, stream: Stream, parts: Sequence[Buffer], size: int, body: Body | None = None) -> None:
        """The message that answers a call; from any thread.

        Args:
            stream: the call.
            parts: what the message consists of.
            size: of all of them, bytes.
            body: memory of the question, which nobody needs any more.
        """
        if self._may_be_lent() and threading.get_ident() != self._home:
            # There, so that the client is lent before its next question is here.
            with suppress(RuntimeError):  # a loop that has ended has nobody to tell
                self._loop.call_soon_threadsafe(self.answer, stream, parts, size, body)
            return
        with self._lock:
            if body is not None:
                self._wire.keep(body)
            self._wire.answer(stream, parts, size)
            self._flush()
        if not self._is_lent:
            now = time.monotonic()
            self._loan.note(self._asked_at, now, left_us(stream.deadline, now))
            if self._may_be_lent() and threading.get_ident() == self._home:
                self._lend()
        self._turn(stream)

    def refuse(self, stream: Stream, refusal: CallRefused) -> None:
        """End a call with an error; from any thread."""
        with self._lock:
            self._wire.refuse(stream, refusal)
            self._flush()
            self._moved.notify_all()
        self._turn(stream)

    def say(self, stream: Stream, content: bytes) -> bool:
        """Send a message of many, and wait until it has left; False: nobody is there any more. From any thread."""
        with self._lock:
            self._wire.say(stream, [content], len(content))
            self._flush()
            while stream.pending and not stream.is_over:
                self._moved.wait()
            if not stream.is_over:
                self._wire.took(stream)
                self._flush()
        return not stream.is_over

    def finish(self, stream: Stream) -> None:
        """No message follows; from any thread."""
        with self._lock:
            self._wire.finish(stream)
            self._flush()
        self._turn(stream)

    def expire(self, now: float) -> None:
        """End what takes too long, give back what is not needed; `now` is `time.monotonic()`."""
        if now >= self._deadline:
            drop(self._transport)
            return
        limits = self._server.limits
        with self._lock:
            ended = self._wire.expire(now, limits)
            if now - self._active_at > limits.keep_body_s:
                self._wire.release()
            if not self._is_lent:
                self._wire.shed()
            self._flush()
            self._moved.notify_all()
        self._heed(ended)
        self._settle()

    # In the round.

    def fileno(self) -> int:
        """The descriptor of its socket."""
        return self._outlet.fileno()

    def answer_next(self) -> bool:
        """Receive what came, and answer it if it is a short question; False: the event loop must go on."""
        peer = self._outlet.peer
        assert peer is not None
        for _ in range(_READS_MAX):
            room = self._wire.buffer()
            try:
                count = peer.recv_into(room)
            except BlockingIOError:
                return True
            except OSError:
                return False
            began = self._active_at = time.monotonic()
            with self._lock:
                events = self._wire.advance(count, began) if count else []
                self._flush()
            if not count or self._wire.is_over or not self._outlet.is_direct:
                self._heed(events)
                return False
            if events:
                return self._answer_here(events, began)
            if count < len(room):
                break  # nothing more is there
        return True

    def hang_up(self) -> None:
        """End the conversation, from any thread: whoever reads learns so at once."""
        self._outlet.hang_up()

    def come_back(self) -> None:
        """Have the event loop read again; from any thread."""
        self._is_lent = False
        if self._is_lost:
            self._outlet.close()
            return
        with suppress(RuntimeError):  # it ends
            self._loop.call_soon_threadsafe(self._come_back)

    def _answer_here(self, events: list[Event], began: float) -> bool:
        stream = events[0].stream
        took_s = self._server.answer_here(self, events)
        if took_s is None:
            return False
        stays = self._loan.goes_on(began, took_s, left_us(stream.deadline, began))
        return stays and self._outlet.is_direct and not self._wire.is_spent

    def _may_be_lent(self) -> bool:
        is_here = self._outlet.peer is not None and not (self._is_lent or self._is_ending)
        return is_here and self._wire.calls <= 1 and self._loan.is_due

    def _lend(self) -> None:
        """Leave reading to the round, if nothing is under way."""
        transport = self._transport
        if transport is None or not (self._outlet.is_direct and self._wire.is_quiet):
            return
        transport.pause_reading()
        self._is_lent = True
        self._loan.begin()
        if not self._server.round.join(self):
            self._is_lent = False
            self._come_back()

    def _come_back(self) -> None:
        if self._is_lost or self._transport is None:
            return
        self._loan.end()
        self._settle()
        if not self._wire.is_held:
            self._transport.resume_reading()

    def make_room(self) -> None:
        """End an idle connection without a wait: another takes its place and its descriptors."""
        self._lingers = False
        self.drain()

    def drain(self) -> None:
        """Take no further call, and end when the last one has."""
        with self._lock:
            self._wire.drain()
            self._flush()
        self._settle()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _heed(self, events: list[Event]) -> None:
        for event in events:
            if event.arrived is not None:
                self._asked_at = self._active_at
            self._server.heed(self, event)

    def _turn(self, stream: Stream) -> None:
        """Have the event loop look whether that was the last thing to do."""
        if stream.is_over and self._wire.is_spent:
            with suppress(RuntimeError):  # it has ended itself
                self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        """End the connection if it has come to its end; the round goes on with reading if it does."""
        transport = self._transport
        if self._is_ending or transport is None or not (self._wire.is_over or self._wire.is_spent):
            return
        self._is_ending = True
        with self._lock:
            self._wire.lose()  # nothing more is said, whoever reads what still comes
        self._outlet.push()
        if not (self._lingers and transport.can_write_eof()):
            self._deadline = time.monotonic() + self._server.limits.send_s
            transport.close()
            return
        # Whatever was said last is lost to a reset if it meets unread bytes.
        limits = self._server.limits
        wait_s = limits.send_s if transport.get_write_buffer_size() else limits.linger_s
        self._deadline = time.monotonic() + wait_s
        with suppress(OSError, RuntimeError):
            transport.write_eof()

    def _flush(self) -> None:
        """Send what there is, as far as the socket takes it; the lock is held."""
        self._outlet.send(self._wire.outgoing())
