"""Whether an error has its cause outside of the model: want of memory, of room, of a tool."""

from __future__ import annotations

import subprocess
from typing import Final

from converters.errors import BadToolchain
from edge_runtime.contract.errors import EdgeError

_CLASSES: Final = (MemoryError, OSError, ImportError, BadToolchain, subprocess.SubprocessError)
_WORDS: Final = ("alloc", "memory", "no space left", "file too large", "quota exceeded")
"""What C++ says, whose errors come as text."""


def lies_outside(error: EdgeError) -> bool:
    """Whether the same work may succeed later; engines wrap what stopped them in errors of their own."""
    text, cause = error.because.lower(), error.__cause__
    while cause is not None:
        if isinstance(cause, _CLASSES):
            return True
        cause = cause.__cause__ or cause.__context__
    return any(word in text for word in _WORDS)
