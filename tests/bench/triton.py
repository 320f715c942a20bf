"""A real Triton server beside ours: the one that nvidia-pytriton's wheel carries, with the Python backend.

It has no other backend, so the model runs in onnxruntime inside that one; Triton's own ONNX Runtime backend would save
it a copy between two of its processes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import create_server

from tests.fakes.probe import SHAPE, probe_onnx
from tests.fakes.processes import begin

PACKAGES = ("nvidia-pytriton==0.7.0", "onnxruntime==1.32.0", "numpy")
HOME = Path(sys.prefix) / "bench-triton"
"""An environment of its own inside ours: `make clean` takes it along. Some 450 MB, installed once."""

_INSTALL_TIMEOUT_S = 600.0
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 8.0
_SHARED = Path("/dev/shm")
_CONFIG = f"""
name: "probe"
backend: "python"
max_batch_size: 0
input [{{ name: "x" data_type: TYPE_FP32 dims: [{", ".join(map(str, SHAPE))}] }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: [1, 3] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""
_MODEL = """
import os
import onnxruntime
import triton_python_backend_utils as backend

class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = os.path.join(os.path.dirname(__file__), "probe.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = backend.get_input_tensor_by_name(request, "x").as_numpy()
        (mean,) = self.session.run(None, {"x": given})
        return backend.InferenceResponse([backend.Tensor("y", mean)])
"""


class NoTriton(Exception):
    """Why there is no Triton server to measure."""


@dataclass(frozen=True)
class Triton:
    """Where it listens."""

    grpc: str
    http: str


@contextmanager
def running(folder: Path) -> Iterator[Triton]:
    """A Triton server with the probe; leaves no process and no shared memory behind. Raises: NoTriton."""
    packages = _installed()
    triton = Triton(*(f"127.0.0.1:{port}" for port in _free_ports()))
    command = _command(packages / "pytriton" / "tritonserver", folder, triton)
    log = folder / "triton.log"
    before = _segments()
    environment = {
        "LD_LIBRARY_PATH": packages / "nvidia_pytriton.libs",
        "PYTHONPATH": packages,
        "PATH": f"{HOME / 'bin'}:{os.environ.get('PATH', '')}",
    }
    process = begin(["env", *(f"{name}={value}" for name, value in environment.items()), *command], log)
    try:
        _wait_until_ready(process, triton, log)
        yield triton
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # A server that was killed leaves its backend's segments behind.
        for segment in _segments() - before:
            segment.unlink(missing_ok=True)


def _installed() -> Path:
    """Where its packages lie, installed now if they are not."""
    stamp = HOME / "stamp"
    if not stamp.is_file():
        shutil.rmtree(HOME, ignore_errors=True)
        sys.stderr.write(f"installing {PACKAGES[0]} into {HOME} (once) ...\n")
        try:
            for command in (
                [sys.executable, "-m", "venv", str(HOME)],
                [str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", *PACKAGES],
            ):
                subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_TIMEOUT_S)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or b""
            last = said.decode(errors="replace").strip().splitlines()[-1:] or [str(error)]
            raise NoTriton(f"{PACKAGES[0]} cannot be installed ({last[0][:200]})") from error
        stamp.touch()
    found = next(HOME.glob("lib/python*/site-packages/pytriton/tritonserver/bin/tritonserver"), None)
    if found is None:
        raise NoTriton(f"{PACKAGES[0]} brought no tritonserver")
    return found.parents[3]


def _command(home: Path, folder: Path, triton: Triton) -> list[str]:
    version = folder / "repository" / "probe" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(_CONFIG)
    (version / "model.py").write_text(_MODEL)
    (version / "probe.onnx").write_bytes(probe_onnx())
    backends = folder / "backends" / "python"
    backends.mkdir(parents=True)
    for file in (home / "backends" / "python").iterdir():
        (backends / file.name).symlink_to(file)
    # The stub must lie beside the backend, in the build for this Python.
    stub = home / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}" / "triton_python_backend_stub"
    if not stub.is_file():
        raise NoTriton(f"its Python backend has no build for Python {sys.version_info[0]}.{sys.version_info[1]}")
    (backends / stub.name).symlink_to(stub)
    options = {
        "model-repository": folder / "repository",
        "backend-directory": folder / "backends",
        "cache-directory": home / "caches",
        "allow-metrics": "false",
        "grpc-address": "127.0.0.1",
        "http-address": "127.0.0.1",
        "grpc-port": triton.grpc.rpartition(":")[2],
        "http-port": triton.http.rpartition(":")[2],
    }
    return [str(home / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in options.items())]


def _wait_until_ready(process: subprocess.Popen[bytes], triton: Triton, log: Path) -> None:
    import tritonclient.grpc

    ends = time.monotonic() + _START_TIMEOUT_S
    with tritonclient.grpc.InferenceServerClient(triton.grpc) as client:
        while process.poll() is None and time.monotonic() < ends:
            try:
                if client.is_model_ready("probe"):
                    return
            except tritonclient.grpc.InferenceServerException:
                pass
            time.sleep(0.2)
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or [""]
    raise NoTriton(f"it does not start ({last[0][:200]})")


def _free_ports() -> list[int]:
    # It cannot be asked to choose: nobody else takes a port that was free a moment ago, most likely.
    with create_server(("127.0.0.1", 0)) as one, create_server(("127.0.0.1", 0)) as other:
        return [one.getsockname()[1], other.getsockname()[1]]


def _segments() -> set[Path]:
    return set(_SHARED.glob("triton_python_backend_shm_region_*"))
