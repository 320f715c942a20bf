"""One client of the local door: reads its messages, asks models in this thread, answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from edge_runtime.client import frames
from edge_runtime.client.frames import CallHead, DescriptionHead, Kind, RefusalHead, TensorRecord, WelcomeHead
from edge_runtime.client.stream import Frame, FrameStream, Stalled, room_for
from edge_runtime.contract.errors import ContractError, EdgeError, InferenceError, TransportError
from edge_runtime.doors.budget import Budget
from edge_runtime.doors.local.limits import Limits
from edge_runtime.doors.local.planned import Planned, plan, take_inputs
from edge_runtime.doors.local.regions import ForeignRegions
from edge_runtime.doors.pace import Pace
from edge_runtime.inference.requests.refusals import unforeseen
from edge_runtime.serving.calls import BadCall, Call, Reply, SequenceStep, TensorMeta
from edge_runtime.serving.host import ModelHost

_NO_HTTP: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nthis socket does not speak HTTP\n"
_NO_BODY: Final = memoryview(b"")


class _Again(NamedTuple):
    """A question that may come again and again, and what there is to do then."""

    frame: Frame
    """It is this very object when the question comes again."""
    planned: Planned
    call: Call | None
    """None: its deadline or its sequence makes it another each time."""


class Connection:
    """A client, as the door sees it: `serve` runs in a thread of its own, `answer_next` in one that many share.

    Args:
        peer: connected socket.
        host: answers its calls.
        limits: bounds of this connection.
        budgets: shared by all connections: mapped memory, and memory for bodies.
        is_trusted: the peer is the door's own user, or root.
    """

    def __init__(
        self, peer: socket.socket, host: ModelHost, limits: Limits, budgets: tuple[Budget, Budget], *, is_trusted: bool
    ) -> None:
        self.answered = 0
        self.refused = 0
        self._peer = peer
        self._host = host
        self._limits = limits
        self._is_trusted = is_trusted
        self._stream = FrameStream(peer, limits.step_s)
        self._regions = ForeignRegions(limits, budgets[0])
        self._bodies = budgets[1]
        self._body = _NO_BODY
        self._plans: dict[bytes, Planned] = {}
        self._again: _Again | None = None
        self._pace = Pace()
        self._is_greeted = self._is_over = False
        self._actions: dict[int, Callable[[Frame], None]] = {
            Kind.CALL: self._call,
            Kind.DESCRIBE: self._describe,
            Kind.LIST: self._list,
            Kind.MAP: self._map,
            Kind.UNMAP: self._unmap,
        }

    def serve(self) -> bool:
        """Answer until the client goes, breaks the protocol or stalls.

        Returns:
            False then; True when it goes on, and asks so much that it should share a thread.
        """
        is_open = False
        try:
            is_open = self._converse()
        except (ContractError, TransportError):
            pass  # nobody is left who could understand an answer
        finally:
            if not is_open:
                self._end()
        return is_open

    def answer_next(self) -> bool:
        """Answer the question that came if it is the last one again; False: `serve` must go on. Never waits for it."""
        frame = self._stream.receive_repeated()
        if frame is None:
            return False
        try:
            self._answer(frame)
        except TransportError:
            self._is_over = True
            return False
        return self._pace.is_brisk

    def fileno(self) -> int:
        """The descriptor of its socket."""
        return self._peer.fileno()

    def end_after_this_call(self) -> None:
        """Take no further message; the call under way is answered. From any thread."""
        self._stream.stop_reading()

    def hang_up(self) -> None:
        """End the conversation, from any thread; `serve` returns soon and takes no question that came before."""
        self._is_over = True
        self._stream.hang_up()

    def refuse_at_door(self, error: EdgeError) -> None:
        """Say why there is no connection, without waiting for a greeting."""
        with suppress(TransportError):  # it has gone already
            self._refuse(0, error)
        self._stream.close()

    def _converse(self) -> bool:
        if not (self._is_greeted or self._greet()):
            return False
        self._is_greeted = True
        self._pace = Pace()
        while not self._is_over and (frame := self._next()) is not None:
            self._answer(frame)
            if self._pace.is_brisk and self._stream.is_between_messages:
                self._forget_body()
                return True
        return False

    def _end(self) -> None:
        self._stream.close()
        # Now, not when this object is collected: arrays in them hold the client's memory.
        self._again = None
        self._plans.clear()
        self._regions.forget_all()
        self._forget_body()

    def _greet(self) -> bool:
        if self._speaks_http():
            self._peer.sendall(_NO_HTTP)
            return False
        frame = self._stream.receive()
        if frame is None:
            return False
        if frame.kind != Kind.HELLO or frame.body_bytes:
            raise ContractError("read a greeting", "the peer does not speak the local door's protocol")
        spoken = frames.unpack_hello(frame.head)
        if spoken != frames.VERSION:
            because = f"the client speaks version {spoken} of the protocol, this door {frames.VERSION}"
            self._refuse(frame.number, ContractError("open the local door", because, "update the older of the two"))
            return False
        limits = self._limits
        welcome = WelcomeHead(frames.VERSION, limits.regions, limits.region_max_bytes, limits.body_max_bytes)
        self._stream.send(Kind.WELCOME, frames.pack_welcome(welcome), number=frame.number)
        return True

    def _speaks_http(self) -> bool:
        """Whether this is somebody who took the socket for that of a web server, as `curl --unix-socket` would."""
        try:
            return self._peer.recv(4, socket.MSG_PEEK) in {b"GET ", b"POST", b"HEAD", b"PUT "}
        except OSError:
            return False

    def _next(self) -> Frame | None:
        while True:
            # A client may be silent between two calls for as long as it likes.
            try:
                return self._stream.receive()
            except Stalled:
                if not self._stream.is_between_messages:
                    raise
                self._forget_body()

    def _answer(self, frame: Frame) -> None:
        again = self._again
        try:
            if again is not None and again.frame is frame:
                self._ask_again(again)
            else:
                self._again = None
                self._act(frame)
            self.answered += 1
        except TransportError:
            raise
        except EdgeError as error:
            self._refuse(frame.number, error)
        except Exception as error:  # noqa: BLE001 - one call's failure, whatever it is, must not end the others
            self._refuse(frame.number, unforeseen(error))

    def _act(self, frame: Frame) -> None:
        action = self._actions.get(frame.kind)
        if action is None:
            raise ContractError("read a message", f"kind {frame.kind} is unknown")
        if frame.body_bytes and frame.kind != Kind.CALL:
            raise ContractError("read a message", f"kind {frame.kind} has no body")
        action(frame)

    def _call(self, frame: Frame) -> None:
        arrived = time.monotonic()
        try:
            planned = self._plans.get(frame.head) or self._plan(frame.head)
            if frame.body_bytes != planned.body_bytes:
                raise BadCall("take the inputs", f"{planned.body_bytes} bytes were announced, {frame.body_bytes} came")
            served = self._host.find(planned.head.model, planned.head.version or None)
            body = self._room(frame.body_bytes) if frame.body_bytes else _NO_BODY
        except EdgeError as error:
            self._skip(frame, error)
            raise
        if frame.body_bytes:
            self._stream.receive_body(body)
        call = self._question(planned, frame, body, arrived)
        if self._is_trusted and not frame.body_bytes and len(planned.arrays) == len(planned.head.inputs):
            is_same = call.deadline is None and call.sequence is None
            self._again = _Again(frame, planned, call if is_same else None)
        self._reply(served.call(call), planned, frame)

    def _ask_again(self, again: _Again) -> None:
        """As `_call`, for what was checked the last time."""
        began = time.monotonic()
        frame, planned, call = again
        try:
            served = self._host.find(planned.head.model, planned.head.version or None)
            reply = served.call(call or self._question(planned, frame, _NO_BODY, began))
            self._reply(reply, planned, frame)
        finally:
            self._pace.note(began, time.monotonic(), frame.time_left_us)

    def _question(self, planned: Planned, frame: Frame, body: memoryview, arrived: float) -> Call:
        head = planned.head
        return Call(
            take_inputs(planned, body, is_trusted=self._is_trusted),
            planned.outputs,
            arrived + frame.time_left_us / 1e6 if frame.time_left_us else None,
            frame.priority,
            _step(head, frame.flags) if head.sequence else None,
            is_vouched_for=self._is_trusted,
        )

    def _reply(self, reply: Reply, planned: Planned, frame: Frame) -> None:
        content, parts = planned.answers.write(reply)
        self._stream.send(Kind.ANSWER, content, parts, number=frame.number)

    def _plan(self, content: bytes) -> Planned:
        planned = plan(content, self._regions, self._limits)
        if len(self._plans) >= self._limits.remembered:
            self._plans.clear()
        self._plans[content] = planned
        return planned

    def _room(self, size: int) -> memoryview:
        """Memory for a body; kept for the next one. Raises: InferenceError, code `overloaded`."""
        if size > len(self._body):
            self._forget_body()  # before: both together are more than was taken
            self._bodies.take(size)
            try:
                self._body = room_for(size)
            except MemoryError as error:
                self._bodies.give_back(size)
                because = "this process may have no more"
                raise InferenceError(f"take {size} bytes of memory", because, code="overloaded") from error
        return self._body[:size]

    def _forget_body(self) -> None:
        self._bodies.give_back(len(self._body))
        self._body = _NO_BODY

    def _skip(self, frame: Frame, error: EdgeError) -> None:
        if frame.body_bytes > self._limits.body_max_bytes:
            # Not worth reading only to find the next message behind it.
            self._refuse(frame.number, error)
            raise Stalled("read a message", "its body is larger than any that is taken")
        self._stream.skip_body(frame.body_bytes)

    def _describe(self, frame: Frame) -> None:
        asked = frames.unpack_answer(frame.head)
        served = self._host.find(asked.model, asked.version or None)
        described = DescriptionHead(
            served.name, served.version, served.state.value, _records(served.inputs), _records(served.outputs)
        )
        self._stream.send(Kind.DESCRIPTION, frames.pack_description(described), number=frame.number)

    def _list(self, frame: Frame) -> None:
        models = [(served.name, served.version, served.state.value) for served in self._host.models()]
        self._stream.send(Kind.LISTING, frames.pack_listing(models), number=frame.number)

    def _map(self, frame: Frame) -> None:
        self._regions.check_may_map(frame.number)
        # An ordinary read would let the kernel drop the descriptor, so the client waits until this one is wanted.
        self._stream.send(Kind.MAPPED, number=frame.number, flags=frames.GO_ON)
        self._regions.receive(self._peer, frame.number)
        self._stream.send(Kind.MAPPED, number=frame.number)

    def _unmap(self, frame: Frame) -> None:
        self._plans.clear()  # `_again` has gone already: this is another question
        self._regions.forget(frame.number)
        self._stream.send(Kind.UNMAPPED, number=frame.number)

    def _refuse(self, number: int, error: EdgeError) -> None:
        self.refused += 1
        after_ms = int(1000 * getattr(error, "retry_after_s", 0.0))
        head = RefusalHead(error.code, error.cannot, error.because, error.remedy, after_ms)
        self._stream.send(Kind.REFUSAL, frames.pack_refusal(head), number=number)


def _step(head: CallHead, flags: int) -> SequenceStep:
    return SequenceStep(head.sequence, bool(flags & frames.FIRST), bool(flags & frames.LAST))


def _records(metas: tuple[TensorMeta, ...]) -> tuple[TensorRecord, ...]:
    return tuple(TensorRecord(meta.name, meta.dtype, meta.shape) for meta in metas)
