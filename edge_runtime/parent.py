"""A child process's first acts: it ends with whoever started it, and takes no more memory than it may.

Imports next to nothing.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(parent_pid: int) -> None:
    """Let the kernel kill this process when its parent ends, even one that was killed before this line."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def limit_memory(memory_bytes: int | None) -> None:
    """Hold this process and its children to a grant: allocations beyond it fail instead of taking the board down."""
    if memory_bytes is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
