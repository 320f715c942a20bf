"""How every command meets Ctrl-C: one line and exit code 130, at any moment, never a traceback.

Imports next to nothing: what it guards begins with the import of the command line's own library.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType
from typing import Final, NoReturn

from edge_runtime.importing import uncollected

EXIT_INTERRUPTED: Final = 130
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_LOOK_UP_S: Final = 0.5
"""The system may hand a signal to a thread that is busy in native code. Python answers it in the main thread, which
learns of it when it wakes the next time: it must not sleep for ever."""


class Ending(threading.Event):
    """An event that a signal's handler may set.

    The handler runs in the main thread between any two instructions, also where that thread waits for the event and
    holds its lock: with the usual one it would then wait for itself, for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cond = threading.Condition(threading.RLock())


def raise_on_interrupt() -> None:
    """From here on an interrupt is a KeyboardInterrupt: for work that cleans up after itself."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Keep interrupts back until the end of the block, for work that would take one for an error of its own."""
    if threading.current_thread() is not threading.main_thread():
        # Python raises them in the main thread only.
        yield
        return
    arrived: list[int] = []
    before = {number: signal.signal(number, lambda number, _: arrived.append(number)) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        # Also when the block failed: the interrupt is the likelier cause.
        for one in arrived:
            signal.raise_signal(one)


def wait_for(ending: threading.Event | threading.Thread) -> None:
    """Wait in the main thread for as long as it takes, and answer signals in time."""
    if isinstance(ending, threading.Event):
        while not ending.wait(_LOOK_UP_S):
            pass
    else:
        while ending.is_alive():
            ending.join(_LOOK_UP_S)


def run_command(command: str, module: str, *, quick: Collection[str] = ()) -> NoReturn:
    """Run `main()` of a command's module and end the process with its exit code.

    Args:
        command: its name, for the line that says it was interrupted.
        module: import string; imported here, because an interrupt may come while it is.
        quick: its subcommands that leave nothing to do, when they have ended, but to write out what they printed.
    """

    def end_now(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (the signature is signal's)
        # No exception: raised inside the import of a native library it is swallowed, or ends in abort(). Written past
        # sys.stderr, which the signal may have found in the middle of a write.
        os.write(2, f"{command}: interrupted\n".encode())
        os._exit(EXIT_INTERRUPTED)

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, end_now)
    try:
        with uncollected():
            imported = import_module(module)
        imported.main()
    except SystemExit as end:
        if end.code != EXIT_INTERRUPTED:
            if isinstance(end.code, int) and sys.argv[1:2] and sys.argv[1] in quick:
                with suppress(OSError):  # a full disk, a reader that is gone: the usual way says so
                    sys.stdout.flush()
                    end_at_once(end.code)
            raise
    except KeyboardInterrupt:
        # From work that has set Python's own handler again, because it cleans up.
        sys.stderr.write(f"{command}: interrupted\n")
    else:
        sys.exit(0)
    end_at_once(EXIT_INTERRUPTED)


def end_at_once(code: int) -> NoReturn:
    """End the process without waiting for its threads.

    Those that native libraries have in the middle of work may never end, or crash while the interpreter takes itself
    down.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)
