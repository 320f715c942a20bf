"""Runs a compiler in a fresh process with limits on time and memory, and turns every way to fail into one error."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from converters.compilers.job import Compiled, Job, Outcome
from converters.errors import CompileFailed

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
    command = [sys.executable, "-m", "converters.compilers.worker", str(job_path), str(outcome_path), str(os.getpid())]
    # A killed compiler cannot remove what it put into the temporary folder: gigabytes for a large model.
    environment = {**os.environ, "TMPDIR": str(temporary)}
    what = job.label

    def limit() -> None:
        # Data, not address space: engines reserve far more addresses than they ever touch.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))

    try:
        finished = subprocess.run(
            command, capture_output=True, timeout=timeout_s, check=False, preexec_fn=limit, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise CompileFailed(what, f"it took longer than {timeout_s:.0f} s", "raise --compile-timeout-s") from error
    finally:
        job_path.unlink(missing_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
    if finished.returncode != 0 or not outcome_path.exists():
        raise CompileFailed(what, _cause(finished.returncode, finished.stderr))
    outcome = msgspec.json.decode(outcome_path.read_bytes(), type=Outcome)
    outcome_path.unlink()
    if outcome.compiled is None:
        raise CompileFailed(what, outcome.failure.because if outcome.failure else "the compiler said nothing")
    return outcome.compiled


def _cause(code: int, stderr: bytes) -> str:
    if code < 0:
        return f"the compiler was killed by {signal.Signals(-code).name}"
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return " / ".join(lines[-_REPORT_LINES:]) or f"the compiler ended with code {code}"
