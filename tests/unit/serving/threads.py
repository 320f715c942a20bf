"""A process to which the system gives no more threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_NO_MACHINE_HAS_BYTES: Final = 1 << 47
"""As much as all addresses of a process: a stack of that size cannot be had."""


@contextmanager
def no_threads() -> Iterator[None]:
    """As long as the context lasts, every start of a thread fails in the system, as it does where a limit is met."""
    before = threading.stack_size(_NO_MACHINE_HAS_BYTES)
    try:
        yield
    finally:
        threading.stack_size(before)
