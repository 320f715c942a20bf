"""One HTTP/2 connection of the gRPC door, without a socket: bytes that came in, calls and bytes that leave out.

The library h2 minds the state of the connection and of each stream, and the headers. It never sees what DATA frames
carry, which it would copy five times: of that, flow control included, is taken care of here (ADR 0023).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, final

import h2.events
import h2.exceptions

from edge_runtime.contract.errors import InferenceError
from edge_runtime.doors.v2 import http2_cutter as frames
from edge_runtime.doors.v2.grpc_head import SUCCESS, CallRefused, read_head
from edge_runtime.doors.v2.grpc_limits import GrpcLimits
from edge_runtime.doors.v2.grpc_stream import Arrived, Assembly, Event, House, Stream
from edge_runtime.doors.v2.http2_cutter import BrokenProtocol, FrameCutter
from edge_runtime.doors.v2.http2_library import STREAM_WINDOW, new_connection
from edge_runtime.doors.v2.http2_nuisance import HeaderBlock, Nuisance
from edge_runtime.doors.v2.http2_sender import Sender
from edge_runtime.doors.v2.http2_windows import ReceiveWindows
from edge_runtime.doors.v2.http_body import Body
from edge_runtime.doors.v2.sending import Buffer

_DEAF_MAX: Final = 256

_SMALL_BYTES: Final = 16

_TOO_LATE: Final = CallRefused("DEADLINE_EXCEEDED", "cannot answer: the deadline passed before a request had come")


@final
class Http2Connection:
    """One connection; whoever calls it holds its lock, but for `buffer`.

    Args:
        house: lets calls in.
        now: `time.monotonic()` seconds.
    """

    def __init__(self, house: House, now: float) -> None:
        self._house = house
        self._now = now
        self._cutter = FrameCutter(self)
        self.buffer = self._cutter.buffer
        """Where the next bytes go; never empty."""
        self._h2 = new_connection()
        self._streams: dict[int, tuple[Stream, Assembly]] = {}
        """Those whose client may still send, or waits for an answer."""
        self._deaf: OrderedDict[int, None] = OrderedDict()
        """Those that were refused before everything had come."""
        self._spare: Body | None = None
        self._events: list[Event] = []
        self._sender = Sender(self._h2)
        self._sender.collect()
        self._windows = ReceiveWindows(self._sender)
        self._nuisance = Nuisance(now)
        self._headers = HeaderBlock()
        self._is_last = False
        self.has_greeted = False
        """The client has introduced itself."""
        self.is_over = False
        """Nothing is to be done any more but to send what is left."""

    @property
    def is_quiet(self) -> bool:
        """Whether no call is under way, and nothing has come or leaves in part."""
        has_part = self._headers.is_open or not self._cutter.is_between_frames
        return not (self._streams or has_part) and self._sender.is_empty

    @property
    def calls(self) -> int:
        """How many are under way."""
        return len(self._streams)

    @property
    def streams(self) -> list[Stream]:
        """Calls under way."""
        return [stream for stream, _ in self._streams.values()]

    def advance(self, count: int, now: float) -> list[Event]:
        """So many bytes were written to `buffer()`; what that means to whom."""
        self._now = now
        self._events = []
        if not self.is_over:
            try:
                self._cutter.advance(count)
            except BrokenProtocol as broken:
                self._break_off(broken.code)
            except h2.exceptions.H2Error:
                self._break_off(None)
        events, self._events = self._events, []
        return events

    def outgoing(self) -> list[Buffer]:
        """What is to be sent now."""
        return self._sender.take()

    def answer(self, stream: Stream, parts: Sequence[Buffer], size: int) -> None:
        """The one message that answers a call."""
        if not stream.is_over:
            stream.trailers = SUCCESS
            self.say(stream, parts, size)

    def say(self, stream: Stream, parts: Sequence[Buffer], size: int) -> None:
        """A message, of which others may follow."""
        if stream.is_over:
            return
        if size > self._house.rules.max_bytes:
            told = f"cannot answer: the message has {size} bytes, and at most {self._house.rules.max_bytes} are sent"
            self.refuse(stream, CallRefused("RESOURCE_EXHAUSTED", told))
            return
        self._sender.begin(stream)
        stream.put(parts, size, self._now)
        self._pump(stream)

    def finish(self, stream: Stream) -> None:
        """No message follows; all went well."""
        if stream.is_over:
            return
        self._sender.begin(stream)
        stream.trailers = SUCCESS
        self._pump(stream)

    def refuse(self, stream: Stream, refusal: CallRefused) -> None:
        """End a call with an error, whatever it was about."""
        if stream.is_over:
            return
        self._house.count_refused()
        stream.queue.clear()
        stream.pending = 0
        stream.trailers = refusal.trailers() if stream.has_begun else refusal.alone()
        self._end(stream)

    def reset(self, stream: Stream, code: int) -> None:
        """End a call without a word."""
        if not stream.is_over:
            self._leave(stream, code)

    def expire(self, now: float, limits: GrpcLimits) -> list[Event]:
        """End calls whose client takes too long; which."""
        self._now = now
        ended = []
        for stream in self.streams:
            if stream.is_late(now):
                self.refuse(stream, _TOO_LATE)
            elif stream.is_stuck(now, limits):
                self.reset(stream, frames.CANCEL)
            if stream.is_over:
                ended.append(Event(stream, is_gone=True))
        return ended

    def took(self, stream: Stream) -> None:
        """A message of it has been answered: the next one may come."""
        stream.unread -= 1
        stream.shares.popleft().end()
        self._windows.open(stream)

    def keep(self, body: Body) -> None:
        """Memory of a message that was answered, for the next one, if others do not keep too much of it."""
        if self._spare is None and not self.is_over:
            with suppress(InferenceError):
                self._house.rules.spares.take(body.capacity)
                self._spare = body

    def release(self) -> None:
        """Let go of memory that nothing needs."""
        self._give_spare()

    def shed(self) -> None:
        """Let go of what still comes of a call that is over; nobody may be about to receive meanwhile."""
        self._cutter.shed()

    def hold(self) -> None:
        """Nobody fetches what is sent: no more of it for now."""
        self._sender.is_held = True

    def resume(self) -> None:
        """What was held goes on."""
        self._sender.is_held = False
        self._pump_all()

    @property
    def is_held(self) -> bool:
        """Whether nothing is sent for now."""
        return self._sender.is_held

    def drain(self) -> None:
        """Take no further call."""
        if not self._is_last and not self.is_over:
            self._is_last = True
            self._say_goodbye(frames.NO_ERROR)

    @property
    def is_spent(self) -> bool:
        """Whether it takes no further call and the last one is over."""
        return self._is_last and not self._streams

    def lose(self) -> list[Stream]:
        """The client has gone; the calls that it leaves."""
        self.is_over = True
        left = self.streams
        for stream in left:
            self._leave(stream, None)
        self._deaf.clear()
        self._give_spare()
        return left

    # What the cutter calls.

    def preface(self, part: memoryview) -> None:
        """What comes before the first frame."""
        self._h2.receive_data(part)

    def control(self, kind: int, flags: int, frame: memoryview) -> None:
        """A whole frame other than DATA. Raises: BrokenProtocol, ProtocolError."""
        if not self.has_greeted and kind != frames.SETTINGS:
            raise BrokenProtocol(frames.PROTOCOL_ERROR)
        self.has_greeted = True
        if kind in {frames.HEADERS, frames.CONTINUATION}:
            self._headers.count(flags, len(frame))
        else:
            self._nuisance.count(self._now)
        if kind == frames.GOAWAY:
            self._is_last = True  # the library would send nothing any more, and calls under way have a claim to answers
            return
        for event in self._h2.receive_data(frame):
            self._heed(event)
        self._sender.collect()

    def data_began(self, number: int, flags: int, size: int) -> Assembly | None:
        """A DATA frame begins. Raises: BrokenProtocol, ProtocolError."""
        if self._headers.is_open or not self.has_greeted:
            raise BrokenProtocol(frames.PROTOCOL_ERROR)
        self._windows.came(size)
        if size < _SMALL_BYTES and not flags & frames.END_STREAM:
            self._nuisance.count(self._now)
        stream, assembly = self._streams.get(number, (None, None))
        if stream is None or stream.has_ended:
            if number not in self._deaf:
                # The library knows whether that is an error of the stream or of the connection.
                self._h2.receive_data(struct.pack(">IBI", 0, flags & frames.END_STREAM, number))
                self._sender.collect()
            return None
        stream.window -= size
        if stream.window < 0:
            self.reset(stream, frames.FLOW_CONTROL_ERROR)
            self._events.append(Event(stream, is_gone=True))
            return None
        if stream.since is None and not stream.is_deaf:
            stream.since = self._now
        return assembly

    def data_ended(self, number: int, flags: int) -> None:
        """A DATA frame is whole. Raises: ProtocolError."""
        if number in self._deaf:
            if flags & frames.END_STREAM:
                del self._deaf[number]
            return
        stream, assembly = self._streams.get(number, (None, None))
        if stream is None or assembly is None:
            return
        if flags & frames.END_STREAM and not stream.has_ended:
            self._ended(stream, assembly)
        else:
            if stream.is_deaf or (stream.is_streaming and assembly.is_between_messages):
                stream.since = None
            self._windows.open(stream)

    # What the library tells.

    def _heed(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._opened(event)
            case h2.events.StreamEnded(stream_id=number):
                stream, assembly = self._streams.get(number, (None, None))
                if stream is not None and assembly is not None and not stream.has_ended:
                    self._ended(stream, assembly)
            case h2.events.StreamReset(stream_id=number):
                self._deaf.pop(number, None)
                if number in self._streams:
                    stream, _ = self._streams[number]
                    self._leave(stream, None)
                    self._events.append(Event(stream, is_gone=True))
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._pump_all()
            case _:
                pass

    def _opened(self, event: h2.events.RequestReceived) -> None:
        number, headers = event.stream_id, event.headers
        assert number is not None
        assert headers is not None
        if self._is_last:
            self._turn_deaf(number, frames.REFUSED_STREAM)
            return
        try:
            head = read_head(headers)
            is_streaming = self._house.gate(head)
        except CallRefused as refusal:
            self._sender.end(number, refusal.alone())
            self._turn_deaf(number, frames.NO_ERROR)
            if not refusal.is_for_lack_of_room:
                self._nuisance.count(self._now)
            return
        stream = Stream(number, head, is_streaming=is_streaming, now=self._now, window=STREAM_WINDOW)
        assembly = Assembly(stream, self._house.rules, self._give_spare, self._came, self._turn_away)
        self._streams[number] = stream, assembly

    def _ended(self, stream: Stream, assembly: Assembly) -> None:
        stream.has_ended = True
        stream.since = None
        if not assembly.is_between_messages:
            self._turn_away(stream, CallRefused("INTERNAL", "cannot read the message: it ends before its end"))
        else:
            self._events.append(Event(stream))

    # Messages.

    def _came(self, stream: Stream, arrived: Arrived) -> None:
        self._nuisance.forgive_message()
        if stream.is_streaming:
            stream.since = self._now  # of the next one, if it has begun
        else:
            stream.since = None
            stream.is_deaf = True  # there is nothing more to be said
        stream.unread += 1
        self._events.append(Event(stream, arrived))

    def _turn_away(self, stream: Stream, refusal: CallRefused) -> None:
        self.refuse(stream, refusal)
        self._events.append(Event(stream, is_gone=True))

    def _give_spare(self) -> Body | None:
        spare, self._spare = self._spare, None
        if spare is not None:
            self._house.rules.spares.give_back(spare.capacity)
        return spare

    # What is sent.

    def _pump_all(self) -> None:
        for stream in self.streams:
            if stream.pending:
                self._pump(stream)

    def _pump(self, stream: Stream) -> None:
        left = stream.pending
        self._sender.pump(stream, self._now)
        if stream.pending < left:
            self._nuisance.weigh_sent(left - stream.pending)
        if not stream.pending and stream.trailers is not None:
            self._end(stream)

    def _end(self, stream: Stream) -> None:
        assert stream.trailers is not None
        self._sender.end(stream.number, stream.trailers)
        self._leave(stream, frames.NO_ERROR)

    def _leave(self, stream: Stream, code: int | None) -> None:
        """Forget a call that is over; a client that sends on is told with that code that nobody listens."""
        self._streams.pop(stream.number, None)
        stream.close()
        self._house.forget(stream)
        if code is not None and not (stream.has_ended and code == frames.NO_ERROR):
            self._turn_deaf(stream.number, code)
        else:
            # What the library knows of a stream that both sides have ended is of no use any more.
            self._h2.streams.pop(stream.number, None)

    def _turn_deaf(self, number: int, code: int) -> None:
        """Throw away what is still on its way."""
        self._h2.reset_stream(number, code)
        self._sender.collect()
        self._deaf[number] = None
        if len(self._deaf) > _DEAF_MAX:
            self._deaf.popitem(last=False)

    # Who does harm.

    def _break_off(self, code: int | None) -> None:
        """Say goodbye; the library has done so already where it found what is wrong."""
        self._sender.collect()
        if code is not None:
            self._say_goodbye(code)
        self._events.extend(Event(stream, is_gone=True) for stream in self.lose())

    def _say_goodbye(self, code: int) -> None:
        self._sender.frame(frames.GOAWAY, 0, 0, struct.pack(">II", self._h2.highest_inbound_stream_id, code))
