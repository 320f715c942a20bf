"""System shared memory that clients register by name: read and written without ever mapping it.

A client may shrink its region at any moment. A mapping would then end this process with SIGBUS; `preadv` and `pwritev`
return short instead, for one copy of the tensor.
"""

from __future__ import annotations

import os
import re
import stat
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from edge_runtime.contract.errors import ContractError, EdgeError, InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.doors.budget import Budget
from edge_runtime.serving.calls import BadCall

REGIONS_MAX: Final = 256
"""Each holds a file descriptor, of which a process often may have 1024."""
COPIES_BYTES: Final = 1024 * 1024 * 1024
"""Of all tensors copied out of regions whose calls wait or are being answered: a short message may name the same large
region many times."""
_NAME_MAX: Final = 256
_KEY: Final = re.compile(r"/?([^/\0]{1,255})\Z")
_FOLDER: Final = Path("/dev/shm")  # noqa: S108 (where POSIX shared memory lives on Linux)


@dataclass(frozen=True, slots=True)
class RegionRange:
    """The part of a registered region that carries one tensor."""

    region: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class RegionStatus:
    """A registered region, as its client described it."""

    name: str
    key: str
    offset: int
    byte_size: int


@dataclass(slots=True)
class _Region:
    status: RegionStatus
    fd: int
    users: int = 0
    is_closed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def use(self) -> int | None:
        """The descriptor, which stays open until `release`; None when the region is gone."""
        with self.lock:
            if self.is_closed:
                return None
            self.users += 1
            return self.fd

    def release(self) -> None:
        with self.lock:
            self.users -= 1
            self._close_unused()

    def close(self) -> None:
        with self.lock:
            self.is_closed = True
            self._close_unused()

    def _close_unused(self) -> None:
        # Closed under a reader, the number could already name another file.
        if self.is_closed and self.users == 0 and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class SystemRegions:
    """The regions of one server, shared by its doors; any thread may use it.

    Args:
        prefix: names of objects that clients may register begin so; None: they may register none.
        folder: in which the objects lie.
        copies_bytes: what all copies of their bytes may take together.
    """

    def __init__(self, prefix: str | None = "", folder: Path = _FOLDER, *, copies_bytes: int = COPIES_BYTES) -> None:
        self._prefix = prefix
        self._copies = Budget(copies_bytes, "memory for copies of shared memory")
        self._folder = folder
        self._lock = threading.Lock()
        self._regions: dict[str, _Region] = {}

    @property
    def is_on(self) -> bool:
        """Whether clients may register anything."""
        return self._prefix is not None

    def register(self, status: RegionStatus) -> None:
        """Open a client's region.

        Raises:
            InferenceError: code `not_supported_here`: this server takes none.
            BadCall: the key is no regular file of this user below /dev/shm or smaller than stated; the name is taken.
        """
        if not 0 < len(status.name) <= _NAME_MAX:
            raise _refused(status.name, f"a name has 1 to {_NAME_MAX} characters")
        self._check_named_so(status)
        fd = _open_checked(self._folder, status)
        with self._lock:
            full = len(self._regions) >= REGIONS_MAX
            if not full and status.name not in self._regions:
                self._regions[status.name] = _Region(status, fd)
                return
        os.close(fd)
        if full:
            raise _refused(status.name, f"{REGIONS_MAX} regions are registered", "unregister what is no longer used")
        raise _refused(status.name, "a region of that name is registered", "unregister it first", code="exists")

    def _check_named_so(self, status: RegionStatus) -> None:
        if self._prefix is None:
            raise InferenceError(
                f"register region {shown(status.name)}",
                "this server takes no shared memory",
                "send the tensors, or start it with --shared-memory on",
                code="not_supported_here",
            )
        if not status.key.removeprefix("/").startswith(self._prefix):
            because = f"{shown(status.key)} does not begin with {self._prefix}"
            raise _refused(status.name, because, "name the object so, or start the server with another --shared-memory")

    def unregister(self, name: str | None = None) -> None:
        """Forget one region, or all; one that nobody knows is no error, as in Triton."""
        with self._lock:
            if name is None:
                gone = list(self._regions.values())
                self._regions.clear()
            else:
                found = self._regions.pop(name, None)
                gone = [] if found is None else [found]
        for region in gone:
            region.close()

    def statuses(self, name: str | None = None) -> list[RegionStatus]:
        """All regions, or the one of that name. Raises: BadCall when it is not registered."""
        with self._lock:
            known = {key: region.status for key, region in self._regions.items()}
        if name is None:
            return list(known.values())
        if name not in known:
            raise _unknown(name)
        return [known[name]]

    def check(self, part: RegionRange) -> None:
        """Refuse a part that is not within its region, before any work is done. Raises: BadCall."""
        self._within(part)

    def read(self, part: RegionRange) -> memoryview:
        """A copy of the bytes, aligned for any datatype.

        Raises:
            BadCall: the region does not hold them.
            InferenceError: code `overloaded`: there are too many copies whose calls are under way.
        """
        region = self._within(part)
        self._copies.take(part.size)
        try:
            # Not a bytearray: that would be filled with zeros first.
            copy = np.empty(part.size, np.uint8)
        except BaseException:
            self._copies.give_back(part.size)
            raise
        # Whoever still looks at it, a shadow model perhaps, holds it.
        weakref.finalize(copy, self._copies.give_back, part.size)
        _transfer(region, os.preadv, copy.data, part.offset)
        return copy.data

    def write(self, part: RegionRange, content: memoryview) -> None:
        """Write bytes to the beginning of a part. Raises: BadCall when they do not fit (any more)."""
        region = self._within(part)
        if len(content) > part.size:
            raise BadCall(
                f"write to region {shown(part.region)}",
                f"the tensor has {len(content)} bytes, {part.size} are given to it",
                "make room for the whole output",
            )
        _transfer(region, os.pwritev, content, part.offset)

    def close(self) -> None:
        """Forget every region."""
        self.unregister()

    def _within(self, part: RegionRange) -> _Region:
        with self._lock:
            region = self._regions.get(part.region)
        if region is None:
            raise _unknown(part.region)
        if part.offset < 0 or part.size < 0 or part.offset + part.size > region.status.byte_size:
            raise BadCall(
                f"use region {shown(part.region)}",
                f"bytes {part.offset} to {part.offset + part.size} are outside its {region.status.byte_size}",
            )
        return region


def parse_prefix(text: str) -> str | None:
    """Read `on`, `off` or `PREFIX*`: how names of objects that clients may register begin. Raises: ContractError."""
    if text in {"on", "off"}:
        return "" if text == "on" else None
    prefix = text.removesuffix("*")
    if prefix == text or not _KEY.match(prefix) or "*" in prefix:
        because = "it is neither on, off nor a prefix"
        raise ContractError(f"share memory {shown(text)}", because, "write on, off or NAME*")
    return prefix.removeprefix("/")


def read_range(tensor: str, parameters: Mapping[str, object]) -> RegionRange | None:
    """The shared memory that a tensor's parameters name; None when they name none. Raises: BadCall."""
    region = parameters.get("shared_memory_region")
    if region is None:
        return None
    offset, size = parameters.get("shared_memory_offset", 0), parameters.get("shared_memory_byte_size")
    if not isinstance(region, str) or not _is_size(offset) or not _is_size(size):
        raise BadCall(
            f"read tensor {shown(tensor)}",
            "its shared memory is not described by a region's name, a byte size and an offset",
        )
    assert isinstance(offset, int)
    assert isinstance(size, int)
    return RegionRange(region, offset, size)


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _open_checked(folder: Path, status: RegionStatus) -> int:
    key = _KEY.match(status.key)
    if key is None or key[1] in {".", ".."}:
        raise _refused(status.name, f"{shown(status.key)} is no name of a shared memory object")
    if status.offset < 0 or status.byte_size <= 0:
        raise _refused(status.name, "its offset is negative or its size not above 0")
    try:
        # NOFOLLOW: a link would lead out of the folder. NONBLOCK: a pipe would hold us up.
        fd = os.open(folder / key[1], os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "its name is no file name"
        raise _refused(status.name, f"shared memory {shown(status.key)} cannot be opened ({why})") from error
    facts = os.fstat(fd)
    because = ""
    if not stat.S_ISREG(facts.st_mode):
        because = "it is no regular file"
    elif facts.st_uid != os.geteuid():
        because = "it belongs to another user"
    elif status.offset + status.byte_size > facts.st_size:
        because = f"it has {facts.st_size} bytes, not the {status.offset + status.byte_size} that are stated"
    if because:
        os.close(fd)
        raise _refused(status.name, f"shared memory {shown(status.key)}: {because}")
    return fd


def _transfer(
    region: _Region, move: Callable[[int, list[memoryview], int], int], content: memoryview, offset: int
) -> None:
    fd = region.use()
    if fd is None:
        raise _unknown(region.status.name)
    start, end = region.status.offset + offset, region.status.offset + offset + len(content)
    try:
        # A write behind the end would make a region grow that its owner has shrunk.
        if os.fstat(fd).st_size < end:
            raise _shrunk(region.status.name)
        at = 0
        while at < len(content):
            moved = move(fd, [content[at:]], start + at)
            if moved <= 0:
                raise _shrunk(region.status.name)
            at += moved
    except OSError as error:
        raise BadCall(f"use region {shown(region.status.name)}", str(error.strerror)) from error
    finally:
        region.release()


def _unknown(name: str) -> BadCall:
    return BadCall(f"use region {shown(name)}", "no shared memory region of that name is registered", "register it")


def _shrunk(name: str) -> BadCall:
    return BadCall(f"use region {shown(name)}", "it has become smaller than it was registered", "register it again")


def _refused(name: str, because: str, remedy: str = "", *, code: str | None = None) -> EdgeError:
    return BadCall(f"register region {shown(name)}", because, remedy, code=code)
