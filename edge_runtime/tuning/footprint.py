"""Peak memory of a process that answers with a variant, and of one that calls only its engine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from edge_runtime.inference.requests.lease import buffer_shapes

if TYPE_CHECKING:
    from edge_runtime.inference.model import Model
    from edge_runtime.tuning.target import Target

_TIMEOUT_S: Final = 120.0
_PEAK: Final = "print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1])"

_OURS: Final = f"""
import sys
from pathlib import Path
from edge_runtime.installed import is_state_folder, open_installed
path, slot, variant, threads = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]) or None
if is_state_folder(path):
    model = open_installed(path, slot, threads=threads)
else:
    from edge_runtime import Model
    model = Model.open(path, variant=variant, threads=threads)
model.warm_up(3)
{_PEAK}
"""

_BARE: Final[Mapping[str, str]] = {
    "onnxruntime": f"""
import json, sys, numpy, onnxruntime
feeds = {{name: numpy.zeros(shape, dtype) for name, (shape, dtype) in json.loads(sys.argv[3]).items()}}
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = int(sys.argv[2])
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
for _ in range(3):
    session.run(None, feeds)
{_PEAK}
""",
    "litert": f"""
import json, sys, numpy
from ai_edge_litert.interpreter import Interpreter
feeds = {{name: numpy.zeros(shape, dtype) for name, (shape, dtype) in json.loads(sys.argv[3]).items()}}
interpreter = Interpreter(model_path=sys.argv[1], num_threads=int(sys.argv[2]) or None)
interpreter.allocate_tensors()
for _ in range(3):
    for one in interpreter.get_input_details():
        interpreter.set_tensor(one["index"], feeds[one["name"]])
    interpreter.invoke()
{_PEAK}
""",
}
"""The plain script that a person would write, by engine."""


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """Peak resident bytes of whole processes, Python and libraries included."""

    ours: int
    bare: int | None
    """None where nobody wrote the plain script for this engine."""


def measure_footprint(target: Target, model: Model, threads: int | None) -> Footprint | None:
    """Peak memory of both; None when our process did not get through."""
    ours = _peak(_OURS, str(target.path), target.slot, model.variant_id, str(threads or 0))
    return None if ours is None else Footprint(ours=ours, bare=_bare_peak(target, model, threads))


def _bare_peak(target: Target, model: Model, threads: int | None) -> int | None:
    program = _BARE.get(model.variant.manifest.target.engine)
    if program is None or model.predictor.sequencer is not None:
        return None
    shapes = buffer_shapes(model.predictor, {})
    feeds = {info.name: (shapes[info.name], info.dtype) for info in model.predictor.file_inputs.values()}
    path = target.source.path_of(next(file.digest for file in model.variant.manifest.files if file.role == "model"))
    return _peak(program, str(path), str(threads or 0), json.dumps(feeds))


def _peak(program: str, *arguments: str) -> int | None:
    try:
        ended = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, check=False, timeout=_TIMEOUT_S
        )
        return int(ended.stdout.split()[-1]) * 1024 if ended.returncode == 0 else None
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired):
        return None
