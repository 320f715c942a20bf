"""One client of the local door: reads its messages, asks models in this thread, answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from edge_runtime.client import frames
from edge_runtime.client.frames import CallHead, DescriptionHead, Kind, RefusalHead, TensorRecord, WelcomeHead
from edge_runtime.client.stream import Frame, FrameStream, Stalled, room_for
from edge_runtime.contract.errors import ContractError, EdgeError, TransportError
from edge_runtime.doors.local.limits import Budget, Limits
from edge_runtime.doors.local.planned import Planned, plan, take_inputs
from edge_runtime.doors.local.regions import ForeignRegions
from edge_runtime.inference.requests.refusals import unforeseen
from edge_runtime.serving.calls import BadCall, Call, SequenceStep, TensorMeta
from edge_runtime.serving.host import ModelHost

_NO_HTTP: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\nthis socket does not speak HTTP\n"
_NO_BODY: Final = memoryview(b"")


class Connection:
    """A client, as the door sees it; `serve` runs in a thread of its own.

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
        self._actions: dict[int, Callable[[Frame], None]] = {
            Kind.CALL: self._call,
            Kind.DESCRIBE: self._describe,
            Kind.LIST: self._list,
            Kind.MAP: self._map,
            Kind.UNMAP: self._unmap,
        }

    def serve(self) -> None:
        """Answer until the client goes, breaks the protocol or stalls."""
        try:
            if self._greet():
                while (frame := self._next()) is not None:
                    self._answer(frame)
        except (ContractError, TransportError):
            pass  # nobody is left who could understand an answer
        finally:
            self._stream.close()
            # Now, not when this object is collected: arrays in them hold the client's memory.
            self._plans.clear()
            self._regions.forget_all()
            self._bodies.give_back(len(self._body))
            self._body = _NO_BODY

    def end_after_this_call(self) -> None:
        """Take no further message; the call under way is answered. From any thread."""
        self._stream.stop_reading()

    def hang_up(self) -> None:
        """End the conversation, from any thread; `serve` returns soon."""
        self._stream.hang_up()

    def refuse_at_door(self, error: EdgeError) -> None:
        """Say why there is no connection, without waiting for a greeting."""
        with suppress(TransportError):  # it has gone already
            self._refuse(0, error)
        self._stream.close()

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

    def _answer(self, frame: Frame) -> None:
        action = self._actions.get(frame.kind)
        if action is None:
            raise ContractError("read a message", f"kind {frame.kind} is unknown")
        if frame.body_bytes and frame.kind != Kind.CALL:
            raise ContractError("read a message", f"kind {frame.kind} has no body")
        try:
            action(frame)
            self.answered += 1
        except TransportError:
            raise
        except EdgeError as error:
            self._refuse(frame.number, error)
        except Exception as error:  # noqa: BLE001 - one call's failure, whatever it is, must not end the others
            self._refuse(frame.number, unforeseen(error))

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
        head = planned.head
        reply = served.call(
            Call(
                take_inputs(planned, body, is_trusted=self._is_trusted),
                planned.outputs,
                arrived + frame.time_left_us / 1e6 if frame.time_left_us else None,
                frame.priority,
                _step(head, frame.flags) if head.sequence else None,
                is_vouched_for=self._is_trusted,
            )
        )
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
            self._bodies.take(size - len(self._body))
            self._body = room_for(size)
        return self._body[:size]

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
        self._plans.clear()
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
