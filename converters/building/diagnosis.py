"""Why a quantised candidate loses accuracy: asks the compiler's process for the layers at fault."""

from __future__ import annotations

from pathlib import Path

import msgspec

from converters.building.builders import build_candidate
from converters.building.workshop import Workshop, ranges_job_of
from converters.compilers.isolated import compile_isolated
from converters.compilers.job import SensitivityJob
from converters.planning.methods import Method
from converters.planning.planner import Candidate
from converters.planning.sensitivity import Sensitivity


def can_diagnose(method: Method) -> bool:
    """Whether a method makes files whose layers can be told apart."""
    return method.engine == "onnxruntime" and method.scheme == "static" and method.calibration is not None


def diagnose(candidate: Candidate, workshop: Workshop, *, undo: bool) -> Sensitivity:
    """The layers that a candidate's file loses in.

    Args:
        candidate: one whose method can be diagnosed.
        workshop: where it was compiled, or is now when its file was found in the cache.
        undo: whether each layer is also computed in float, to see if mixed precision would help.

    Raises:
        CompileFailed: the file cannot be looked at.
    """
    ranges = ranges_job_of(candidate.method.calibration or "minmax", workshop)
    quantised = workshop.folder / candidate.id / "model.onnx"
    if not quantised.exists():
        build_candidate(candidate, workshop)
    job = SensitivityJob(
        prepared=str(Path(ranges.out) / "prepared.onnx"),
        quantised=str(quantised),
        calibration=ranges.calibration,
        out=str(workshop.folder / f"{candidate.id}-layers{'-undone' if undo else ''}"),
        undo=undo,
    )
    made = compile_isolated(job, timeout_s=workshop.timeout_s)
    return msgspec.json.decode(Path(made.files["sensitivity"]).read_bytes(), type=Sensitivity)
