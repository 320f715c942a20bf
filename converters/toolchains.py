"""Tools whose pins contradict each other or ours: each in a virtual environment of its own, called as a program.

An environment is named by the digest of its pins, so a new version of edgefleet never runs an old one by mistake.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from converters.errors import BadToolchain
from edge_runtime.contract.digest import digest_of

INSTALL_TIMEOUT_S: Final = 1800.0
_PROBE_TIMEOUT_S: Final = 180.0
_STAMP: Final = "ready.json"
_SHOWN_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class Toolchain:
    """One isolated environment: exact pins of every package, installed without resolving anything."""

    name: str
    purpose: str
    pins: tuple[str, ...]
    made_for: tuple[int, int]
    """Python that its packages ask for; an older one from `oldest` on works too, though they deny it."""
    oldest: tuple[int, int]
    size_mb: int
    probe: str
    """Python statement that only a working environment survives."""

    @property
    def key(self) -> str:
        """Name of its folder."""
        return f"{self.name}-{digest_of(' '.join(self.pins).encode()).removeprefix('sha256:')[:12]}"


@dataclass(frozen=True, slots=True)
class Installed:
    """A toolchain that is ready to run."""

    toolchain: Toolchain
    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def environment(self) -> dict[str, str]:
        """Variables to run it with: its programs first (it calls some by name), and no packages of ours."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        path = os.pathsep.join([str(self.folder / "bin"), kept.get("PATH", "")])
        return {**kept, "PATH": path, "VIRTUAL_ENV": str(self.folder)}


class _Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """Written last: an environment without it is half-made."""

    pins: list[str]
    python: str


# onnx2tf converts into the flatbuffer itself, without TensorFlow, from 2.x on. It pins nearly all of what it imports.
_TFLITE: Final = Toolchain(
    name="tflite",
    purpose="ONNX to TensorFlow Lite in float (onnx2tf, without TensorFlow)",
    pins=(
        "onnx2tf==2.6.9", "ai-edge-litert==2.1.2", "backports-strenum==1.3.1", "flatbuffers==25.12.19", "h5py==3.14.0",
        "markdown-it-py==4.0.0", "mdurl==0.1.2", "ml-dtypes==0.5.4", "mpmath==1.3.0", "numpy==2.2.6", "onnx==1.20.1",
        "onnx-ir==0.1.15", "onnxoptimizer==0.4.2", "onnxruntime==1.26.0", "onnxscript==0.6.2", "onnxsim==0.6.5",
        "opencv-python-headless==4.13.0.92", "packaging==25.0", "protobuf==7.35.1", "psutil==5.9.5", "pygments==2.19.2",
        "rich==14.2.0", "sne4onnx==2.0.1", "sng4onnx==2.0.1", "sympy==1.14.0", "tqdm==4.67.1",
        "typing-extensions==4.15.0",
    ),
    made_for=(3, 12),
    oldest=(3, 11),
    size_mb=640,
    probe="import onnx2tf, onnxsim, onnxruntime",
)  # fmt: skip
_TFLITE_QUANT: Final = Toolchain(
    name="tflite-quant",
    purpose="TensorFlow Lite in float to int8 (ai-edge-quantizer)",
    pins=(
        "ai-edge-quantizer==0.10.0", "absl-py==2.3.1", "ai-edge-litert==2.3.0", "backports-strenum==1.3.1",
        "flatbuffers==25.12.19", "immutabledict==4.2.2", "ml-dtypes==0.5.4", "numpy==2.2.6", "protobuf==7.35.1",
        "scipy==1.16.3", "tqdm==4.67.1", "typing-extensions==4.15.0",
    ),
    made_for=(3, 11),
    oldest=(3, 11),
    size_mb=260,
    probe="from ai_edge_quantizer import quantizer, recipe",
)  # fmt: skip

TOOLCHAINS: Final[Mapping[str, Toolchain]] = {one.name: one for one in (_TFLITE, _TFLITE_QUANT)}
"""Every toolchain by the name that `edge-convert toolchain install` takes."""

Progress = Callable[[str], None]


def toolchain_named(name: str) -> Toolchain:
    """The toolchain of that name. Raises: BadToolchain."""
    if name not in TOOLCHAINS:
        raise BadToolchain(f"use toolchain {name}", "there is none of that name", f"use {', '.join(TOOLCHAINS)}")
    return TOOLCHAINS[name]


def toolchains_folder() -> Path:
    """Where environments live: `EDGEFLEET_TOOLCHAINS`, else below the user's cache folder."""
    if chosen := os.environ.get("EDGEFLEET_TOOLCHAINS"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgefleet" / "toolchains"


def find_installed(toolchain: Toolchain, folder: Path | None = None) -> Installed | None:
    """The ready environment of a toolchain; None when there is none, or only a half-made one."""
    place = (folder or toolchains_folder()) / toolchain.key
    return Installed(toolchain, place) if (place / _STAMP).is_file() else None


def need_installed(name: str) -> Installed:
    """A toolchain that must be there. Raises: BadToolchain with the command that installs it."""
    installed = find_installed(toolchain_named(name))
    if installed is None:
        remedy = f"edge-convert toolchain install {name}"
        raise BadToolchain(f"use toolchain {name}", "it is not installed", remedy)
    return installed


def install(toolchain: Toolchain, progress: Progress, folder: Path | None = None) -> Installed:
    """Make the environment, unless it is ready already.

    Args:
        toolchain: which.
        progress: told what happens.
        folder: parent of all environments; None: `toolchains_folder()`.

    Raises:
        BadToolchain: no fitting Python, no package index, or a package that does not work here; nothing is left behind.
    """
    parent = folder or toolchains_folder()
    place = parent / toolchain.key
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadToolchain(f"write to {parent}", error.strerror or str(error), "set EDGEFLEET_TOOLCHAINS") from error
    with _alone(parent / f"{toolchain.key}.lock"):
        if (ready := find_installed(toolchain, parent)) is not None:
            return ready
        shutil.rmtree(place, ignore_errors=True)
        try:
            _make(toolchain, place, progress)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
    return Installed(toolchain, place)


def find_python(made_for: tuple[int, int], oldest: tuple[int, int]) -> tuple[str, tuple[int, int]] | None:
    """The interpreter that suits best, with its version: exactly the wanted one before ours; None when ours is too old.

    A program called python3.12 may be a version manager's stub, so each is asked.
    """
    ours = sys.version_info[:2]
    if ours != made_for:
        name = f"python{made_for[0]}.{made_for[1]}"
        found = shutil.which(name)
        if found and _version_of(found) == made_for:
            return found, made_for
    return (sys.executable, ours) if ours >= oldest else None


def _make(toolchain: Toolchain, place: Path, progress: Progress) -> None:
    what = f"install toolchain {toolchain.name}"
    found = find_python(toolchain.made_for, toolchain.oldest)
    if found is None:
        wanted = ".".join(map(str, toolchain.made_for))
        raise BadToolchain(what, f"Python {wanted} is not installed", f"install Python {wanted}, with venv")
    python, version = found
    installed = Installed(toolchain, place)
    uv = _find_uv()
    progress(f"making an environment of Python {version[0]}.{version[1]} ({toolchain.size_mb} MB) in {place}")
    if uv is not None and version >= toolchain.made_for:
        _run([uv, "venv", "--quiet", "--python", python, str(place)], what)
        progress(f"installing {len(toolchain.pins)} packages with uv")
        _run([uv, "pip", "install", "--quiet", "--no-deps", "--python", str(installed.python), *toolchain.pins], what)
    else:
        _run([python, "-m", "venv", str(place)], what)
        progress(f"installing {len(toolchain.pins)} packages with pip")
        pip = [str(installed.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        # Tried and found to work on the older Python: only the package's own declaration says otherwise.
        _run([*pip, "--no-deps", "--ignore-requires-python", *toolchain.pins], what)
    progress("trying it")
    _run([str(installed.python), "-c", toolchain.probe], what, _PROBE_TIMEOUT_S, installed.environment())
    stamp = _Stamp(pins=list(toolchain.pins), python=".".join(map(str, version)))
    (place / _STAMP).write_bytes(msgspec.json.encode(stamp))


def _run(
    command: Sequence[str], what: str, timeout_s: float = INSTALL_TIMEOUT_S, environment: dict[str, str] | None = None
) -> None:
    try:
        finished = subprocess.run(
            command, capture_output=True, timeout=timeout_s, check=False, env=environment, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise BadToolchain(what, f"{command[0]} took longer than {timeout_s:.0f} s", "try again") from error
    except OSError as error:
        raise BadToolchain(what, f"{command[0]} does not start: {error.strerror}") from error
    if finished.returncode != 0:
        lines = [line.strip() for line in finished.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
        because = " / ".join(lines[-_SHOWN_LINES:]) or f"{command[0]} ended with code {finished.returncode}"
        raise BadToolchain(what, because[:400], "check the network, the disk, and that Python has venv and pip")


def _find_uv() -> str | None:
    return shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def _version_of(python: str) -> tuple[int, int] | None:
    command = [python, "-c", "import sys, venv; print(*sys.version_info[:2])"]
    try:
        said = subprocess.run(command, capture_output=True, timeout=_PROBE_TIMEOUT_S, check=True, text=True).stdout
        major, minor = said.split()
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return int(major), int(minor)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two installations of one toolchain at once would delete each other's files."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
