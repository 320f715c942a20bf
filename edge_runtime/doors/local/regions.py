"""Shared memory that clients pass in: mapped only where nothing that they do to it can harm this process."""

from __future__ import annotations

import array
import fcntl
import mmap
import os
import socket
from typing import Final

from edge_runtime.client.frames import ALIGNMENT, IN_BODY
from edge_runtime.doors.budget import Budget
from edge_runtime.doors.local.limits import Limits
from edge_runtime.serving.calls import BadCall

_ONE_DESCRIPTOR: Final = socket.CMSG_SPACE(array.array("i").itemsize)
_REMEDY: Final = "pass a memfd sealed with F_SEAL_SHRINK"


class ForeignRegions:
    """The regions of one connection, by the numbers that its client gave them.

    A file that shrinks under a mapping kills whoever touches it (SIGBUS), so only files that are sealed against it are
    mapped: nothing but memfds can be. Pages of another size can be taken away in spite of the seal, and are refused.
    """

    def __init__(self, limits: Limits, budget: Budget) -> None:
        self._limits = limits
        self._budget = budget
        self._views: dict[int, memoryview] = {}

    def receive(self, peer: socket.socket, number: int) -> None:
        """Take a file descriptor from the peer and map its file. Raises: BadCall, InferenceError (`overloaded`)."""
        descriptor = _received(peer)
        try:
            self._map(number, descriptor)
        finally:
            os.close(descriptor)

    def forget(self, number: int) -> None:
        """Unmap a region; arrays that still look into it keep it until they are gone. Raises: BadCall."""
        if number not in self._views:
            raise BadCall(f"unmap region {number}", "it is not mapped")
        self._budget.give_back(len(self._views.pop(number)))

    def forget_all(self) -> None:
        """Unmap everything."""
        for number in list(self._views):
            self.forget(number)

    def part(self, number: int, offset: int, size: int) -> memoryview:
        """Writable bytes of a region. Raises: BadCall: not mapped, out of bounds, or unaligned."""
        view = self._views.get(number)
        if view is None:
            raise BadCall(f"use region {number}", "it is not mapped", "map it first")
        if offset + size > len(view):
            raise BadCall(f"use region {number}", f"{offset} + {size} bytes lie outside its {len(view)}")
        if offset % ALIGNMENT:
            raise BadCall(f"use region {number}", f"offset {offset} is no multiple of {ALIGNMENT}")
        return view[offset : offset + size]

    def check_may_map(self, number: int) -> None:
        """Whether one more region of that number may come. Raises: BadCall."""
        if number == IN_BODY or number in self._views:
            raise BadCall(f"map region {number}", "the number is taken", "choose another")
        if len(self._views) >= self._limits.regions:
            raise BadCall(f"map region {number}", f"{self._limits.regions} are mapped, which is all that a client has")

    def _map(self, number: int, descriptor: int) -> None:
        size = _sound_size(descriptor, self._limits.region_max_bytes)
        self._budget.take(size)
        try:
            self._views[number] = memoryview(mmap.mmap(descriptor, size))
        except (OSError, ValueError) as error:
            self._budget.give_back(size)
            # Sealed against writing, or no address space left.
            raise BadCall(f"map region {number}", str(error), _REMEDY) from error


def _received(peer: socket.socket) -> int:
    """One file descriptor, sent with one byte; the kernel closes any others that came with it."""
    try:
        _, ancillary, flags, _ = peer.recvmsg(1, _ONE_DESCRIPTOR, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        raise BadCall("map a region", f"no file descriptor came ({error.strerror or error})", _REMEDY) from error
    found = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    if len(found) != 1 or flags & socket.MSG_CTRUNC:
        for descriptor in found:
            os.close(descriptor)
        raise BadCall("map a region", f"{len(found)} file descriptors came where one should", _REMEDY)
    return found[0]


def _sound_size(descriptor: int, max_bytes: int) -> int:
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError as error:
        raise BadCall("map a region", "the file is no memfd", _REMEDY) from error
    if not seals & fcntl.F_SEAL_SHRINK:
        raise BadCall("map a region", "the file could shrink while it is in use", _REMEDY)
    if os.fstatvfs(descriptor).f_bsize != mmap.PAGESIZE:
        raise BadCall("map a region", "its pages are not of the usual size", "create it without MFD_HUGETLB")
    size = os.fstat(descriptor).st_size
    if not 0 < size <= max_bytes:
        raise BadCall("map a region", f"it has {size} bytes, 1 to {max_bytes} are allowed")
    return size
