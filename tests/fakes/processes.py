"""Processes that tests start: none outlives the test process, however that ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# Not in a `preexec_fn`: that forks, and what gRPC does in a fork of a process that has used it hangs now and then.
_DIE_WITH_PARENT = """
import os, sys
from edge_runtime.parent import end_with_parent
end_with_parent(int(sys.argv[1]))
os.execvp(sys.argv[2], sys.argv[2:])
"""


def begin(command: Sequence[str], log: Path, *, new_session: bool = False) -> subprocess.Popen[bytes]:
    """Start a program that appends what it says to a file and is killed when this process dies."""
    with log.open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-c", _DIE_WITH_PARENT, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=new_session,
        )
