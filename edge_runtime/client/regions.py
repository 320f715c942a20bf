"""Shared memory that belongs to a client: an anonymous file that cannot shrink and dies with its last user."""

from __future__ import annotations

import fcntl
import mmap
import os

from edge_runtime.contract.errors import TransportError


class OwnRegion:
    """A memfd mapped into this process.

    Args:
        number: by which messages of one connection call it; 1 or more.
        size: in bytes.

    Raises:
        TransportError: the kernel gives no memory.
    """

    def __init__(self, number: int, size: int) -> None:
        self.number = number
        self.size = size
        self.descriptor = -1
        try:
            self.descriptor = os.memfd_create("edgefleet", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(self.descriptor, size)
            # Unless the file can never shrink, the other side would have to fear SIGBUS, and refuses it.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
            self.memory = memoryview(mmap.mmap(self.descriptor, size))
        except OSError as error:
            self.close()
            raise TransportError(f"share {size} bytes of memory", error.strerror or str(error)) from error

    def close(self) -> None:
        """Give the file up; arrays that still look into it keep its memory."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
