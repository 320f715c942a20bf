"""Peak memory of a process that answers with a variant, and of one that calls only its engine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edge_runtime.inference.requests.lease import buffer_shapes

if TYPE_CHECKING:
    from edge_runtime.inference.model import Model
    from edge_runtime.tuning.target import Target

_TIMEOUT_S: Final = 120.0
_PEAK: Final = "print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0].split()[1])"

_OURS: Final = """
import json, os, sys
from pathlib import Path
from edge_runtime.installed import open_installed
path, slot, variant, wishes = Path(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
if wishes["tuned"]:
    wishes["tuned"] = Path(wishes["tuned"])
if slot:
    model = open_installed(path, slot, **wishes)
else:
    from edge_runtime import Model
    model = Model.open(path, variant=variant, **wishes)
model.warm_up(3)
def status(pid):
    try:
        return dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except OSError:  # it has ended meanwhile
        return {}
def peak(told):
    return int(told.get("VmHWM", "0 kB").split()[0])
everybody = [status(name) for name in os.listdir("/proc") if name.isdigit()]
workers = [one for one in everybody if one.get("PPid", "").strip() == str(os.getpid())]
print(sum(map(peak, workers)), peak(status("self")))
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
    """With the engine's own processes."""
    workers: int = 0
    """Of that, in the engine's own processes."""
    bare: int | None
    """None where nobody wrote the plain script for this engine."""


def measure_footprint(
    target: Target, model: Model, backends: Collection[str] | None, tuned: Path | None
) -> Footprint | None:
    """Peak memory of both; None when our process did not get through.

    Args:
        target: what is measured.
        model: it, open.
        backends: engines that it was allowed; None: all.
        tuned: folder from which it took what was tuned.
    """
    wishes = {"threads": model.threads, "backends": backends and sorted(backends), "tuned": tuned and str(tuned)}
    told = _told(_OURS, str(target.path), target.slot or "", model.variant_id, json.dumps(wishes))
    if told is None or len(told) != 2:
        return None
    workers, own = told
    # No plain script of ours calls an engine that lives in another environment.
    return Footprint(ours=workers + own, workers=workers, bare=None if workers else _bare_peak(target, model))


def _bare_peak(target: Target, model: Model) -> int | None:
    program = _BARE.get(model.variant.manifest.target.engine)
    if program is None or model.predictor.sequencer is not None:
        return None
    shapes = buffer_shapes(model.predictor, {})
    feeds = {info.name: (shapes[info.name], info.dtype) for info in model.predictor.file_inputs.values()}
    path = target.source.path_of(next(file.digest for file in model.variant.manifest.files if file.role == "model"))
    told = _told(program, str(path), str(model.threads or 0), json.dumps(feeds))
    return None if told is None else told[0]


def _told(program: str, *arguments: str) -> list[int] | None:
    """The bytes that a program says at its end; None when it did not get there."""
    try:
        ended = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, check=True, timeout=_TIMEOUT_S
        )
        return [int(word) * 1024 for word in ended.stdout.splitlines()[-1].split()]
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None
