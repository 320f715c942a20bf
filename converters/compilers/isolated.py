"""Runs a compiler in a fresh process with limits on time and memory, and turns every way to fail into one error."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from converters.compilers.job import Compiled, Job, Outcome
from converters.errors import CompileFailed, CompilerRefused

TIMEOUT_S: Final = 1800.0
MEMORY_BYTES: Final = 8 * 1024**3
_REPORT_LINES: Final = 3


def compile_isolated(job: Job, *, timeout_s: float = TIMEOUT_S, memory_bytes: int = MEMORY_BYTES) -> Compiled:
    """Run one job to its end.

    Raises:
        CompileFailed: the compiler refused, crashed, or met a limit.
    """
    folder = Path(job.out)
    folder.mkdir(parents=True, exist_ok=True)
    job_path, outcome_path, temporary = folder / "job.json", folder / "outcome.json", folder / "temporary"
    job_path.write_bytes(msgspec.json.encode(job))
    temporary.mkdir(exist_ok=True)
    command = [
        sys.executable, "-m", "converters.compilers.worker",
        str(job_path), str(outcome_path), str(os.getpid()), str(memory_bytes),
    ]  # fmt: skip
    # A killed compiler cannot remove what it put into the temporary folder: gigabytes for a large model.
    environment = {**os.environ, "TMPDIR": str(temporary)}
    what = job.label
    try:
        code, errors = _run(command, environment, timeout_s)
    except subprocess.TimeoutExpired as error:
        raise CompileFailed(what, f"it took longer than {timeout_s:.0f} s", "raise --compile-timeout-s") from error
    finally:
        job_path.unlink(missing_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
    if code != 0 or not outcome_path.exists():
        raise CompileFailed(what, _cause(code, errors))
    outcome = msgspec.json.decode(outcome_path.read_bytes(), type=Outcome)
    outcome_path.unlink()
    if outcome.compiled is not None:
        return outcome.compiled
    if outcome.failure is None or outcome.failure.may_pass:
        raise CompileFailed(what, outcome.failure.because if outcome.failure else "the compiler said nothing")
    raise CompilerRefused(what, outcome.failure.because)


def stop_compilers() -> None:
    """Kill every compiler that a thread of this process waits for."""
    for process in tuple(_running):
        process.kill()


_running: Final[set[subprocess.Popen[bytes]]] = set()


def _run(command: list[str], environment: dict[str, str], timeout_s: float) -> tuple[int, bytes]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        _running.add(process)
        try:
            _, errors = process.communicate(timeout=timeout_s)
        except BaseException:
            process.kill()
            raise
        finally:
            _running.discard(process)
        return process.returncode, errors


def _cause(code: int, stderr: bytes) -> str:
    if code < 0:
        return f"the compiler was killed by {signal.Signals(-code).name}"
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return " / ".join(lines[-_REPORT_LINES:]) or f"the compiler ended with code {code}"
