"""One connection to a local door: greets, asks, waits for the answer; one thread at a time."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from edge_runtime.client import frames
from edge_runtime.client.errors import NoAnswerInTime, NotUnderstood, Refused, ServerGone, refused
from edge_runtime.client.frames import Kind
from edge_runtime.client.regions import OwnRegion
from edge_runtime.client.stream import Frame, FrameStream, Stalled
from edge_runtime.contract.errors import ContractError, TransportError


class LocalConnection:
    """Connected and greeted.

    Args:
        path: of the door's socket.
        patience_s: how long to wait for any one answer.

    Raises:
        ServerGone: nobody listens there.
        NotUnderstood: it is no local door, or one of another version.
        Refused: the door does not let this process in.
    """

    def __init__(self, path: str, patience_s: float) -> None:
        self._path = path
        self._number = 0
        self._peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._peer.connect(path)
        except OSError as error:
            self._peer.close()
            raise ServerGone(
                f"connect to {path}", error.strerror or str(error), "is `edge-runtime serve --uds` running?"
            ) from error
        self._stream = FrameStream(self._peer, patience_s)
        self.welcome = self._greet()

    def ask(
        self, kind: Kind, head: bytes, body: Sequence[Any] = (), *, flags: int = 0, priority: int = 0, left_us: int = 0
    ) -> Frame:
        """Send a question and return its answer, whose body has not been read yet.

        Raises:
            Refused: the door says why there is no answer; the connection goes on.
            TransportError: the connection is of no more use.
        """
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        stream = self._stream
        try:
            try:
                stream.send(kind, head, body, number=number, flags=flags, priority=priority, time_left_us=left_us)
            except TransportError:
                # Who hangs up at once has said why before.
                frame = stream.receive()
                if frame is None or frame.kind != Kind.REFUSAL:
                    raise
            else:
                frame = stream.receive()
        except (TransportError, ContractError) as error:
            raise self._failure(error) from error
        return self._checked(frame, kind | 128, number)

    def read_body(self, into: memoryview) -> None:
        """Read the body of an answer. Raises: TransportError."""
        try:
            self._stream.receive_body(into)
        except TransportError as error:
            raise self._failure(error) from error

    def map(self, region: OwnRegion) -> None:
        """Share memory with the door. Raises: Refused, TransportError."""
        try:
            self._stream.send(Kind.MAP, number=region.number)
            self._checked(self._stream.receive(), Kind.MAPPED, region.number)
            socket.send_fds(self._peer, [b"\0"], [region.descriptor])
            self._checked(self._stream.receive(), Kind.MAPPED, region.number)
        except OSError as error:
            raise ServerGone(f"share memory with {self._path}", error.strerror or str(error)) from error
        except (Stalled, ContractError) as error:
            raise self._failure(error) from error

    def unmap(self, region: OwnRegion) -> None:
        """Share that memory no longer. Raises: Refused, TransportError."""
        try:
            self._stream.send(Kind.UNMAP, number=region.number)
            self._checked(self._stream.receive(), Kind.UNMAPPED, region.number)
        except (Stalled, ContractError) as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Hang up; safe to repeat."""
        self._stream.close()

    def _greet(self) -> frames.WelcomeHead:
        try:
            frame = self.ask(Kind.HELLO, frames.pack_hello())
            return frames.unpack_welcome(frame.head)
        except ContractError as error:
            self.close()
            raise self._failure(error) from error
        except BaseException:
            self.close()
            raise

    def _checked(self, frame: Frame | None, kind: int, number: int) -> Frame:
        if frame is None:
            raise ServerGone(f"get an answer from {self._path}", "the server closed the connection")
        if frame.kind == Kind.REFUSAL:
            try:
                told = frames.unpack_refusal(frame.head)
            except ContractError as error:
                raise self._failure(error) from error
            raise _refusal_of(told)
        if frame.kind != kind or frame.number != number:
            because = f"it answered {number} with {frame.number}, of kind {frame.kind}"
            raise NotUnderstood(f"understand {self._path}", because, "update client and server")
        return frame

    def _failure(self, error: ContractError | TransportError) -> TransportError:
        doing = f"get an answer from {self._path}"
        if isinstance(error, Stalled):
            return NoAnswerInTime(doing, error.because)
        if isinstance(error, ContractError):
            return NotUnderstood(doing, error.because, "does a local door of this version listen there?")
        return error if isinstance(error, ServerGone | NotUnderstood) else ServerGone(doing, error.because)


def _refusal_of(told: frames.RefusalHead) -> Refused:
    return refused(told.code, told.cannot, told.because, told.remedy, retry_after_s=told.retry_after_ms / 1000)
