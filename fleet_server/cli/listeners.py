"""Two listeners in one process: people over HTTP, devices over TLS; ended together by one signal."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from fleet_server.app import Context, add_console, create_devices_app, create_people_app
from fleet_server.errors import StartError
from fleet_server.identity.peer_certificate import PeerCertificateProtocol
from fleet_server.settings import ServerSettings

_GRACE_S: Final = 5
_BACKLOG: Final = 512
# X509_V_FLAG_NO_CHECK_TIME of OpenSSL: a device that slept past its certificate's end must be able to renew it;
# `DeviceCertificates.admit` decides about time for every request.
_NO_CHECK_TIME: Final = 0x200000


class _Listener(uvicorn.Server):
    """uvicorn's server, without its own idea of signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for both listeners and are caught by `serve`."""
        yield


def open_sockets(settings: ServerSettings) -> tuple[socket.socket, socket.socket]:
    """Listen for people and for devices, and see that the broker will be able to.

    Raises:
        StartError: ports cannot be had, all of them named; then none is open.
    """
    wanted = (
        (settings.host, settings.people_port, "--people-port"),
        (settings.devices_host, settings.devices_port, "--devices-port"),
        (settings.devices_host, settings.mqtt_port, "--mqtt-port"),
    )
    opened: list[socket.socket] = []
    refused: list[tuple[str, str, str]] = []
    for host, port, option in wanted:
        try:
            opened.append(_listen(host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            because = "another program uses the port" if taken else (error.strerror or str(error))
            refused.append((f"{host}:{port}", because, option))
    for listening in opened if refused else opened[2:]:
        listening.close()
    if refused:
        addresses, reasons, options = zip(*refused, strict=True)
        because = ", ".join(dict.fromkeys(reasons))
        raise StartError(f"listen on {' and '.join(addresses)}", because, f"choose another with {', '.join(options)}")
    return opened[0], opened[1]


def serve(context: Context, sockets: tuple[socket.socket, socket.socket], ready: Callable[[], None]) -> None:
    """Answer until SIGINT or SIGTERM; requests under way may finish within a grace period."""
    asyncio.run(_serve(context, sockets, ready))


async def _serve(context: Context, sockets: tuple[socket.socket, socket.socket], ready: Callable[[], None]) -> None:
    listeners = (_people(context), _devices(context))

    def stop() -> None:
        for listener in listeners:
            listener.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    tasks = [
        asyncio.create_task(listener.serve(sockets=[listening]))
        for listener, listening in zip(listeners, sockets, strict=True)
    ]
    # uvicorn tells that it started by a plain attribute.
    while not all(listener.started for listener in listeners) and not any(task.done() for task in tasks):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    if all(listener.started for listener in listeners):
        ready()
    # Whichever ends first takes the other with it: half a server helps nobody.
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    stop()
    await asyncio.gather(*tasks)


def _people(context: Context) -> _Listener:
    app = create_people_app(context)
    add_console(app, context)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    return _Listener(config)


def _devices(context: Context) -> _Listener:
    config = uvicorn.Config(
        create_devices_app(context),
        http=PeerCertificateProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        ssl_certfile=context.server_pair.certificate,
        ssl_keyfile=str(context.server_pair.key),
        ssl_ca_certs=str(context.authority.certificate_path),
        ssl_cert_reqs=ssl.CERT_OPTIONAL,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.verify_flags = ssl.VerifyFlags(config.ssl.verify_flags | _NO_CHECK_TIME)
        # A resumed session would skip the certificate.
        config.ssl.options |= ssl.OP_NO_TICKET
        config.ssl.num_tickets = 0
    return _Listener(config)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    listening.set_inheritable(False)
    return listening
