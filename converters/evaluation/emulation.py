"""Asks a variant on an instruction set that this machine does not have: QEMU's user mode runs the real engine there.

It tells accuracy, never latency.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from converters.data.answers import AnswerWriter, read_answers
from converters.evaluation.emulated import ANSWERED
from converters.planning.kernels import UNMEASURED, kernels_of, may_saturate
from converters.planning.recipe import EngineName
from edge_runtime.contract.codec import encode
from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.evidence import Where
from edge_runtime.contract.release import ReleaseManifest, VariantManifest
from edge_runtime.inference.backend import Array, Tensors

EXECUTION: Final = "emulated:qemu-user"
TIMEOUT_S: Final = 900.0
PROBE_TIMEOUT_S: Final = 60.0
_AVX2: Final = ("avx", "avx2", "fma")
_REPORT_LINES: Final = 2


@dataclass(frozen=True, slots=True)
class Emulator:
    """Another instruction set, and how to start a Python of its own there."""

    arch: str
    isa: tuple[str, ...]
    command: tuple[str, ...]
    engines: tuple[EngineName, ...] = ("onnxruntime", "openvino", "litert")
    """Engines that can be asked there."""
    installed: tuple[str, ...] = ()
    """Distributions of a Python of its own, with their versions; empty where it is this one."""

    @property
    def kernels(self) -> str:
        """Kind of its 8-bit kernels."""
        return kernels_of(self.arch, self.isa)

    @property
    def is_narrow(self) -> bool:
        """Whether its 8-bit kernels may saturate."""
        return may_saturate(self.arch, self.isa)

    def where(self, machine: Where) -> Where:
        """Where answers were given that it gave on a machine."""
        isa, cpu = list(self.isa), self.kernels
        return msgspec.structs.replace(machine, arch=self.arch, isa=isa, cpu=cpu, execution=EXECUTION)


@dataclass(frozen=True, slots=True)
class Subject:
    """A variant that is asked."""

    release: ReleaseManifest
    variant: VariantManifest
    files: Mapping[str, bytes]
    """By role."""


def list_emulators(
    arch: str, isa: Collection[str], which: Callable[[str], str | None], *, aarch64_root: Path | None
) -> tuple[Emulator, ...]:
    """What might be emulated on a machine, by the programs that are there; empty without QEMU's user mode.

    Args:
        arch: of this machine.
        isa: of this machine.
        which: finds a program.
        aarch64_root: root file system with an aarch64 Python that has numpy, msgspec, Pillow and onnxruntime; see
            docs/how-to/why-is-my-int8-model-worse-or-slower.md.
    """
    found: list[Emulator] = []
    program = which("qemu-x86_64") or which("qemu-x86_64-static")
    if program and arch == "x86_64" and not may_saturate(arch, isa):
        # The newest CPU without VNNI that QEMU knows by name and emulates whole.
        found.append(Emulator("x86_64", _AVX2, (program, "-cpu", "Haswell", sys.executable)))
    program = which("qemu-aarch64") or which("qemu-aarch64-static")
    if program and arch != "aarch64" and aarch64_root is not None:
        python = next(iter(sorted(aarch64_root.glob("usr/bin/python3*"))), aarch64_root / "usr" / "bin" / "python3")
        command = (program, "-cpu", "cortex-a76", "-L", str(aarch64_root), str(python))
        neon = ("asimd", "asimddp", "asimdhp")
        found.append(Emulator("aarch64", neon, command, ("onnxruntime",), _installed_in(aarch64_root)))
    return tuple(found)


def try_emulator(emulator: Emulator) -> None:
    """Start its Python and import what is needed there. Raises: InferenceError, code `unmeasured`."""
    engines = "onnxruntime" if emulator.arch == "aarch64" else "sys"
    command = [*emulator.command, "-c", f"import msgspec, numpy, {engines}"]
    what = f"start Python on {emulator.kernels}"
    try:
        finished = subprocess.run(command, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InferenceError(what, str(error)[:200], code=UNMEASURED) from error
    if finished.returncode != 0:
        raise InferenceError(what, _cause(finished.returncode, finished.stderr), code=UNMEASURED)


def answer_elsewhere(
    emulator: Emulator,
    subject: Subject,
    questions: Iterable[Tensors],
    folder: Path,
    told: Callable[[int], None] = lambda _: None,
) -> Iterator[dict[str, Array]]:
    """A variant's canonical output tensors for each question (inputs after `decode`), in order.

    Args:
        emulator: where it runs.
        subject: what is asked.
        questions: inputs after `decode`.
        folder: where questions and answers are kept while the answers are read.
        told: how many are answered, after each.

    Raises:
        InferenceError: code `unmeasured`; the emulated engine did not come up, failed, or took too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "release.json").write_bytes(encode(subject.release))
    (folder / "variant.json").write_bytes(encode(subject.variant))
    for role, content in subject.files.items():
        (folder / f"role-{role}").write_bytes(content)
    with AnswerWriter(folder / "questions") as written:
        for question in questions:
            written.append(question)
    # A process that is ended from outside leaves what it put into the temporary folder.
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [*emulator.command, "-m", "converters.evaluation.emulated", str(folder)]
    what = f"ask {subject.variant.id} on {emulator.kernels}"
    try:
        code, said = _run(command, environment, folder / "said", told)
    except OSError as error:
        raise InferenceError(what, str(error)[:200], code=UNMEASURED) from error
    if code is None:
        raise InferenceError(what, f"it took longer than {TIMEOUT_S:.0f} seconds", code=UNMEASURED)
    if code != 0:
        raise InferenceError(what, _cause(code, said), code=UNMEASURED)
    return read_answers(folder / "answers")


def _run(
    command: list[str], environment: Mapping[str, str], said: Path, told: Callable[[int], None]
) -> tuple[int | None, bytes]:
    """How the process ended, None where its time was over, and what it complained of."""
    answered, line = 0, ANSWERED.encode()
    with said.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
        is_over = threading.Event()
        # No line may ever come, so the clock is another thread's.
        limit = threading.Timer(TIMEOUT_S, _end, (process, is_over))
        limit.start()
        with process:
            try:
                for printed in process.stdout or ():
                    if printed.strip() == line:
                        answered += 1
                        told(answered)
                code = process.wait()
            except BaseException:
                process.kill()
                raise
            finally:
                limit.cancel()
    return None if is_over.is_set() else code, said.read_bytes()


def _end(process: subprocess.Popen[bytes], is_over: threading.Event) -> None:
    is_over.set()
    process.kill()


def _installed_in(root: Path) -> tuple[str, ...]:
    """Read from the files: starting a Python there takes seconds."""
    places = [str(place) for base in ("usr", "usr/local") for place in root.glob(f"{base}/lib/python3*/*-packages")]
    return tuple(sorted({f"{one.name} {one.version}" for one in metadata.distributions(path=places)}))


def _cause(code: int, complaint: bytes) -> str:
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    said = [line for line in lines if "TCG doesn't support" not in line]
    return " / ".join(said[-_REPORT_LINES:]) or f"it ended with code {code}"
