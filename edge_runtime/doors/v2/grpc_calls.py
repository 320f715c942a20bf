"""What becomes of gRPC calls: let in, asked of a model or of the server, answered; shared by all connections."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import Final, final

from edge_runtime.contract.errors import EdgeError
from edge_runtime.contract.ids import shown
from edge_runtime.doors.access import Access
from edge_runtime.doors.door import DoorStatistics
from edge_runtime.doors.round import Round
from edge_runtime.doors.tally import Tally
from edge_runtime.doors.v2.grpc_connection import GrpcConnection
from edge_runtime.doors.v2.grpc_head import CallHead, CallRefused, refusal_of
from edge_runtime.doors.v2.grpc_infer import QUICK_BYTES, Asked
from edge_runtime.doors.v2.grpc_limits import RPCS_MAX, STREAMS_MAX, GrpcLimits
from edge_runtime.doors.v2.grpc_service import CHANGES, HEALTH_PATH, SERVICE, SLOW, STREAM, Caller, GrpcService, Method
from edge_runtime.doors.v2.grpc_stream import Arrived, Event, MessageRules, Stream
from edge_runtime.doors.v2.http_body import HttpError, unfold
from edge_runtime.doors.v2.listening import Household, after
from edge_runtime.doors.v2.wire import Content
from edge_runtime.inference.requests.refusals import unforeseen
from edge_runtime.serving.calls import BadCall, Reply
from edge_runtime.serving.served import Served

_log: Final = logging.getLogger(__name__)

_PREFIX: Final = f"/{SERVICE}/"
_INFER: Final = "ModelInfer"
_INFER_PATH: Final = _PREFIX + _INFER
_STREAM_PATH: Final = _PREFIX + STREAM


@final
@dataclass(slots=True)
class _Conversation:
    """A call with many messages."""

    caller: Caller
    coming: SimpleQueue[Arrived | None] = field(default_factory=SimpleQueue)
    """None: no more."""


@final
class GrpcCalls(Household[GrpcConnection]):
    """What all connections of the door share; `heed` is called on the event loop's thread, or a connection's own."""

    def __init__(self, service: GrpcService, access: Access, limits: GrpcLimits) -> None:
        super().__init__("v2-grpc")
        self.limits = limits
        self.rules = MessageRules(limits.message_max_bytes, service.budget, service.reader.align_at)
        self._service = service
        self._methods = {_PREFIX + name: method for name, method in service.unary.items()}
        self._methods[HEALTH_PATH] = service.health
        self._access = access
        self._tally = Tally()
        self._lock = threading.Lock()
        """Guards the two numbers."""
        self._calls = self._streams = 0
        self.round = Round(GrpcConnection.come_back, "v2-grpc")

    def connect(self) -> GrpcConnection:
        """A connection, for a client that is about to come in."""
        return GrpcConnection(self, self._loop)

    def admit(self, connection: GrpcConnection) -> bool:
        """Whether there is room for one more; whoever has idled longest makes it."""
        if len(self._connections) >= self.limits.connections:
            self._tally.turned_away()
            idle = [one for one in self._connections if one.is_idle]
            if not idle:
                return False
            min(idle, key=lambda one: one.active_at).make_room()
        self._connections.add(connection)
        return True

    def count_left_outside(self) -> None:
        """A client made room for another before it was connected."""
        self._tally.turned_away()

    def count_refused(self) -> None:
        """A call that was let in ends with an error."""
        self._tally.refused()

    def statistics(self) -> DoorStatistics:
        """Counters since it was opened; from any thread."""
        return self._tally.read(len(self._connections))

    def gate(self, head: CallHead) -> bool:
        """Token, method and room, before a message is received. Raises: CallRefused."""
        # A supervisor may ask without the token whether the server is ready, as of the v2 door over HTTP.
        if head.path != HEALTH_PATH and not self._access.admits(head.authorization):
            self._tally.turned_away()
            because = "the metadata's authorization does not bear this server's token; send 'Bearer TOKEN'"
            raise CallRefused("UNAUTHENTICATED", f"cannot answer: {because}")
        is_stream = head.path == _STREAM_PATH
        if not is_stream and head.path not in self._methods:
            raise CallRefused("UNIMPLEMENTED", f"cannot answer: there is no method {shown(head.path)}")
        with self._lock:
            if self._calls >= RPCS_MAX:
                told = f"cannot answer: {RPCS_MAX} calls are under way; come again"
            elif is_stream and self._streams >= STREAMS_MAX:
                told = f"cannot open the stream: {STREAMS_MAX} are open"
            else:
                self._calls += 1
                self._streams += is_stream
                return is_stream
        self._tally.turned_away()
        raise CallRefused("RESOURCE_EXHAUSTED", told)

    def forget(self, stream: Stream) -> None:
        """A call is over, for whatever reason."""
        with self._lock:
            self._calls -= 1
            self._streams -= stream.is_streaming

    def heed(self, connection: GrpcConnection, event: Event) -> None:
        """Something happened to a call; what takes its time is done elsewhere."""
        stream = event.stream
        if stream.is_streaming:
            self._converse(connection, event)
        elif event.is_gone:
            if (caller := stream.call) is not None:
                caller.leave()
                self._done(stream)
        elif event.arrived is not None:
            stream.call = Caller(stream.deadline)
            self._ask(connection, stream, event.arrived)
        elif not stream.unread:
            connection.refuse(stream, refusal_of(BadCall("answer", "the request never came", "send one message")))

    def answer_here(self, connection: GrpcConnection, events: list[Event]) -> float | None:
        """Answer in this thread if all that happened is one short question.

        Returns:
            Seconds that the model took; None: it was something else.
        """
        stream, arrived = events[0].stream, events[0].arrived
        if arrived is not None and connection.calls == 1 and stream.head.path == _INFER_PATH:
            stream.call = Caller(stream.deadline)
            if self._is_quick(arrived):
                return self._infer(connection, stream, arrived, is_here=True)
        for event in events:
            self.heed(connection, event)
        return None

    # Calls with one message.

    def _ask(self, connection: GrpcConnection, stream: Stream, arrived: Arrived) -> None:
        name = stream.head.path.removeprefix(_PREFIX)
        if name == _INFER:
            if self._is_quick(arrived):
                self._infer(connection, stream, arrived)
            else:
                self._elsewhere(self._side, connection, stream, partial(self._infer, connection, stream, arrived))
            return
        work = partial(self._work, self._methods[stream.head.path], connection, stream, arrived)
        if name in CHANGES:
            self._elsewhere(self._changes, connection, stream, work)
        elif name in SLOW or not self._is_short(arrived):
            self._elsewhere(self._side, connection, stream, work)
        else:
            work()

    def _elsewhere(
        self, pool: ThreadPoolExecutor, connection: GrpcConnection, stream: Stream, work: Callable[[], object]
    ) -> None:
        try:
            pool.submit(work)
        except RuntimeError:  # the door closes meanwhile
            connection.refuse(stream, CallRefused("UNAVAILABLE", "cannot answer: the server ends"))

    @staticmethod
    def _is_short(arrived: Arrived) -> bool:
        return not arrived.is_folded and arrived.body is not None and arrived.body.size <= QUICK_BYTES

    def _is_quick(self, arrived: Arrived) -> bool:
        assert arrived.body is not None
        return not arrived.is_folded and self._service.reader.is_quick(arrived.body.content())

    def _work(self, method: Method, connection: GrpcConnection, stream: Stream, arrived: Arrived) -> None:
        if stream.is_over:
            return
        try:
            answered = method(bytes(self._content(stream, arrived)), stream.call)
        except Exception as error:  # noqa: BLE001 - a client learns that it was not its fault, and no more of it
            connection.refuse(stream, _refusal(error))
        else:
            self._tally.answered()
            connection.answer(stream, [answered], len(answered), arrived.body)

    def _infer(self, connection: GrpcConnection, stream: Stream, arrived: Arrived, *, is_here: bool = False) -> float:
        """Ask the model: in this thread if it is free, or have a worker do so; seconds that it took here."""
        caller: Caller | None = stream.call
        if stream.is_over or caller is None:
            return 0.0
        try:
            content = self._content(stream, arrived)
            began = time.monotonic()
            asked = self._service.reader.read(content, began, stream.deadline)
            served = self._service.find(asked)
            answered = partial(self._answered, connection, stream, arrived, (asked, served))
            if is_here and not served.is_busy:
                began = time.monotonic()
                reply = served.call(asked.call)
                took_s = time.monotonic() - began
                answered(reply)
                return took_s
            caller.submit(served, asked.call, answered)
            if asked.call.deadline is not None and not stream.is_over:
                with suppress(RuntimeError):  # a loop that has ended has nobody to tell
                    self._loop.call_soon_threadsafe(self._watch, stream, asked.call.deadline)
        except Exception as error:  # noqa: BLE001 - the client must hear of it, whatever it is
            connection.refuse(stream, _refusal(error))
        return 0.0

    def _watch(self, stream: Stream, deadline: float) -> None:
        """Withdraw a call that still waits at its deadline (`time.monotonic()` seconds)."""
        if (caller := stream.call) is not None:
            stream.alarm = after(self._loop, deadline, caller.withdraw)
            if stream.call is None:  # a worker answered in this very moment
                stream.alarm.cancel()

    def _done(self, stream: Stream) -> None:
        """Nothing may keep the tensors of a call that is over, whose memory the next one takes."""
        stream.call = None
        if (alarm := stream.alarm) is not None:
            with suppress(RuntimeError):  # a loop that has ended rings no more
                self._loop.call_soon_threadsafe(alarm.cancel)

    def _answered(
        self,
        connection: GrpcConnection,
        stream: Stream,
        arrived: Arrived,
        question: tuple[Asked, Served],
        outcome: Reply | EdgeError,
    ) -> None:
        """On a worker's thread, which also sends."""
        self._done(stream)
        if isinstance(outcome, EdgeError):
            connection.refuse(stream, refusal_of(outcome))
            return
        try:
            parts, size = self._service.write(*question, outcome)
        except Exception as error:  # noqa: BLE001 - the client must hear of it, whatever it is
            connection.refuse(stream, _refusal(error))
        else:
            self._tally.answered()
            connection.answer(stream, parts, size, arrived.body)

    # Calls with many messages.

    def _converse(self, connection: GrpcConnection, event: Event) -> None:
        stream = event.stream
        if stream.call is None:
            if event.is_gone:
                return
            stream.call = _Conversation(Caller(stream.deadline))
            talk = threading.Thread(target=self._talk, args=(connection, stream), name="v2-grpc-stream", daemon=True)
            try:
                talk.start()
            except RuntimeError:  # this process may have no more threads
                connection.refuse(stream, CallRefused("RESOURCE_EXHAUSTED", "cannot open the stream: no more threads"))
                return
        conversation: _Conversation = stream.call
        if event.is_gone:
            conversation.caller.leave()
        conversation.coming.put(event.arrived)

    def _talk(self, connection: GrpcConnection, stream: Stream) -> None:
        conversation: _Conversation = stream.call
        # Not a generator: that would keep a message, which no longer counts, for as long as it waits for the next one.
        contents = map(partial(self._told, stream), iter(conversation.coming.get, None))
        try:
            for answer in self._service.infer_stream(contents, conversation.caller, self._tally):
                if not connection.say(stream, answer):
                    return
            connection.finish(stream)
        except Exception as error:  # noqa: BLE001 - the client must hear of it, whatever it is
            connection.refuse(stream, _refusal(error))

    def _told(self, stream: Stream, arrived: Arrived) -> Content | EdgeError:
        if arrived.refusal is not None:
            return arrived.refusal
        try:
            return self._content(stream, arrived)
        except EdgeError as error:
            return error

    def _content(self, stream: Stream, arrived: Arrived) -> memoryview:
        """A message, unfolded. Raises: EdgeError."""
        assert arrived.body is not None
        content = arrived.body.content()
        if not arrived.is_folded:
            return content
        try:
            return unfold(content, stream.head.coding, self.limits.message_max_bytes, self._service.budget)
        except HttpError as error:
            raise BadCall("read the message", error.because) from None


def _refusal(error: Exception) -> CallRefused:
    if isinstance(error, EdgeError):
        return refusal_of(error)
    if isinstance(error, CallRefused):
        return error
    _log.error("v2 gRPC: a call failed unexpectedly", exc_info=error)
    return refusal_of(unforeseen(error))
