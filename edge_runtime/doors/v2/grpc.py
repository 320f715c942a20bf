"""The Open Inference Protocol v2 over gRPC: an event loop in a thread of its own, over HTTP/2 (ADR 0023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from edge_runtime.contract.errors import UnsupportedFeature
from edge_runtime.doors.access import Access
from edge_runtime.doors.door import DoorStatistics, Listen
from edge_runtime.doors.v2.grpc_limits import GrpcLimits
from edge_runtime.doors.v2.grpc_service import GrpcService
from edge_runtime.doors.v2.listening import Entrance, Listener

if TYPE_CHECKING:
    from edge_runtime.doors.v2.grpc_calls import GrpcCalls


@final
class GrpcDoor:
    """Lets gRPC clients in.

    Args:
        service: what is answered.
        listen: where to listen.
        access: what clients must show.
        limits: what clients may take.
    """

    kind = "v2 gRPC"

    def __init__(self, service: GrpcService, listen: Listen, access: Access, limits: GrpcLimits | None = None) -> None:
        self._service = service
        self._listen = listen
        self._access = access
        self._limits = limits or GrpcLimits()
        self._calls: GrpcCalls | None = None
        self._listener: Listener | None = None
        self._port = listen.port

    @property
    def address(self) -> str:
        """Host and port."""
        return str(Listen(self._listen.host, self._port))

    def start(self) -> None:
        """Listen and answer from now on.

        Raises:
            TransportError: the address cannot be had.
            UnsupportedFeature: the HTTP/2 library is missing.
        """
        try:
            import h2  # noqa: F401
        except ImportError as error:
            raise UnsupportedFeature(
                "serve gRPC", "the library h2 is not installed", "pip install 'edgefleet[serve]'"
            ) from error
        from edge_runtime.doors.v2.grpc_calls import GrpcCalls

        context = self._access.tls.context() if self._access.tls else None
        if context is not None:
            context.set_alpn_protocols(["h2"])
        limits = self._limits
        calls = GrpcCalls(self._service, self._access, limits)
        entrance = Entrance(self._listen, context, limits.connections, limits.handshake_s, "v2-grpc")
        listener = Listener(entrance, calls)
        self._port = listener.start()
        self._calls, self._listener = calls, listener

    def statistics(self) -> DoorStatistics:
        """Counters since it was opened."""
        return DoorStatistics(0, 0, 0, 0) if self._calls is None else self._calls.statistics()

    def stop(self, drain_s: float) -> None:
        """Let nobody in, give calls in flight so many seconds, then cut them off; safe to repeat."""
        if self._listener is not None:
            self._listener.stop(drain_s)
