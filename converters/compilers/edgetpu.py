"""Drives Coral's edgetpu_compiler where it is installed, and reads what it says; it exists for x86-64 Linux only.

Its log is its only interface. Source of the wording: Coral, "Edge TPU Compiler", and logs quoted in issues of
google-coral/edgetpu.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from converters.errors import CompileFailed

COMPILER: Final = "edgetpu_compiler"
MAPPED: Final = "Mapped to Edge TPU"
_ARCH: Final = "x86_64"
_WHAT: Final = "compile for the Edge TPU"
_UNITS: Final = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_ROW: Final = re.compile(r"^(?P<kind>\w[\w-]*)\s+(?P<count>\d+)\s+(?P<status>\S.*?)\s*$", re.MULTILINE)
# What ends a compilation, and what to do; looked for in this order.
_FATAL: Final = (
    (r"Model not quantized", "quantise inputs, outputs and every operator to 8 bits"),
    (r"no_integer_overflow_from_quantization was not true", "a bias does not fit: calibrate with more examples"),
    (r"only supports static-sized tensors with a graph that has dynamic-sized tensors", "fix every size of the model"),
    (r"Didn't find op for builtin opcode '\w+' version '\d+'", "convert again: that operator is too new for it"),
    (r"large activation tensors", "make the input smaller"),
    (r"Internal compiler error", "leave out the operators that preflight doubts, or compile with -n 2"),
    (r"Invalid model", "check the file with edge-convert check"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the operators of one kind went, in the compiler's words."""

    kind: str
    count: int
    status: str


@dataclass(frozen=True, slots=True)
class EdgeTpuLog:
    """What a successful compilation said."""

    version: str
    mapped: int
    unmapped: int
    on_chip_bytes: int
    """Of parameters kept on the chip."""
    off_chip_bytes: int
    """Of parameters sent to it at every call."""
    placements: tuple[Placement, ...]

    @property
    def left_out(self) -> tuple[Placement, ...]:
        """What stays on the CPU, with the reason."""
        return tuple(one for one in self.placements if one.status != MAPPED)


def find_compiler() -> Path | None:
    """The compiler on this machine's PATH; None where there is none, or the machine is no 64-bit x86."""
    found = shutil.which(COMPILER) if platform.machine() == _ARCH else None
    return Path(found) if found else None


def compile_for_edgetpu(content: bytes, compiler: Path, *, timeout_s: float) -> tuple[bytes, EdgeTpuLog]:
    """The compiled file, and what the compiler said.

    Args:
        content: a full-integer TFLite file.
        compiler: `find_compiler()`.
        timeout_s: limit, also for its own watchdog.

    Raises:
        CompileFailed: it refuses the model, crashes, or takes too long.
    """
    with TemporaryDirectory(prefix="edge-convert-edgetpu-") as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(content)
        command = [str(compiler), "-s", "-t", str(int(timeout_s)), "-o", str(folder), str(folder / "model.tflite")]
        try:
            finished = subprocess.run(
                command, capture_output=True, timeout=timeout_s + 30, check=False, stdin=subprocess.DEVNULL, cwd=folder
            )
        except subprocess.TimeoutExpired as error:
            raise CompileFailed(_WHAT, f"it took longer than {timeout_s:.0f} s", "raise --compile-timeout-s") from error
        except OSError as error:
            raise CompileFailed(_WHAT, f"{compiler} does not start: {error.strerror}") from error
        said = (finished.stdout + b"\n" + finished.stderr).decode("utf-8", "replace")
        log = parse_log(said)
        made = folder / "model_edgetpu.tflite"
        if finished.returncode != 0 or not made.is_file():
            raise CompileFailed(_WHAT, f"{COMPILER} ended with code {finished.returncode} and no file")
        return made.read_bytes(), log


def parse_log(said: str) -> EdgeTpuLog:
    """Read what the compiler printed. Raises: CompileFailed with its reason, and what to do about it."""
    for pattern, remedy in _FATAL:
        if (found := re.search(rf"^.*{pattern}.*$", said, re.MULTILINE)) is not None:
            raise CompileFailed(_WHAT, found.group().strip().removeprefix("ERROR: ")[:300], remedy)
    if "compiled successfully" not in said:
        told = [line.strip() for line in said.splitlines() if line.strip()]
        because = next((line for line in told if "failed" in line.lower()), told[-1] if told else "it said nothing")
        raise CompileFailed(_WHAT, because[:300])
    placements = tuple(
        Placement(row["kind"], int(row["count"]), row["status"]) for row in _ROW.finditer(_after_heading(said))
    )
    total = _number(said, r"Total number of operations: (\d+)")
    mapped = _number(said, r"Number of operations that will run on Edge TPU: (\d+)", total)
    return EdgeTpuLog(
        version=_text(said, r"Edge TPU Compiler version (\S+)"),
        mapped=mapped,
        unmapped=_number(said, r"Number of operations that will run on CPU: (\d+)", total - mapped),
        on_chip_bytes=_bytes(said, r"On-chip memory used for caching model parameters"),
        off_chip_bytes=_bytes(said, r"Off-chip memory used for streaming uncached model parameters"),
        placements=placements,
    )


def _after_heading(said: str) -> str:
    return said.partition("Operator ")[2].partition("\n")[2]


def _text(said: str, pattern: str) -> str:
    found = re.search(pattern, said)
    return found.group(1) if found else "unknown"


def _number(said: str, pattern: str, otherwise: int = 0) -> int:
    found = re.search(pattern, said)
    return int(found.group(1)) if found else otherwise


def _bytes(said: str, what: str) -> int:
    found = re.search(rf"{what}: ([\d.]+)\s?(B|KiB|MiB|GiB)\b", said)
    return round(float(found.group(1)) * _UNITS[found.group(2)]) if found else 0
