"""The fresh process a compiler runs in: `python -m converters.compilers.worker JOB OUTCOME PARENT MEMORY`.

It limits its own memory; its parent limits its time, removes what it leaves, and takes it along when it ends.
"""

from __future__ import annotations

import importlib
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from converters.compilers.job import Compiled, CompileJob, Failure, Job, Outcome, RangesJob, SensitivityJob
from converters.compilers.outside import lies_outside
from converters.errors import CompileFailed
from converters.planning.recipe import EngineName
from edge_runtime.parent import end_with_parent

COMPILERS: Final[Mapping[EngineName, str]] = {
    "onnxruntime": "converters.compilers.onnxruntime",
    "openvino": "converters.compilers.openvino",
    "litert": "converters.compilers.litert",
    "tensorrt": "converters.compilers.tensorrt",
}
"""Module by engine; each has `compile_job`."""
CALIBRATED: Final[Mapping[type, str]] = {
    RangesJob: "converters.compilers.ranges",
    SensitivityJob: "converters.compilers.sensitivity",
}
"""Module by job, for work around a compilation."""


def run(job: Job) -> Compiled:
    """Hand a job to its compiler; each is imported only when it is needed. Raises: CompileFailed."""
    compiled: Compiled = importlib.import_module(_module_of(job)).compile_job(job)
    return compiled


def _module_of(job: Job) -> str:
    return COMPILERS[job.method.engine] if isinstance(job, CompileJob) else CALIBRATED[type(job)]


def main(job_path: Path, outcome_path: Path) -> None:
    """Read a job, run it, write the outcome."""
    job = msgspec.json.decode(job_path.read_bytes(), type=Job)
    try:
        outcome = Outcome(compiled=run(job))
    except CompileFailed as error:
        outcome = Outcome(failure=Failure(because=error.because, may_pass=lies_outside(error)))
    except MemoryError:
        because = "it ran out of the memory it was granted"
        outcome = Outcome(failure=Failure(because=because, may_pass=True))
    outcome_path.write_bytes(msgspec.json.encode(outcome))


if __name__ == "__main__":
    end_with_parent(int(sys.argv[3]))
    # Data, not address space: engines reserve far more addresses than they ever touch.
    resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[4]), int(sys.argv[4])))
    main(Path(sys.argv[1]), Path(sys.argv[2]))
