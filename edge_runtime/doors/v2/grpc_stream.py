"""One gRPC call on its HTTP/2 stream: its messages are put together where they stay, its answer waits for room."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, final

from edge_runtime.contract.errors import EdgeError
from edge_runtime.doors.budget import Budget
from edge_runtime.doors.v2.grpc_head import CallHead, CallRefused, Header, refusal_of
from edge_runtime.doors.v2.grpc_limits import GrpcLimits
from edge_runtime.doors.v2.http_body import Body
from edge_runtime.doors.v2.sending import Buffer

_PREFIX_BYTES: Final = 5
"""Before each message: whether it is folded, and its length (four bytes, big-endian)."""

_KEEPING_BYTES: Final = 1024
"""What a message takes besides its bytes until it is answered, empty ones included."""
_FEW: Final = 64
"""Messages of one call that wait without that being counted."""
_UNTOLD_MAX: Final = 1024
"""Messages of one call that wait to be told that there was no room for them; one more ends it."""

_SPARES_BYTES: Final = 64 * 1024 * 1024
"""Of all buffers that wait for a next message: who merely stays connected holds no more than that."""
_SLACK_BYTES: Final = 64
"""By which memory that was used before may be too large."""


class Arrived(NamedTuple):
    """A message that came whole, or why there was no room for it."""

    body: Body | None
    is_folded: bool
    refusal: EdgeError | None = None


@final
class Share:
    """What one message holds of the memory for all of them, until it is answered; any thread.

    Not for as long as its memory lives: a worker may look at that for a moment after the client has its answer, which
    may have asked again by then.
    """

    __slots__ = ("_budget", "_held", "_lock")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held: int | None = 0
        self._lock = threading.RLock()
        """What is collected while it is held may give back."""

    def take(self, amount: int) -> None:
        """Take more. Raises: InferenceError, code `overloaded`."""
        self._budget.take(amount)
        with self._lock:
            if self._held is not None:
                self._held += amount
                return
        self._budget.give_back(amount)

    def give_back(self, amount: int) -> None:
        """Give a part back, unless everything has been."""
        with self._lock:
            if self._held is None:
                return
            self._held -= amount
        self._budget.give_back(amount)

    def end(self) -> None:
        """Give everything back, once."""
        with self._lock:
            held, self._held = self._held, None
        if held:
            self._budget.give_back(held)


@dataclass(frozen=True, slots=True)
class MessageRules:
    """What messages may take.

    Attributes:
        max_bytes: longest message.
        budget: of the messages of all clients.
        align_at: place in a message of a given length that should lie aligned.
        spares: of the buffers of all clients that wait for a next message.
    """

    max_bytes: int
    budget: Budget
    align_at: Callable[[int], int]
    spares: Budget = field(default_factory=lambda: Budget(_SPARES_BYTES, "memory for messages to come"))


@final
class Stream:
    """One call, as its connection sees it.

    Args:
        number: of the HTTP/2 stream.
        head: what was said before the first message.
        is_streaming: it may have many messages, for each of which there is room or an error of its own.
        now: `time.monotonic()` seconds.
        window: bytes that the client may send unasked.
    """

    __slots__ = (
        "alarm", "call", "deadline", "has_begun", "has_ended", "head", "is_deaf", "is_over", "is_streaming", "moved_at",
        "number", "pending", "queue", "sent", "sent_since", "shares", "since", "trailers", "unread", "window",
    )  # fmt: skip

    def __init__(self, number: int, head: CallHead, *, is_streaming: bool, now: float, window: int) -> None:
        self.number = number
        self.head = head
        self.is_streaming = is_streaming
        self.deadline = None if head.timeout_s is None else now + head.timeout_s
        self.call: Any = None
        """Whatever the door keeps with it."""
        self.alarm: Any = None
        """Rings at its deadline, and is cancelled when it is over."""
        self.window = window
        self.unread = 0
        """Whole messages that nobody has taken yet: until then the client's window is not opened again."""
        self.shares: deque[Share] = deque()
        """Of its messages that are not answered, in their order."""
        self.since: float | None = None if is_streaming else now
        """When it began to wait for the rest of a message; None: nothing is due."""
        self.has_begun = self.has_ended = self.is_over = self.is_deaf = False
        """An answer has begun; the client sends no more; both sides are done; what comes is thrown away."""
        self.queue: deque[memoryview] = deque()
        self.pending = 0
        """Bytes in it, which the client's windows hold back."""
        self.trailers: tuple[Header, ...] | None = None
        """What goes behind them."""
        self.sent_since = self.moved_at = now
        """When the message in it was put there, and when the client's windows last let something of it through."""
        self.sent = 0
        """Bytes of it since."""

    def put(self, parts: Sequence[Buffer], size: int, now: float) -> None:
        """A message that is to be sent, of so many bytes."""
        self.sent_since, self.moved_at, self.sent = now, now, 0
        self.queue.append(memoryview(b"\0" + size.to_bytes(4, "big")))
        self.queue.extend(memoryview(part).cast("B") for part in parts if len(part))
        self.pending += _PREFIX_BYTES + size

    def is_late(self, now: float) -> bool:
        """Whether its deadline has passed while it waits for its client: what a model is asked ends by itself."""
        is_waiting = self.since is not None or (self.is_streaming and not self.unread)
        return is_waiting and self.deadline is not None and self.deadline < now

    def is_stuck(self, now: float, limits: GrpcLimits) -> bool:
        """Whether its client takes too long over a message of its own, or over fetching one."""
        if self.since is not None and self.since + limits.patience_s < now:
            return True
        # Who opens a byte of the window a minute moves on, and would keep the message for ever.
        until = min(self.moved_at, self.sent_since + self.sent / limits.send_bytes_per_s) + limits.send_s
        return self.pending > 0 and until < now

    def close(self) -> None:
        """It is over: nothing of it is kept."""
        self.is_over = self.is_deaf = True
        self.queue.clear()
        self.pending = 0
        while self.shares:
            self.shares.popleft().end()


@final
class Assembly:
    """Cuts the bytes of one stream into messages.

    Args:
        stream: whose they are.
        rules: what they may take.
        spare: gives a buffer that was used before, if there is one.
        came: is told of each message.
        refused: is told when the call must end.
    """

    __slots__ = (
        "_body", "_came", "_is_folded", "_is_told", "_lacking", "_prefix", "_refused", "_rules", "_spare", "_stream",
    )  # fmt: skip

    def __init__(
        self,
        stream: Stream,
        rules: MessageRules,
        spare: Callable[[], Body | None],
        came: Callable[[Stream, Arrived], None],
        refused: Callable[[Stream, CallRefused], None],
    ) -> None:
        self._stream = stream
        self._rules = rules
        self._spare = spare
        self._came = came
        self._refused = refused
        self._prefix = bytearray()
        self._body: Body | None = None
        self._lacking = 0
        self._is_folded = self._is_told = False

    @property
    def is_between_messages(self) -> bool:
        """Whether nothing of a message has come that is not whole."""
        return not self._prefix

    @property
    def is_unwanted(self) -> bool:
        """Whether nobody waits for what may still come."""
        return self._stream.is_deaf

    def feed(self, view: memoryview) -> None:
        """Take bytes, by copying them."""
        while len(view) and not self._stream.is_deaf:
            if len(self._prefix) < _PREFIX_BYTES:
                count = min(_PREFIX_BYTES - len(self._prefix), len(view))
                self._prefix += view[:count]
                if len(self._prefix) == _PREFIX_BYTES:
                    self._begin()
            else:
                room = self.room()
                count = min(self._lacking, len(view)) if room is None else min(len(room), len(view))
                if room is not None:
                    room[:count] = view[:count]
                self.filled(count)
            view = view[count:]

    def room(self) -> memoryview | None:
        """Where the next bytes may be received, without copying them; None: nowhere."""
        if self._body is None or self._stream.is_deaf:
            return None
        try:
            return self._body.room()
        except EdgeError as error:
            self._turn_away(error)
            return None

    def filled(self, count: int) -> None:
        """So many bytes were written to `room()`, or thrown away where there was none."""
        if self._stream.is_deaf:
            self._body = None
            return
        if self._body is not None:
            self._body.filled(count)
        self._lacking -= count
        if not self._lacking:
            self._end()

    def _begin(self) -> None:
        size, flag = int.from_bytes(self._prefix[1:], "big"), self._prefix[0]
        if flag > 1 or (flag and not self._stream.head.coding):
            self._refused(self._stream, CallRefused("INTERNAL", "cannot read the message: its first byte is wrong"))
            return
        if size > self._rules.max_bytes:
            told = f"cannot read the message: it has {size} bytes, and at most {self._rules.max_bytes} are taken"
            self._refused(self._stream, CallRefused("RESOURCE_EXHAUSTED", told))
            return
        self._is_folded, self._is_told, self._lacking = bool(flag), False, size
        share = Share(self._rules.budget)
        self._stream.shares.append(share)
        try:
            if self._stream.unread >= _FEW:
                share.take(_KEEPING_BYTES)
            self._body = self._memory(size, share)
        except EdgeError as error:
            self._turn_away(error)
            return
        if not size:
            self._end()
        else:
            self.room()

    def _memory(self, size: int, share: Share) -> Body:
        align_at = self._rules.align_at(size)
        body = self._spare()
        if body is not None and size <= body.capacity < size + _SLACK_BYTES and body.is_unused():
            body.count_against(share)
        else:
            body = Body(share)
        body.begin(size, align_at)
        return body

    def _end(self) -> None:
        arrived = Arrived(self._body, self._is_folded)
        self._body = None
        self._prefix.clear()
        if not self._is_told:
            self._came(self._stream, arrived)

    def _turn_away(self, error: EdgeError) -> None:
        """There is no room: for one message of many nothing is lost but this one."""
        self._body = None
        self._stream.shares[-1].end()
        if self._stream.is_streaming and self._stream.unread < _UNTOLD_MAX:
            self._is_told = True
            self._came(self._stream, Arrived(None, self._is_folded, error))
        else:
            self._refused(self._stream, refusal_of(error))


class Event(NamedTuple):
    """Something that happened to a call: a message, its end (None and not over), or that nobody waits for it."""

    stream: Stream
    arrived: Arrived | None = None
    is_gone: bool = False


class House(Protocol):
    """What a connection asks of its door; the connection's lock is held meanwhile."""

    rules: MessageRules

    def gate(self, head: CallHead) -> bool:
        """Let a call in; whether it may have many messages. Raises: CallRefused."""

    def count_refused(self) -> None:
        """A call that was let in ends with an error."""

    def forget(self, stream: Stream) -> None:
        """It is over, for whatever reason."""
