"""Makes TFLite files in isolated toolchains: onnx2tf turns ONNX into float, ai-edge-quantizer turns float into int8."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from converters.compilers.job import Compiled, CompileJob
from converters.errors import BadModel, BadToolchain, CompileFailed
from converters.model.tflite_file import TfliteTensor, read_tflite
from converters.toolchains import need_installed
from edge_runtime.inference.environments.pinned import Installed
from edge_runtime.parent import end_with_parent

_QUANTISER: Final = Path(__file__).with_name("litert_quantiser.py")
_TO_NHWC: Final = (0, 2, 3, 1)
_NOISE: Final = re.compile(r"\x1b\[[0-9;]*m|\|[^|]*it/s[^|]*\]")
_SHOWN_LINES: Final = 2


def compile_job(job: CompileJob) -> Compiled:
    """Write `job.out`/model.tflite; inputs and outputs of an ONNX model are called input_0, …, output_0, … in it.

    Raises:
        CompileFailed: a toolchain is missing, or refuses the model.
    """
    try:
        return _compile(job)
    except (BadModel, BadToolchain) as error:
        because = f"{error.because}; {error.remedy}" if error.remedy else error.because
        raise CompileFailed("compile for LiteRT", because, error.remedy) from error


def _compile(job: CompileJob) -> Compiled:
    source, result = Path(job.model), Path(job.out) / "model.tflite"
    tools: list[str] = []
    float_file = source
    if source.suffix != ".tflite":
        float_file = _converted(job)
        tools.append("onnx2tf 2.6.9")
    if job.method.is_made_here:
        _quantise(job, float_file, result)
        tools.append("ai-edge-quantizer 0.10.0")
    else:
        result.write_bytes(float_file.read_bytes())
    return Compiled(files={"model": str(result)}, tool=", ".join(tools))


def _converted(job: CompileJob) -> Path:
    """The float TFLite file, which all candidates of a model share."""
    installed = need_installed("tflite")
    shared, made = Path(job.model).with_suffix(".tflite"), Path(job.out) / "onnx2tf"
    if not shared.exists():
        # Without being told, it turns every input of four axes to channels-last, pictures or not.
        kept = [name for name in job.sample_names if name not in job.channels_last]
        command = ["-i", job.model, "-o", str(made), "--non_verbose", "--verbosity", "error"]
        command += ["--keep_shape_absolutely_input_names", *kept] if kept else []
        _run(installed, ["-c", "from onnx2tf import main; main()", *command], "convert with onnx2tf")
        found = sorted(made.glob("*_float32.tflite"))
        if not found:
            raise CompileFailed("convert with onnx2tf", "it wrote no float file")
        # Renamed into place: another candidate may be making the same file.
        found[0].replace(shared)
    return shared


def _quantise(job: CompileJob, float_file: Path, result: Path) -> None:
    installed = need_installed("tflite-quant")
    if job.method.scheme == "static" and job.calibration is None:
        raise CompileFailed("quantise for LiteRT", "there is no calibration data", "write calibration.folder")
    graph = read_tflite(float_file).main
    order = Path(job.out) / "quantise.json"
    content = {
        "model": str(float_file),
        "out": str(result),
        "scheme": job.method.scheme,
        "dense_per_tensor": job.method.dense_per_tensor,
        "calibration": job.calibration,
        "feeds": [_feed(number, graph.tensors[index], job) for number, index in enumerate(graph.inputs)],
    }
    order.write_text(json.dumps(content), encoding="utf-8")
    _run(installed, [str(_QUANTISER), str(order)], "quantise with ai-edge-quantizer")
    made = read_tflite(result).main
    if not any(tensor.is_constant and tensor.dtype == "int8" for tensor in made.tensors):
        raise CompileFailed("quantise with ai-edge-quantizer", "it left every weight in float", "build without int8")


def _feed(number: int, tensor: TfliteTensor, job: CompileJob) -> dict[str, object]:
    """Which array of a sample goes into an input, in which order of axes, and its range where that is known."""
    return {
        "input": f"input_{number}",
        "tensor": tensor.name,
        "sample": job.sample_names.get(tensor.name, tensor.name),
        "axes": _TO_NHWC if tensor.name in job.channels_last else tuple(range(len(tensor.shape))),
        "range": job.full_ranges.get(tensor.name),
    }


def _run(installed: Installed, arguments: Sequence[str], what: str) -> None:
    """Run the toolchain's Python under this process's own limits; it ends when this process is killed."""
    finished = subprocess.run(
        [str(installed.python), *arguments],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**installed.environment(), "TMPDIR": os.environ.get("TMPDIR", "/tmp")},  # noqa: S108 (the system's own)
        preexec_fn=partial(end_with_parent, os.getpid()),
    )
    if finished.returncode < 0:
        because = f"it was killed by {signal.Signals(-finished.returncode).name}"
        raise CompileFailed(what, because) from subprocess.CalledProcessError(finished.returncode, installed.python)
    if finished.returncode != 0:
        said = (finished.stderr + b"\n" + finished.stdout).decode("utf-8", "replace").replace("\r", "\n")
        raise CompileFailed(what, _cause(said) or f"it ended with code {finished.returncode}")


def _cause(said: str) -> str:
    """The lines that say what went wrong, out of progress bars, colours and tracebacks."""
    lines = [_NOISE.sub("", line).strip() for line in said.splitlines()]
    told = [line for line in lines if re.match(r"(ERROR|\w*(Error|Exception))\b", line)]
    shown = told or [line for line in lines if line]
    return " / ".join(shown[-_SHOWN_LINES:])[:400]
