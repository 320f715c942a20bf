"""Who is at the other end of a device's connection: no certificate, no route but enrolment."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final, cast

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from edge_runtime.contract import device_api
from edge_runtime.contract.codec import MESSAGE_MAX_BYTES
from edge_runtime.contract.errors import EdgeError
from edge_runtime.contract.ids import DeviceId
from fleet_server.errors import TooLarge, Unauthenticated
from fleet_server.identity.certificates import DeviceCertificates
from fleet_server.problems import problem

_EXTENSION: Final = "edgefleet.peer"


class PeerCertificateProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which also tells the application which certificate the peer proved to hold."""

    _peer_der: bytes | None = None

    # asyncio's own transports have more than one type; uvicorn's signature is followed as it is.
    def connection_made(self, transport: Any) -> None:
        """Remember the certificate that the handshake has verified."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self._peer_der = tls.getpeercert(binary_form=True) if tls is not None else None

    def shutdown(self) -> None:
        """End an idle connection at once: the client reads nothing until it asks again, and TLS would wait for it."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        super().shutdown()
        if cycle is None or cycle.response_complete:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Put it into the scope of each request of this connection."""
        super().on_message_begin()
        self.scope.setdefault("extensions", {})[_EXTENSION] = {"der": self._peer_der}


class RequireCertificate:
    """Refuses every request without a valid device certificate, whatever its path, except the one for enrolment."""

    def __init__(self, app: ASGIApp, certificates: DeviceCertificates) -> None:
        self._app = app
        self._certificates = certificates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on with `state.device` set."""
        if scope["type"] == "http" and scope["path"] != device_api.ENROL:
            try:
                device = await run_in_threadpool(self._admit, scope)
            except EdgeError as error:
                await problem(error)(scope, receive, send)
                return
            scope.setdefault("state", {})["device"] = device
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> DeviceId:
        der = scope.get("extensions", {}).get(_EXTENSION, {}).get("der")
        if der is None:
            raise Unauthenticated(
                "answer a device", "it showed no client certificate", f"enrol first: POST {device_api.ENROL}"
            )
        renewing = scope["path"] == device_api.RENEW
        return self._certificates.admit(der, time.time(), renewing=renewing)


def peer(request: Request) -> DeviceId:
    """The device that is asking."""
    return DeviceId(str(request.state.device))


async def capped_body(request: Request) -> bytes:
    """A message's bytes. Raises: TooLarge."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > MESSAGE_MAX_BYTES:
            raise TooLarge("read the message", f"it exceeds {MESSAGE_MAX_BYTES} bytes", "send less at once")
    return bytes(content)


Peer = Annotated[DeviceId, Depends(peer)]
MessageBody = Annotated[bytes, Depends(capped_body)]
