"""Processes and folders of the demo: everything it starts ends with it, everything it writes goes with it."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Any, Final, Self, TypeVar

from edge_runtime.parent import end_with_parent

PATIENCE_S: Final = float(os.environ.get("EDGEFLEET_DEMO_PATIENCE_S", "180"))
"""Bound of every wait: it ends a hang, and measures nothing."""

_GRACE_S: Final = 15.0
_FoundT = TypeVar("_FoundT")


class DemoFailure(Exception):
    """Something that the demo promises did not happen."""


@dataclass
class Stage:
    """A temporary folder and the processes that play in it."""

    folder: Path = field(init=False)
    _playing: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """Those that must not end by themselves."""
    _working: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    """Commands that will."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _is_interrupted: bool = False
    _is_starting: bool = False
    _former: dict[signal.Signals, Any] = field(default_factory=dict)
    """What signals did before this stage."""

    def __enter__(self) -> Self:
        # Nobody leaves a stage that was not entered: until it is, an interrupt waits.
        self._is_starting = True
        self._former = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        self.folder = Path(tempfile.mkdtemp(prefix="edgefleet-demo-"))
        self._is_starting = False
        if self._is_interrupted:
            self.__exit__(None, None, None)
            raise KeyboardInterrupt
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C must not interrupt the tidying up.
        for number in self._former:
            signal.signal(number, signal.SIG_IGN)
        self.end_all()
        shutil.rmtree(self.folder, ignore_errors=True)
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def begin(self, name: str, module: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
        """Start a long-running process; its output goes to `<name>.log`."""
        with self.log_of(name).open("ab") as log, self._undisturbed():
            self._playing[name] = self._popen(module, arguments, env or {}, stdout=log, stderr=log)

    def run(self, module: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Finished:
        """Run a command to its end and keep what it said. Raises: DemoFailure when it does not end."""
        name = f"command-{next(self._numbers)}"
        self.launch(name, module, *arguments, env=env)
        return self.collect(name)

    def launch(self, name: str, module: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
        """Start a command whose end `collect` waits for."""
        with self.log_of(name).open("wb") as log, self._errors_of(name).open("wb") as errors, self._undisturbed():
            self._working[name] = self._popen(module, arguments, env or {}, stdout=log, stderr=errors)

    def collect(self, name: str) -> Finished:
        """Wait for the end of a launched command. Raises: DemoFailure when it does not end."""
        process = self._working[name]
        try:
            process.wait(PATIENCE_S * 3)
        except subprocess.TimeoutExpired as error:
            raise DemoFailure(f"{' '.join(map(str, process.args))} did not end") from error  # type: ignore[arg-type]
        finally:
            self._end(self._working.pop(name))
        said = (path.read_text(errors="replace") for path in (self.log_of(name), self._errors_of(name)))
        return Finished(process.returncode, *said)

    def end_all(self) -> None:
        """End every process: ask the devices first, then the server, insist after a while."""
        everybody = [*reversed(self._working.values()), *reversed(self._playing.values())]
        for process in everybody:
            if process.poll() is None:
                process.terminate()
        for process in everybody:
            self._end(process)
        self._working.clear()
        self._playing.clear()

    def log_of(self, name: str) -> Path:
        """Where a process writes."""
        return self.folder / f"{name}.log"

    def wait(self, look: Callable[[], _FoundT | None], what: str, patience_s: float = PATIENCE_S) -> _FoundT:
        """Look again and again until something is found. Raises: DemoFailure when time runs out or a process died."""
        end = time.monotonic() + patience_s
        while (found := look()) is None:
            for name, process in self._playing.items():
                if process.poll() is not None:
                    raise DemoFailure(f"{name} ended with status {process.returncode}: {self._last_words(name)}")
            if time.monotonic() > end:
                raise DemoFailure(f"waited {patience_s:.0f} s in vain for {what}")
            time.sleep(0.1)
        return found

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """An interrupt waits until a process that is being started has its place in the books.

        Raised in the middle of that, it would lose a child that runs already, or be dropped while Python forks.
        """
        self._is_starting = True
        try:
            yield
        finally:
            self._is_starting = False
        if self._is_interrupted:
            raise KeyboardInterrupt

    def _interrupt(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 (the signature is signal's)
        self._is_interrupted = True
        if not self._is_starting:
            raise KeyboardInterrupt

    def _errors_of(self, name: str) -> Path:
        return self.folder / f"{name}.err"

    def _last_words(self, name: str) -> str:
        log = self.log_of(name)
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        return lines[-1][:300] if lines else "it said nothing"

    def _popen(
        self,
        module: str,
        arguments: Sequence[str | Path],
        env: Mapping[str, str],
        *,
        stdout: int | IO[bytes],
        stderr: int | IO[bytes],
    ) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C reaches only the demo, which then ends everybody in order.
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "120", **env},
            start_new_session=True,
            preexec_fn=partial(end_with_parent, os.getpid()),  # noqa: PLW1509 (one prctl call, no threads yet)
        )

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    status: int
    output: str
    errors: str


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
