"""The v2 door over HTTP/1.1: an event loop in a thread of its own; models run on their own workers (ADR 0016)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

from edge_runtime.contract.errors import EdgeError
from edge_runtime.doors.access import Access
from edge_runtime.doors.door import DoorStatistics, Listen
from edge_runtime.doors.pace import HURRIED_US, left_us
from edge_runtime.doors.round import Round
from edge_runtime.doors.tally import Tally
from edge_runtime.doors.v2.http_answer import HttpAnswer, error_answer, http_error_answer, method_answer
from edge_runtime.doors.v2.http_body import HttpError, MemoryBudget
from edge_runtime.doors.v2.http_connection import Connection
from edge_runtime.doors.v2.http_exchange import Exchange
from edge_runtime.doors.v2.http_infer import JSON_LENGTH, Asked, InferReader, TooHeavy, infer_answer
from edge_runtime.doors.v2.http_lent import LentConnection
from edge_runtime.doors.v2.http_limits import HttpLimits
from edge_runtime.doors.v2.http_parser import Admitted, Head, Request
from edge_runtime.doors.v2.http_routes import PLAIN_BODY_MAX_BYTES, InferRoute, Route, find_route
from edge_runtime.doors.v2.listening import Entrance, Household, Listener
from edge_runtime.doors.v2.service import V2Service
from edge_runtime.serving.calls import Reply

_log: Final = logging.getLogger(__name__)
_OPEN_TO_ALL: Final = frozenset({"/v2/health/live", "/v2/health/ready"})
"""Paths without a token: a supervisor may ask whether the server lives."""

Routes = Callable[[str], Route | InferRoute | None]
"""What a path asks for; None when nothing does."""


class HttpDoor:
    """Serves the Open Inference Protocol v2 over HTTP.

    Args:
        service: what is served.
        listen: where.
        access: what is demanded of clients.
        limits: what a client may take.
        routes: what each path asks for.
        kind: what it speaks, for a person.
    """

    def __init__(
        self,
        service: V2Service,
        listen: Listen,
        access: Access | None = None,
        limits: HttpLimits | None = None,
        *,
        routes: Routes = find_route,
        kind: str = "v2 HTTP",
    ) -> None:
        self.kind = kind
        self._listen = listen
        self._access = access or Access()
        self._context = self._access.tls.context() if self._access.tls else None
        self._server = _Server(service, self._access, limits or HttpLimits(), routes)
        self._port = listen.port
        entrance = Entrance(
            listen, self._context, self._server.limits.connections, self._server.limits.head_s, "v2-http"
        )
        self._listener = Listener(entrance, self._server)

    @property
    def address(self) -> str:
        """URL of the server, with the port that it really has."""
        return f"{'https' if self._context else 'http'}://{Listen(self._listen.host, self._port)}"

    @property
    def port(self) -> int:
        """The port that it really has."""
        return self._port

    def statistics(self) -> DoorStatistics:
        """Counters since it was opened."""
        return self._server.statistics()

    def start(self) -> None:
        """Listen and answer from now on. Raises: TransportError when the address cannot be had."""
        self._port = self._listener.start()

    def stop(self, drain_s: float) -> None:
        """Let nobody in, give requests in flight so many seconds, then close; safe to repeat."""
        self._listener.stop(drain_s)


class _Server(Household[Connection]):
    """What all connections of the door share; lives on its event loop's thread."""

    def __init__(self, service: V2Service, access: Access, limits: HttpLimits, routes: Routes) -> None:
        super().__init__("v2-http")
        self._route = lru_cache(maxsize=1024)(routes)
        self.limits = limits
        self.budget = MemoryBudget(limits.bodies_bytes)
        self._service = service
        self._reader = InferReader(service.regions, self.budget, limits.body_bytes)
        self._access = access
        self._tally = Tally()
        self.round = Round(LentConnection.go_home, "v2-http")

    def connect(self) -> Connection:
        """A connection, for a client that is about to come in."""
        return Connection(self, self._loop)

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for one more; whoever has idled longest makes it."""
        if len(self._connections) >= self.limits.connections:
            idle = [one for one in self._connections if one.is_idle]
            if not idle:
                self._tally.turned_away()
                return False
            longest = min(idle, key=lambda one: one.idle_since)
            longest.abort()
            # Now, not when the loop gets round to it: several may come in one of its turns.
            self._connections.discard(longest)
        self._connections.add(connection)
        return True

    def count(self, status: int) -> None:
        """A request got an answer of that status; from any thread."""
        if status < 400:
            self._tally.answered()
        elif status == 401:
            self._tally.turned_away()
        else:
            self._tally.refused()

    def count_left_outside(self) -> None:
        """A client made room for another before it was connected."""
        self._tally.turned_away()

    def statistics(self) -> DoorStatistics:
        """Counters since it was opened; from any thread."""
        return self._tally.read(len(self._connections))

    def gate(self, head: Head) -> Admitted:
        """Token and size, before a body is received. Raises: HttpError."""
        if head.path not in _OPEN_TO_ALL and not self._access.admits(head.headers.get("authorization")):
            raise HttpError(401, "the Authorization header does not bear this server's token; send 'Bearer TOKEN'")
        if "origin" in head.headers and self._access.token is None:
            # A page from anywhere may make a browser on this machine post here; every browser says that it did.
            raise HttpError(403, "a web page asks; start the server with a token for pages to send")
        if not isinstance(self._route(head.path), InferRoute):
            return Admitted(PLAIN_BODY_MAX_BYTES)
        stated = head.headers.get(JSON_LENGTH, "")
        return Admitted(self.limits.body_bytes, int(stated) if stated.isdecimal() and len(stated) < 16 else 0)

    def answer(self, connection: Connection, exchange: Exchange, request: Request) -> None:
        """Answer at once what is cheap; have everything else done elsewhere."""
        route, head = self._route(request.head.path), request.head
        finish = partial(connection.finish, exchange)
        if route is None:
            finish(_NOWHERE)
        elif isinstance(route, InferRoute):
            if head.method != "POST":
                finish(method_answer("POST"))
            else:
                self._infer(connection, exchange, request, route)
        elif head.method not in route.methods.split(", "):
            finish(method_answer(route.methods))
        elif route.is_slow or route.is_change:
            body = bytes(request.body)
            pool = self._changes if route.is_change else self._side
            pool.submit(lambda: connection.deliver(exchange, self._worked(route, body)))
        else:
            finish(self._worked(route, bytes(request.body)))

    def answer_here(self, request: Request) -> tuple[HttpAnswer, float] | None:
        """Answer in this thread if it is a short question, whose model is free."""
        route = self._route(request.head.path)
        if not isinstance(route, InferRoute) or request.head.method != "POST":
            return None
        began = time.monotonic()
        try:
            served = self._service.find(route.model, route.version)
            asked = self._reader.read(request, served, began, is_aside=False)
            # To fold an answer takes its time. Whose deadline is near must not wait for another's slow answer.
            if served.is_busy or asked.coding is not None or 0 < left_us(asked.call.deadline, began) < HURRIED_US:
                return None
            began = time.monotonic()
            answer = infer_answer(asked, served.call(asked.call), self._service.regions)
        except TooHeavy:
            return None
        except Exception as error:  # noqa: BLE001 - the client must hear of it, whatever it is
            answer = _failure(error)
        return answer, time.monotonic() - began

    def _infer(self, connection: Connection, exchange: Exchange, request: Request, route: InferRoute) -> None:
        arrived = time.monotonic()
        try:
            self._ask(connection, exchange, request, route, arrived, is_aside=False)
        except TooHeavy:
            self._side.submit(self._ask, connection, exchange, request, route, arrived, is_aside=True)

    def _ask(
        self,
        connection: Connection,
        exchange: Exchange,
        request: Request,
        route: InferRoute,
        arrived: float,
        *,
        is_aside: bool,
    ) -> None:
        try:
            served = self._service.find(route.model, route.version)
            asked = self._reader.read(request, served, arrived, is_aside=is_aside)
            exchange.asked_at, exchange.left_us = arrived, left_us(asked.call.deadline, arrived)
            exchange.ticket = served.submit(asked.call, partial(self._answered, connection, exchange, asked))
            if asked.call.deadline is not None:
                self._loop.call_soon_threadsafe(connection.watch, exchange, asked.call.deadline)
        except TooHeavy:
            raise
        except Exception as error:  # noqa: BLE001 - the client must hear of it, whatever it is
            connection.deliver(exchange, _failure(error))
        if exchange.is_gone:
            # Its client left, or it was answered, before it had a ticket.
            exchange.withdraw()
            exchange.end()

    def _answered(self, connection: Connection, exchange: Exchange, asked: Asked, outcome: Reply | EdgeError) -> None:
        """On a worker's thread: what is long is done here, the event loop only sends."""
        if exchange.is_gone:
            return
        if isinstance(outcome, EdgeError):
            answer = error_answer(outcome)
        else:
            try:
                answer = infer_answer(asked, outcome, self._service.regions)
            except Exception as error:  # noqa: BLE001 - the client must hear of it, whatever it is
                answer = _failure(error)
        connection.deliver(exchange, answer)

    def _worked(self, route: Route, body: bytes) -> HttpAnswer:
        try:
            return route.work(self._service, body)
        except Exception as error:  # noqa: BLE001 - the client must hear of it, whatever it is
            return _failure(error)


def _failure(error: Exception) -> HttpAnswer:
    if isinstance(error, EdgeError):
        return error_answer(error)
    if isinstance(error, HttpError):
        return http_error_answer(error)
    _log.error("v2 HTTP: a request failed unexpectedly", exc_info=error)
    return http_error_answer(HttpError(500, "the server failed unexpectedly; its log has the details"))


_NOWHERE: Final = http_error_answer(HttpError(404, "there is nothing at this path"))
