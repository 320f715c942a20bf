"""The Open Inference Protocol v2 over gRPC: listens, checks who comes, and carries bytes to the service and back.

The library hands over each message as it came: to have it parse a tensor would cost more than asking a small model. Its
threads answer themselves, so a call changes threads once, between the library and here.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, final

from edge_runtime.contract.errors import EdgeError, TransportError, UnsupportedFeature
from edge_runtime.doors.access import Access
from edge_runtime.doors.door import DoorStatistics, Listen
from edge_runtime.doors.tally import Tally
from edge_runtime.doors.v2.grpc_service import SERVICE, Caller, GrpcService, Method
from edge_runtime.doors.v2.problems import retry_after_s, status_of
from edge_runtime.doors.v2.wire import BYTES, INT, STRING, Field, Message
from edge_runtime.inference.requests.refusals import Cancelled, unforeseen
from edge_runtime.serving.calls import BadCall

if TYPE_CHECKING:
    import grpc

MESSAGE_MAX_BYTES: Final = 64 * 1024 * 1024
"""Longest message that is received: each call under way may hold one."""

RPCS_MAX: Final = 128
"""Calls under way, waiting ones included: each has a thread, so that all of them stand in their model's line, where the
urgent overtake. One more is refused."""

STREAMS_MAX: Final = 64
"""Streams among them: an idle one keeps its thread."""

CONNECTIONS_MAX: Final = 512
"""Open connections; each holds a file descriptor, of which a process often may have 1024."""

HANDSHAKE_S: Final = 10.0
"""For TLS and HTTP/2 to shake hands."""

PATIENCE_S: Final = 60.0
"""For a request to come whole: one that never does would keep its thread for ever."""

_FRAME_BYTES: Final = 1024 * 1024
"""Longest HTTP/2 frame that clients may send. The protocol's default, 16 KiB, makes 37 frames of a picture's tensor,
which cost either side a tenth of its time."""

_PREFIX: Final = f"/{SERVICE}/"

_DURATION: Final = Message(Field(1, "seconds", INT), Field(2, "nanos", INT))
_RETRY_INFO: Final = Message(Field(1, "retry_delay", _DURATION))
_ANY: Final = Message(Field(1, "type_url", STRING), Field(2, "value", BYTES))
_STATUS: Final = Message(Field(1, "code", INT), Field(2, "message", STRING), Field(3, "details", _ANY, repeated=True))
"""google.rpc.Status with google.rpc.RetryInfo, googleapis' error_details.proto."""


@final
class GrpcDoor:
    """Lets gRPC clients in.

    Args:
        service: what is answered.
        listen: where to listen.
        access: what clients must show.
        message_max_bytes: longest message, in and out.
        patience_s: within which a request must have come.
        connections: clients, those that have not shaken hands included; one more is hung up on.
    """

    kind = "v2 gRPC"

    def __init__(
        self,
        service: GrpcService,
        listen: Listen,
        access: Access,
        *,
        message_max_bytes: int = MESSAGE_MAX_BYTES,
        patience_s: float = PATIENCE_S,
        connections: int = CONNECTIONS_MAX,
    ) -> None:
        self._service = service
        self._listen = listen
        self._access = access
        self._message_max_bytes = message_max_bytes
        self._connections = connections
        self._arrivals = _Arrivals(patience_s)
        self._tally = Tally()
        self._server: grpc.Server | None = None
        self._port = listen.port

    @property
    def address(self) -> str:
        """Host and port."""
        return str(Listen(self._listen.host, self._port))

    def start(self) -> None:
        """Listen and answer from now on.

        Raises:
            TransportError: the address cannot be had.
            UnsupportedFeature: the gRPC library is missing.
        """
        # Its core would write raw lines beside the sentences that we say.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        try:
            import grpc
        except ImportError as error:
            raise UnsupportedFeature(
                "serve gRPC", "the library grpcio is not installed", "pip install 'edgefleet[serve]'"
            ) from error
        server = grpc.server(
            ThreadPoolExecutor(RPCS_MAX, "grpc"),
            handlers=(_Handlers(grpc, self._service, self._access, self._arrivals, self._tally),),
            options=(
                ("grpc.max_receive_message_length", self._message_max_bytes),
                ("grpc.max_send_message_length", self._message_max_bytes),
                ("grpc.http2.max_frame_size", _FRAME_BYTES),
                # Until it has shaken hands a client has no call that could be counted.
                ("grpc.max_allowed_incoming_connections", self._connections),
                ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_S * 1000)),
                # Two servers at one address would share its clients at random.
                ("grpc.so_reuseport", 0),
            ),
            maximum_concurrent_rpcs=RPCS_MAX,
        )
        self._port = self._bind(grpc, server)
        server.start()
        self._arrivals.watch()
        self._server = server

    def statistics(self) -> DoorStatistics:
        """Counters since it was opened."""
        return self._tally.read()

    def stop(self, drain_s: float) -> None:
        """Let nobody in, give calls in flight so many seconds, then cut them off; safe to repeat."""
        server, self._server = self._server, None
        if server is not None:
            server.stop(drain_s).wait()
            self._arrivals.end()

    def _bind(self, grpc: Any, server: grpc.Server) -> int:
        address = str(self._listen)
        try:
            if self._access.tls is None:
                return int(server.add_insecure_port(address))
            self._access.tls.context()  # names what is wrong with the files
            pair = self._access.tls.key.read_bytes(), self._access.tls.certificate.read_bytes()
            return int(server.add_secure_port(address, grpc.ssl_server_credentials([pair])))
        except RuntimeError as error:
            raise TransportError(
                f"listen at {address}", "the address is taken or not of this machine", "name another one"
            ) from error


class _Arrivals:
    """Calls whose request has not come whole, and an end to those that take too long about it."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since: dict[Any, float] = {}
        self._ended = threading.Event()

    def first(self, contents: Iterator[bytes], context: Any) -> bytes:
        """The request of a call that has one. Raises: BadCall when it ends without, Cancelled when it is cut off."""
        self._since[context] = time.monotonic()
        try:
            return next(contents)
        except StopIteration:
            raise BadCall("answer", "the request never came", "send one message") from None
        finally:
            del self._since[context]

    def watch(self) -> None:
        """Begin to cut off, in a thread of its own."""
        threading.Thread(target=self._watch, name="grpc-arrivals", daemon=True).start()

    def end(self) -> None:
        """Cut off nobody any more."""
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(self._patience_s / 4):
            before = time.monotonic() - self._patience_s
            for context, since in list(self._since.items()):
                if since < before:
                    context.cancel()


class _Handlers:
    """Finds the method that a client calls, before its first message is received."""

    def __init__(self, grpc: Any, service: GrpcService, access: Access, arrivals: _Arrivals, tally: Tally) -> None:
        self._access = access
        self._arrivals = arrivals
        self._tally = tally
        self._lost = grpc.RpcError
        self._codes = {code.name: code for code in grpc.StatusCode}
        self._streams = threading.BoundedSemaphore(STREAMS_MAX)
        self._service = service
        self._methods = {
            # As a stream of one message, so that the wait for it can be ended.
            _PREFIX + name: grpc.stream_unary_rpc_method_handler(self._unary(method))
            for name, method in service.unary.items()
        } | {_PREFIX + "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream)}
        # Reads nothing: who may not come in makes us receive no message either.
        self._turn_away = grpc.stream_unary_rpc_method_handler(self._refuse_stranger)

    def service(self, details: Any) -> Any:
        """The handler of a call; None for a method that there is not."""
        if self._access.token is not None:
            shown_token = next((value for key, value in details.invocation_metadata if key == "authorization"), None)
            if not self._access.admits(shown_token if isinstance(shown_token, str) else None):
                return self._turn_away
        return self._methods.get(details.method)

    def _unary(self, method: Method) -> Any:
        def answer(contents: Iterator[bytes], context: Any) -> bytes:
            try:
                answered = method(self._arrivals.first(contents, context), _caller(context))
            except self._lost:
                # The client went away, or was cut off: nobody is there to be told.
                raise
            except EdgeError as error:
                self._refuse(context, error)
            except Exception as error:  # noqa: BLE001 - a client learns that it was not its fault, and no more of it
                self._refuse(context, unforeseen(error))
            else:
                self._tally.answered()
                return answered
            return b""

        return answer

    def _stream(self, contents: Iterator[bytes], context: Any) -> Iterator[bytes]:
        if not self._streams.acquire(blocking=False):
            self._tally.turned_away()
            context.abort(self._codes["RESOURCE_EXHAUSTED"], f"cannot open the stream: {STREAMS_MAX} are open")
        try:
            yield from self._service.infer_stream(contents, _caller(context), self._tally)
        except Cancelled:
            return
        finally:
            self._streams.release()

    def _refuse_stranger(self, _contents: Iterator[bytes], context: Any) -> bytes:
        self._tally.turned_away()
        context.abort(self._codes["UNAUTHENTICATED"], "cannot answer: the authorization is missing or wrong")
        return b""

    def _refuse(self, context: Any, error: EdgeError) -> None:
        self._tally.refused()
        code = self._codes[status_of(error).grpc]
        delay_s = retry_after_s(error)
        if delay_s is not None:
            context.set_trailing_metadata(_retry_metadata(code.value[0], str(error), delay_s))
        context.abort(code, str(error))


def _caller(context: Any) -> Caller:
    left = context.time_remaining()
    # Without a deadline the library says so, or names the end of time.
    caller = Caller(None if left is None or left > 1e9 else time.monotonic() + left)
    if not context.add_callback(caller.leave):
        raise Cancelled
    return caller


def _retry_metadata(code: int, message: str, delay_s: float) -> tuple[tuple[str, str | bytes], ...]:
    """When to come again, for the library's own retries and for a person's program."""
    seconds, rest = math.modf(delay_s)[::-1]
    info = _RETRY_INFO.write({"retry_delay": {"seconds": int(seconds), "nanos": int(rest * 1e9)}})
    status = _STATUS.write(
        {
            "code": code,
            "message": message,
            "details": [{"type_url": "type.googleapis.com/google.rpc.RetryInfo", "value": info}],
        }
    )
    return ("grpc-retry-pushback-ms", str(math.ceil(delay_s * 1000))), ("grpc-status-details-bin", status)
