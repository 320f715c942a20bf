"""An event loop in a thread of its own, which accepts clients at one address until it is told to stop; who they are."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from edge_runtime.contract.errors import TransportError
from edge_runtime.doors.door import Listen
from edge_runtime.doors.v2.doorstep import Doorstep

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: on, for no time at all."""
_BACKLOG: Final = 256
_SWEEP_S: Final = 0.5
_SIDE_WORKERS: Final = 2
"""Threads of a door for unfolding, long questions and what else takes its time."""


class Guest(Protocol):
    """A connection that lives on the event loop's thread."""

    def expire(self, now: float) -> None:
        """End what takes too long, give back what is not needed; `now` is the loop's time."""

    def drain(self) -> None:
        """Take no further request, and end when the last one is answered."""

    def abort(self) -> None:
        """End at once."""


_G = TypeVar("_G", bound=Guest)


class Household(ABC, Generic[_G]):
    """What all connections of a door share; lives on its event loop's thread.

    Args:
        name: what its threads are called.
    """

    _loop: asyncio.AbstractEventLoop

    def __init__(self, name: str) -> None:
        self._connections: set[_G] = set()
        self._empty = asyncio.Event()
        self._side = ThreadPoolExecutor(_SIDE_WORKERS, f"{name}-side")
        # One after another, as the service has it.
        self._changes = ThreadPoolExecutor(1, f"{name}-change")

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin on that loop."""
        self._loop = loop

    @abstractmethod
    def connect(self) -> asyncio.BufferedProtocol:
        """A connection, for a client that is about to come in."""

    @abstractmethod
    def count_left_outside(self) -> None:
        """A client made room for another before it was connected."""

    def leave(self, connection: _G) -> None:
        """It is closed."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    def sweep(self, now: float) -> None:
        """End what takes too long; `now` is the loop's time."""
        for connection in list(self._connections):
            connection.expire(now)

    async def close(self, drain_s: float) -> None:
        """End all connections, those with a request under way after so many seconds."""
        for connection in list(self._connections):
            connection.drain()
        self._empty.clear()
        give_up = self._loop.time() + drain_s
        while self._connections and (left := give_up - self._loop.time()) > 0:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), min(left, _SWEEP_S))
            self.sweep(self._loop.time())  # who only has to hang up is not waited for as long as for an answer
        for connection in list(self._connections):
            connection.abort()
        for pool in (self._side, self._changes):
            pool.shutdown(wait=False, cancel_futures=True)
        # A turn for the transports to close.
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where clients come in.

    Attributes:
        listen: the address.
        context: certificate and key; None: in the clear.
        connections: as many may shake hands at once.
        handshake_s: for how long.
        name: of the thread.
    """

    listen: Listen
    context: ssl.SSLContext | None
    connections: int
    handshake_s: float
    name: str


class Listener:
    """Accepts clients in a thread of its own, which is the one that their connections live on."""

    def __init__(self, entrance: Entrance, household: Household[Any]) -> None:
        self._entrance = entrance
        self._household = household
        self._thread: threading.Thread | None = None
        self._stop: Callable[[float], object] = lambda _: None

    def start(self) -> int:
        """Listen from now on; returns the port that it really has. Raises: TransportError: it cannot be had."""
        bound = _bound(self._entrance.listen)
        port: int = bound.getsockname()[1]
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(bound, started), name=self._entrance.name, daemon=True)
        self._thread.start()
        started.result()
        return port

    def stop(self, drain_s: float) -> None:
        """Let nobody in, give requests in flight so many seconds, then close; safe to repeat."""
        if self._thread is not None:
            with suppress(RuntimeError):
                self._stop(drain_s)
            self._thread.join()
            self._thread = None

    def _run(self, bound: socket.socket, started: Future[None]) -> None:
        loop = _new_loop()
        try:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(self._serve(loop, bound, started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    async def _serve(self, loop: asyncio.AbstractEventLoop, bound: socket.socket, started: Future[None]) -> None:
        stopping: asyncio.Future[float] = loop.create_future()

        def end(drain_s: float) -> None:
            if not stopping.done():
                stopping.set_result(drain_s)

        self._household.open(loop)
        try:
            async with self._accepting(loop, bound):
                self._stop = lambda drain_s: loop.call_soon_threadsafe(end, drain_s)
                started.set_result(None)
                while not stopping.done():
                    await asyncio.wait([stopping], timeout=_SWEEP_S)
                    self._household.sweep(loop.time())
        finally:
            await self._household.close(stopping.result() if stopping.done() else 0.0)

    @asynccontextmanager
    async def _accepting(self, loop: asyncio.AbstractEventLoop, bound: socket.socket) -> AsyncIterator[None]:
        entrance, household = self._entrance, self._household
        if entrance.context is None:
            plain = await loop.create_server(household.connect, sock=bound, backlog=_BACKLOG)
            try:
                yield
            finally:
                plain.close()
            return
        bound.listen(_BACKLOG)
        bound.setblocking(False)
        doorstep = Doorstep(bound, entrance.context, household.connect, household.count_left_outside)
        accepting = loop.create_task(doorstep.accept_all(entrance.connections, entrance.handshake_s))
        try:
            yield
        finally:
            accepting.cancel()
            await asyncio.wait([accepting])


def after(loop: asyncio.AbstractEventLoop, deadline: float, call: Callable[[], object]) -> asyncio.TimerHandle:
    """Call something on the loop's thread, which is the caller's, once `time.monotonic()` has passed a deadline."""
    # Loops round to milliseconds; a moment too early it would count as cancelled.
    return loop.call_later(max(0.0, deadline - time.monotonic()) + 0.001, call)


def drop(transport: asyncio.Transport | None) -> None:
    """End a connection with what its client did not fetch; else the kernel would go on offering it for minutes."""
    if transport is None:
        return
    with suppress(OSError), socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def _bound(listen: Listen) -> socket.socket:
    bound: socket.socket | None = None
    try:
        family, kind, number, _, where = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, number)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(where)
    except OSError as error:
        if bound is not None:
            bound.close()
        because = "the address is taken" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
        raise TransportError(
            f"listen at {listen}", because, "choose another port, or 0 for any that is free"
        ) from error
    return bound


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
