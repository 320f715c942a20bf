"""The fresh process a compiler runs in: `python -m converters.compilers.worker JOB OUTCOME PARENT`.

Its parent limits it, removes what it leaves, and takes it along when it ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from converters.compilers.job import Compiled, CompileJob, Failure, Outcome
from converters.errors import CompileFailed
from edge_runtime.parent import end_with_parent


def run(job: CompileJob) -> Compiled:
    """Hand a job to its compiler; each is imported only when it is needed. Raises: CompileFailed."""
    if job.engine == "onnxruntime":
        from converters.compilers import onnxruntime as compiler
    else:
        from converters.compilers import openvino as compiler  # type: ignore[no-redef]
    return compiler.compile_job(job)


def main(job_path: Path, outcome_path: Path) -> None:
    """Read a job, run it, write the outcome."""
    job = msgspec.json.decode(job_path.read_bytes(), type=CompileJob)
    try:
        outcome = Outcome(compiled=run(job))
    except CompileFailed as error:
        outcome = Outcome(failure=Failure(because=error.because))
    except MemoryError:
        outcome = Outcome(failure=Failure(because="it ran out of the memory it was granted"))
    outcome_path.write_bytes(msgspec.json.encode(outcome))


if __name__ == "__main__":
    end_with_parent(int(sys.argv[3]))
    main(Path(sys.argv[1]), Path(sys.argv[2]))
