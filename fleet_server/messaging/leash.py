"""Becomes another program that dies with its parent: `leash.py PARENT_PID PROGRAM ARGUMENT…`.

Run as a plain file without site packages: it must cost nothing, and works for programs that are not ours.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and exec the program; does not return."""
    parent, command = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        # SIGKILL, since a broker holds nothing that an orderly end would save. Linux sends it when the *thread* that
        # started us ends, so the supervisor starts us from a thread that outlives us.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        # The parent was gone before the line above could take effect.
        sys.exit(1)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # A reload sent before the program listens for it must not kill it; the sender repeats it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
