"""The fleet server over HTTPS: every request bounded in time and size, every refusal a sentence."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

import httpx
import msgspec

from edge_runtime.agent.identity import Identity, check_validity, pinned_context
from edge_runtime.contract import device_api
from edge_runtime.contract.codec import MESSAGE_MAX_BYTES, decode, encode
from edge_runtime.contract.device_state import (
    Birth,
    DirectorAnswer,
    Enrolment,
    EnrolmentRequest,
    IdentityGrant,
    RenewalRequest,
    Reported,
)
from edge_runtime.contract.digest import Digest
from edge_runtime.contract.errors import EdgeError, TransportError, TrustError
from edge_runtime.contract.ids import ModelName, shown
from edge_runtime.contract.telemetry import TelemetryAck

_TIMEOUT: Final = httpx.Timeout(10.0, read=20.0)
_ANSWER_MAX_BYTES: Final = 4 * 1024 * 1024
_NOT_NOW: Final = frozenset({408, 421, 425, 429})


class _Problem(msgspec.Struct):
    """An RFC 9457 problem; other fields do not matter here."""

    detail: str = ""
    code: str = ""


class FleetServer:
    """One server, as one device sees it; also a `trust.repository.MetadataSource`.

    Args:
        base_url: `https://host:port` of the devices' listener.
        tls: trusts the fleet's authority; carries the device's certificate once there is one.
        now: trusted time, to judge the server's certificate.
    """

    def __init__(self, base_url: str, tls: ssl.SSLContext, now: Callable[[], float]) -> None:
        self._now = now
        self._connections = _Connections(tls)
        self.is_refused = False
        """Whether the certificate was not accepted when last shown."""
        self.client = httpx.Client(
            base_url=base_url,
            transport=self._connections,
            timeout=_TIMEOUT,
            trust_env=False,
            event_hooks={"response": [self._check_peer]},
        )

    def close(self) -> None:
        """Close every connection."""
        self.client.close()

    def reconnect(self) -> None:
        """Leave every connection behind: the next request shows the certificate that `tls` holds now."""
        self._connections.renew()

    def fetch(self, file_name: str, max_bytes: int) -> bytes | None:
        """A TUF metadata file, at most `max_bytes`; None when there is none. Raises: TransportError."""
        return self._get(device_api.tuf_path(file_name), max_bytes, f"fetch {file_name}")

    def release_index(self, model: ModelName, digest: Digest, length: int) -> bytes:
        """The bytes that should be a release index, at most `length`. Raises: TransportError."""
        content = self._get(device_api.manifest_path(model, digest), length, f"fetch release {digest}")
        if content is None:
            raise TransportError(f"fetch release {digest}", "the server does not hold it", "it is tried again")
        return content

    def assignments(self, nonce: str) -> DirectorAnswer:
        """What the director wants of this device, with its time. Raises: TransportError, ContractError."""
        what = "ask what to run"
        content = self._get(f"{device_api.ASSIGNMENTS}?nonce={nonce}", _ANSWER_MAX_BYTES, what)
        if content is None:
            raise TransportError(what, "the server does not know the question", "check its version")
        return decode(content, DirectorAnswer)

    def enrol(self, request: EnrolmentRequest) -> IdentityGrant:
        """Trade a claim for a certificate. Raises: TransportError, TrustError."""
        return decode(self._post(device_api.ENROL, encode(request), f"enrol device {request.device}"), IdentityGrant)

    def renew(self, request: RenewalRequest) -> IdentityGrant:
        """Trade a signing request for the next certificate. Raises: TransportError, TrustError."""
        return decode(self._post(device_api.RENEW, encode(request), "renew the certificate"), IdentityGrant)

    def post_birth(self, birth: Birth) -> None:
        """Say who this device is. Raises: TransportError, TrustError."""
        self._post(device_api.BIRTH, encode(birth), "announce this device")

    def post_reported(self, reported: Reported) -> None:
        """Say where a slot stands. Raises: TransportError, TrustError."""
        self._post(device_api.REPORTED, encode(reported), f"report slot {reported.slot}")

    def post_telemetry(self, batch: bytes) -> TelemetryAck:
        """Hand over a batch; the answer comes after the server's commit. Raises: TransportError, TrustError."""
        return decode(self._post(device_api.TELEMETRY, batch, "send telemetry"), TelemetryAck)

    def _get(self, path: str, max_bytes: int, what: str) -> bytes | None:
        try:
            with self.client.stream("GET", path, headers={"Accept-Encoding": "identity"}) as response:
                content = _read(response, max_bytes, what)
        except httpx.HTTPError as error:
            raise _out_of_reach(what, error) from error
        self.is_refused = response.status_code == 401
        if response.status_code == 404:
            return None
        _check_status(response.status_code, content, what)
        return content

    def _post(self, path: str, body: bytes, what: str) -> bytes:
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        try:
            with self.client.stream("POST", path, content=body, headers=headers) as response:
                content = _read(response, MESSAGE_MAX_BYTES, what)
        except httpx.HTTPError as error:
            raise _out_of_reach(what, error) from error
        self.is_refused = response.status_code == 401
        _check_status(response.status_code, content, what)
        return content

    def _check_peer(self, response: httpx.Response) -> None:
        stream = response.extensions.get("network_stream")
        connection = stream.get_extra_info("ssl_object") if stream is not None else None
        # By position: what httpcore hands out is the C object, which knows no names.
        certificate = connection.getpeercert(True) if connection is not None else None
        if certificate:
            check_validity(certificate, self._now())


class _Connections(httpx.BaseTransport):
    """httpx's pool, exchangeable: a server soon refuses what still comes over a connection of the old certificate."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls
        self._pool = httpx.HTTPTransport(verify=tls)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request."""
        return self._pool.handle_request(request)

    def renew(self) -> None:
        """Exchange the pool; a request under way fails, and its owner tries again."""
        former, self._pool = self._pool, httpx.HTTPTransport(verify=self._tls)
        former.close()

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()


class HttpsDesk:
    """`enrolment.EnrolmentDesk` over HTTPS.

    Args:
        now: trusted time.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    def enrol(self, enrolment: Enrolment, request: EnrolmentRequest) -> IdentityGrant:
        """Ask without a certificate; the server is known by the pinned authority."""
        server = FleetServer(enrolment.server_url, pinned_context(enrolment), self._now)
        try:
            return server.enrol(request)
        finally:
            server.close()

    def renew(self, identity: Identity, request: RenewalRequest) -> IdentityGrant:
        """Ask with the present certificate."""
        server = FleetServer(identity.enrolment.server_url, identity.tls_context(), self._now)
        try:
            return server.renew(request)
        finally:
            server.close()


def _read(response: httpx.Response, max_bytes: int, what: str) -> bytes:
    content = bytearray()
    for piece in response.iter_raw(64 * 1024):
        content += piece
        if len(content) > max_bytes:
            raise TransportError(what, f"the server sends more than {max_bytes} bytes", "check the server's address")
    return bytes(content)


def _check_status(status: int, content: bytes, what: str) -> None:
    if 200 <= status < 300:
        return
    problem = _problem(content)
    detail = problem.detail.removeprefix(f"cannot {what}: ")
    because = shown(detail, 300).strip("'\"") if detail else f"the server answered {status}"
    if status in {401, 403, 409, 422, 400, 413}:
        raise TrustError(what, because, code=problem.code or None)
    if status >= 500 or status in _NOT_NOW:
        raise TransportError(what, because, "it is tried again")
    raise TransportError(what, because, "check the server's address and version")


def _problem(content: bytes) -> _Problem:
    try:
        return msgspec.json.decode(content, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Problem()


def _out_of_reach(what: str, error: httpx.HTTPError) -> EdgeError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return TrustError(
            what, "the server is not certified by this fleet's authority", "check the address, or enrol again"
        )
    return TransportError(what, str(error) or type(error).__name__, "it is tried again")
