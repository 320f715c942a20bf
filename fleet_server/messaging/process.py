"""Keeps one broker process alive beside the server, and lets it die with the server."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from fleet_server.messaging.broker import Address, BrokerError

_LEASH: Final = Path(__file__).with_name("leash.py")
# Only a bound: a process that ends is seen at once. Small boards under load need long to start anything.
_START_TIMEOUT_S: Final = 60.0
# A broker that lost its server to SIGKILL dies too, but needs a moment to give its port back.
_PORT_TIMEOUT_S: Final = 3.0
_STOP_TIMEOUT_S: Final = 5.0
_PROBE_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.02
_FIRST_RESTART_S: Final = 0.1
_LAST_RESTART_S: Final = 15.0
_STEADY_S: Final = 30.0
_LINES_PER_MINUTE: Final = 60

log = structlog.get_logger("broker")


def restart_delay_s(failures: int, chance: float) -> float:
    """How long to wait before start number `failures` + 1: doubled each time, capped, spread by `chance` in [0, 1)."""
    return float(min(_LAST_RESTART_S, _FIRST_RESTART_S * 2 ** min(failures, 30)) * (0.5 + 0.5 * chance))


class SupervisedProcess:
    """A broker's process: started, watched, started again when it dies, told to reload, stopped."""

    def __init__(self, command: Sequence[str], address: Address, directory: Path) -> None:
        self._command = tuple(command)
        self._address = address
        self._directory = directory
        self._last_lines: deque[str] = deque(maxlen=20)
        self._stopping = threading.Event()
        self._accepting = threading.Event()
        self._reload_missed = threading.Event()
        self._first_exit = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    @property
    def process_id(self) -> int | None:
        """The process that runs now, or None."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Return when clients can connect. Raises: BrokerError."""
        if self._thread is not None:
            return
        await_free_port(self._address)
        self._stopping.clear()
        self._first_exit.clear()
        self._thread = threading.Thread(target=self._supervise, name="broker-supervisor", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._accepting.wait(_POLL_S):
            if self._first_exit.is_set() or time.monotonic() > deadline:
                self.stop()
                said = self._last_lines[-1] if self._last_lines else "it does not answer on its port"
                raise BrokerError(f"start the broker on {self._address}", said, "read the log lines before this one")

    def stop(self) -> None:
        """Return when the process is gone; safe to call twice."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        self._send(signal.SIGTERM)
        if thread is None:
            return
        thread.join(_STOP_TIMEOUT_S)
        if thread.is_alive():
            self._send(signal.SIGKILL)
            thread.join(_STOP_TIMEOUT_S)

    def reload(self) -> None:
        """Let the process read its files again; one that is just starting is told once it listens."""
        self._reload_missed.set()
        if self._accepting.is_set():
            self._reload_missed.clear()
            self._send(signal.SIGHUP)

    @property
    def _was_killed(self) -> bool:
        """Whether a signal ended it: that says nothing about its settings, so even a first start tries again."""
        process = self._process
        return process is not None and (process.returncode or 0) < 0

    def _supervise(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            self._run_once()
            self._accepting.clear()
            if not self._was_killed:
                self._first_exit.set()
            if self._stopping.is_set():
                return
            failures = 0 if time.monotonic() - began > _STEADY_S else failures + 1
            delay_s = restart_delay_s(failures - 1 if failures else 0, random.random())
            log.warning("broker.died", address=str(self._address), failures=failures, restart_in_s=round(delay_s, 2))
            self._stopping.wait(delay_s)

    def _run_once(self) -> None:
        leash = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid())]
        try:
            process = subprocess.Popen(
                [*leash, *self._command],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the server: it stops the broker after its own last words.
                start_new_session=True,
            )
        except OSError as error:
            self._last_lines.append(str(error))
            return
        self._process = process
        watching = threading.Thread(target=self._watch_port, args=(process,), name="broker-port", daemon=True)
        watching.start()
        if self._stopping.is_set():
            process.terminate()
        self._read_lines(process)
        process.wait()
        watching.join()

    def _watch_port(self, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None:
            if speaks_tls(self._address):
                self._accepting.set()
                if self._reload_missed.is_set():
                    self.reload()
                return
            time.sleep(_POLL_S)

    def _read_lines(self, process: subprocess.Popen[bytes]) -> None:
        """Pass on what the broker says until it ends; strangers cause lines, so there is a bound on them."""
        minute, count = 0.0, 0
        if process.stdout is None:
            return
        with process.stdout as lines:
            while line := lines.readline(4096):
                text = line.decode(errors="replace").rstrip()
                self._last_lines.append(text)
                if time.monotonic() - minute > 60:
                    minute, count = time.monotonic(), 0
                count += 1
                if count <= _LINES_PER_MINUTE:
                    log.info("broker.said", line=text)

    def _send(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)


def await_free_port(address: Address) -> None:
    """Return when the port can be listened on. Raises: BrokerError when somebody keeps it, or we may not have it."""
    deadline = time.monotonic() + _PORT_TIMEOUT_S
    while True:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            socket.create_server((address.host, address.port), family=family).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(_POLL_S)
                continue
            taken = "address in use by another process"
            because = taken if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
            raise BrokerError(f"start the broker on {address}", because, "choose another with --mqtt-port") from error
        return


def speaks_tls(address: Address) -> bool:
    """Whether something there completes a TLS handshake; mosquitto listens before it has read its certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Only a sign of life: nothing is said to whoever answers.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - asked, not bound
    try:
        with socket.create_connection((host, address.port), _PROBE_TIMEOUT_S) as link:
            context.wrap_socket(link).close()
    except OSError:
        return False
    return True
