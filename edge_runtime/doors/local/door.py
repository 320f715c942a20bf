"""The local door itself: a socket file that only its owner can reach, and threads for those who come."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import Final, final

from edge_runtime.contract.errors import ContractError, InferenceError, TransportError
from edge_runtime.doors.budget import Budget
from edge_runtime.doors.door import DoorStatistics
from edge_runtime.doors.local.connection import Connection
from edge_runtime.doors.local.limits import Limits
from edge_runtime.doors.round import Round
from edge_runtime.serving.host import ModelHost

RUNTIME_FOLDER: Final = Path("/run")
"""Emptied when the machine starts (Filesystem Hierarchy Standard): who listens below it makes its own folder there."""

_PEER: Final = struct.Struct("3i")
_PATH_MAX_BYTES: Final = 107
"""unix(7): `sun_path` has 108 bytes, the last of them zero."""
_BACKLOG: Final = 32
_DRAIN_S: Final = 10.0
_LAST_WORD_S: Final = 1.0
_PAUSE_S: Final = 0.2
"""Before another try when this process is out of file descriptors or threads."""


@final
class LocalDoor:
    """Serves a host's models on a Unix socket.

    Args:
        host: answers; outlives the door.
        path: of the socket file; its folder is made when it is missing below `/run`, and is there elsewhere.
        users: ids of users who may connect besides this process's own and root.
        limits: what clients are granted.
        identify: tells the user of a peer; the kernel does.
    """

    kind: Final = "local"

    def __init__(
        self,
        host: ModelHost,
        path: Path | str,
        *,
        users: Collection[int] = (),
        limits: Limits | None = None,
        identify: Callable[[socket.socket], int] | None = None,
    ) -> None:
        self.path = Path(path)
        self._host = host
        self._identify = identify or _user_of
        self._limits = limits or Limits()
        self._trusted = frozenset({os.geteuid(), 0})
        self._users = self._trusted | frozenset(users)
        self._budgets = (
            Budget(self._limits.mapped_max_bytes, "shared memory"),
            Budget(self._limits.bodies_max_bytes, "memory for tensors"),
        )
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Event] = {}
        """Each with what is set when it has ended."""
        self._round = Round(self._serve)
        self._past = [0, 0, 0]
        self._is_private = not users
        self._is_open = False
        self._listener: socket.socket | None = None
        self._identity = (0, 0)
        self._made: tuple[Path, ...] = ()
        """Folders that were made for the socket, the innermost first."""
        self._waiter = threading.Thread(target=self._accept_all, name="local-door", daemon=True)

    @property
    def address(self) -> str:
        """What clients connect to."""
        return f"unix:{self.path}"

    def start(self) -> None:
        """Listen and answer from now on; a folder that was made for that is taken away at the end.

        Raises:
            TransportError: the socket cannot be opened there, or somebody already listens on it.
        """
        with contextlib.suppress(OSError):  # whoever listens there is told why it cannot
            self._made = _missing(self.path.parent)
        if self._made and not self.path.resolve().is_relative_to(RUNTIME_FOLDER.resolve()):
            # As root a mistyped path would become a tree of folders.
            because = f"there is no folder {self.path.parent}"
            remedy = f"make it, or choose a path in a folder that exists or below {RUNTIME_FOLDER}"
            raise TransportError(f"listen on {self.path}", because, remedy)
        try:
            self._listener, self._identity = _listen(self.path, is_private=self._is_private)
        except BaseException:
            _remove_empty(self._made)
            raise
        self._is_open = True
        self._waiter.start()

    def statistics(self) -> DoorStatistics:
        """Counters since it was opened."""
        with self._lock:
            live = list(self._connections)
            answered, refused, turned_away = self._past
        return DoorStatistics(
            answered + sum(one.answered for one in live),
            refused + sum(one.refused for one in live),
            turned_away,
            len(live),
        )

    def stop(self, drain_s: float) -> None:
        """Take the socket away, give calls under way so many seconds, then hang up; safe to repeat."""
        with self._lock:
            if not self._is_open or self._listener is None:
                return
            self._is_open = False
            live = dict(self._connections)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._waiter.join()
        self._listener.close()
        for connection in live:
            connection.end_after_this_call()
        _remove(self.path, self._identity)
        _remove_empty(self._made)
        give_up = time.monotonic() + drain_s
        for ended in live.values():
            ended.wait(max(0.0, give_up - time.monotonic()))
        for connection in live:
            connection.hang_up()
        give_up = time.monotonic() + _LAST_WORD_S
        for ended in live.values():
            # Only calls that nobody can interrupt are still under way then; nobody waits for them.
            ended.wait(max(0.0, give_up - time.monotonic()))

    def __enter__(self) -> LocalDoor:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(_DRAIN_S)

    def _accept_all(self) -> None:
        pause = threading.Event()
        listener = self._listener
        assert listener is not None
        while self._is_open:
            try:
                peer, _ = listener.accept()
            except OSError:
                # Closed, or out of file descriptors: then others must end before a new one fits.
                if self._is_open:
                    pause.wait(_PAUSE_S)
                continue
            try:
                self._admit(peer)
            except (OSError, RuntimeError):
                peer.close()
                pause.wait(_PAUSE_S)

    def _admit(self, peer: socket.socket) -> None:
        uid = self._identify(peer)
        connection = Connection(peer, self._host, self._limits, self._budgets, is_trusted=uid in self._trusted)
        if uid not in self._users:
            self._past[2] += 1
            because = f"user {uid} may not use it"
            remedy = "connect as the server's user, or start it with --uds-user"
            connection.refuse_at_door(ContractError("open the local door", because, remedy, code="unauthorized"))
            return
        with self._lock:
            has_room = len(self._connections) < self._limits.connections and self._is_open
            if has_room:
                self._connections[connection] = threading.Event()
        if has_room:
            self._start(connection)
            return
        self._past[2] += 1
        because = f"{self._limits.connections} clients are connected, which is all that it takes"
        full = InferenceError("open the local door", because, "close another, or try later", code="overloaded")
        connection.refuse_at_door(full)

    def _start(self, connection: Connection) -> None:
        try:
            threading.Thread(target=self._serve, args=(connection,), name="local-client", daemon=True).start()
        except RuntimeError:  # this process may have no more threads
            with self._lock:
                del self._connections[connection]
            raise

    def _serve(self, connection: Connection) -> None:
        """In this thread, until it ends or goes into the round."""
        is_in_round = False
        try:
            while not is_in_round and connection.serve():
                is_in_round = self._round.join(connection)
        finally:
            if not is_in_round:
                with self._lock:
                    ended = self._connections.pop(connection)
                    self._past[0] += connection.answered
                    self._past[1] += connection.refused
                ended.set()


def _listen(path: Path, *, is_private: bool) -> tuple[socket.socket, tuple[int, int]]:
    """A listening socket at that path, and the identity of its file."""
    if len(os.fsencode(path)) > _PATH_MAX_BYTES:
        because = f"a socket's path may have {_PATH_MAX_BYTES} bytes"
        raise TransportError(f"listen on {path}", because, "choose a shorter one")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700 if is_private else 0o711, parents=True, exist_ok=True)
        _clear(path)
        # Linux gives the file the mode of its socket: there is no moment at which anybody else could connect.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        if not is_private:
            path.chmod(0o666)
        listener.listen(_BACKLOG)
        status = path.stat()
    except OSError as error:
        listener.close()
        raise TransportError(f"listen on {path}", error.strerror or str(error), "choose another path") from error
    except TransportError:
        listener.close()
        raise
    return listener, (status.st_dev, status.st_ino)


def _clear(path: Path) -> None:
    """Take away what a process that has gone left behind. Raises: TransportError: the place is taken."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise TransportError(f"listen on {path}", "a file that is no socket stands there", "choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise TransportError(f"listen on {path}", "another process listens there", "stop it, or choose another path")


def _remove(path: Path, identity: tuple[int, int]) -> None:
    try:
        status = path.lstat()
        # Only our own: a successor may have put its socket there already.
        if (status.st_dev, status.st_ino) == identity:
            path.unlink()
    except OSError:
        pass  # somebody was quicker


def _missing(folder: Path) -> tuple[Path, ...]:
    """The folders that have to be made for this one to be there, the innermost first. Raises: OSError."""
    return tuple(itertools.takewhile(lambda one: not one.exists(), (folder, *folder.parents)))


def _remove_empty(folders: tuple[Path, ...]) -> None:
    with contextlib.suppress(OSError):  # somebody else has put something there
        for folder in folders:
            folder.rmdir()


def _user_of(peer: socket.socket) -> int:
    """The user id of the process that connected, as the kernel knows it (SO_PEERCRED, unix(7))."""
    _, uid, _ = _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(uid)
