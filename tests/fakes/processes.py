"""Processes that tests start: none outlives the test process, however that ends."""

from __future__ import annotations

import ctypes
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def begin(command: Sequence[str], log: Path, *, new_session: bool = False) -> subprocess.Popen[bytes]:
    """Start a program that appends what it says to a file and is killed when this process dies."""
    with log.open("ab") as said:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=new_session,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 (one prctl call)
        )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
