"""A real engine behind an accelerator that fails on demand: at load, in mid-run, or by never coming back."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edge_runtime.contract.device_profile import DeviceFacts, EngineFact
from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.reasons import LOAD_FAILED
from edge_runtime.contract.release import VariantManifest
from edge_runtime.inference.backend import BackendOptions, Files, Session, Tensors
from edge_runtime.inference.backends.onnxruntime import OnnxRuntimeBackend
from edge_runtime.inference.facts import engines, machine_facts

ACCELERATOR = "test-accelerator"
ENGINE = "accelerated"
FAULT_FILE = "EDGEFLEET_TEST_FAULT"
"""Environment variable that names the file of `FileFaultyBackend`."""


@dataclass
class Faults:
    """What goes wrong from now on; a test changes it while the model is served."""

    at_open: Exception | None = None
    at_run: Exception | None = None
    runs: int = 0
    opened: int = 0
    blocks_open: threading.Event | None = None
    """Loading waits for it."""
    blocks: threading.Event | None = None
    """Runs wait for it."""
    running: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released as each run begins."""
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released as each session is closed."""


class FaultyBackend:
    """ONNX Runtime under another name, with faults; the answers are the real engine's."""

    def __init__(self, faults: Faults, name: str = ENGINE) -> None:
        self.name = name
        self.faults = faults
        self._real = OnnxRuntimeBackend()

    def probe(self) -> EngineFact | None:
        fact = self._real.probe()
        return None if fact is None else msgspec.structs.replace(fact, name=self.name)

    def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
        self.faults.opened += 1
        if self.faults.blocks_open is not None:
            self.faults.blocks_open.wait(60)
        if self.faults.at_open is not None:
            raise self.faults.at_open
        return FaultySession(self._real.open(files, manifest, options), self.faults)


class FaultySession:
    """A real session whose runs fail or wait as the faults say."""

    def __init__(self, real: Session, faults: Faults) -> None:
        self._real = real
        self._faults = faults
        self.inputs = real.inputs
        self.outputs = real.outputs

    def run(self, inputs: Tensors) -> dict[str, Any]:
        self._faults.runs += 1
        self._faults.running.release()
        if self._faults.blocks is not None:
            self._faults.blocks.wait(60)
        if self._faults.at_run is not None:
            raise self._faults.at_run
        return self._real.run(inputs)

    def close(self) -> None:
        self._real.close()
        self._faults.closed.release()


class FileFaultyBackend(FaultyBackend):
    """The same in another process, where a file says what goes wrong, `hang` or `crash` for example."""

    def __init__(self) -> None:
        super().__init__(Faults())

    def open(self, files: Files, manifest: VariantManifest, options: BackendOptions) -> Session:
        match _wanted_fault():
            case "load":
                raise InferenceError("load the delegate", "no device was found", code=LOAD_FAILED)
            case "hang at load":
                _hang()
        return _FileFaultySession(self._real.open(files, manifest, options), self.faults)


class _FileFaultySession(FaultySession):
    def run(self, inputs: Tensors) -> dict[str, Any]:
        match _wanted_fault():
            case "run":
                raise RuntimeError("the accelerator was unplugged")
            case "hang":
                _hang()
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
        return super().run(inputs)


def _wanted_fault() -> str:
    return Path(os.environ[FAULT_FILE]).read_text().strip()


def _hang() -> None:
    """As a driver that waits for its device: in native code, deaf to everything but SIGKILL, with the GIL held."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.PyDLL(None).sleep(3600)


def accelerated_facts() -> DeviceFacts:
    """This machine, with the accelerator and its engine besides."""
    real = engines(["onnxruntime"])
    fake = [msgspec.structs.replace(fact, name=ENGINE) for fact in real]
    return msgspec.structs.replace(machine_facts([*real, *fake]), accelerators=[ACCELERATOR])
