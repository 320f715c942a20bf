"""Python environments of their own for packages that cannot live in ours: made once, called as programs.

An environment is named by the digest of its pins, the version of its Python and the platform: a new edgefleet, a
changed Python or another machine that shares the folder never runs one by mistake that was not made for it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from edge_runtime.contract.digest import digest_of
from edge_runtime.contract.errors import EdgeError
from edge_runtime.inference.environments.last_words import last_words

INSTALL_TIMEOUT_S: Final = 1800.0
_PROBE_TIMEOUT_S: Final = 180.0
_STAMP: Final = "ready.json"
_DIGEST_LETTERS: Final = 12
_DIGEST: Final = re.compile(f"[0-9a-f]{{{_DIGEST_LETTERS}}}")
# Tells a 32-bit system on a 64-bit kernel, and musl from glibc, which the kernel's own name does not.
_PLATFORM: Final = sysconfig.get_config_var("MULTIARCH") or sysconfig.get_platform()

Progress = Callable[[str], None]
"""Told what happens."""


class CannotInstall(EdgeError):
    """An environment cannot be made."""

    default_code = "cannot_install"


@dataclass(frozen=True, slots=True)
class Pinned:
    """What an environment holds: exact pins of every package, installed without resolving anything."""

    name: str
    purpose: str
    pins: tuple[str, ...]
    made_for: tuple[int, int]
    """Python that its packages ask for; an older one from `oldest` on works too, though they deny it."""
    oldest: tuple[int, int]
    size_mb: int
    probe: str
    """Python statement that only a working environment survives."""

    def key(self, version: tuple[int, int]) -> str:
        """Name of its folder, for a Python of that version on this platform."""
        return f"{self.any_key}-cp{version[0]}{version[1]}-{_PLATFORM}"

    @property
    def any_key(self) -> str:
        """What the names of its folders begin with, whichever Python they are for."""
        return f"{self.name}-{digest_of(' '.join(self.pins).encode()).removeprefix('sha256:')[:_DIGEST_LETTERS]}"

    @property
    def versions(self) -> tuple[tuple[int, int], ...]:
        """Of Pythons for which one may be made here, best first."""
        ours = sys.version_info[:2]
        return tuple(dict.fromkeys((self.made_for, ours) if ours >= self.oldest else (self.made_for,)))


@dataclass(frozen=True, slots=True)
class Installed:
    """An environment that is ready to run."""

    pinned: Pinned
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
    python: tuple[int, int]
    program: str
    """What its interpreter led to when it was made."""


def find_installed(pinned: Pinned, parent: Path) -> Installed | None:
    """The ready environment below `parent`; None when there is none, or only unusable ones."""
    places = [Installed(pinned, parent / pinned.key(version)) for version in pinned.versions]
    return next((one for one in places if _flaw(one) is None), None)


def why_unusable(pinned: Pinned, parent: Path) -> str | None:
    """What is wrong with the environments below `parent`, in a sentence; None when there is none."""
    usable = {pinned.key(version) for version in pinned.versions}
    for folder in sorted(parent.glob(f"{pinned.any_key}-*")):
        flaw = _flaw(Installed(pinned, folder)) if folder.name in usable else "was made for another Python or machine"
        if flaw is not None:
            return f"the environment {folder} {flaw}"
    return None


def _flaw(installed: Installed) -> str | None:
    """Why it cannot be used; None when it is ready.

    An upgrade of the system takes its Python away, or puts another version in the same place.
    """
    try:
        stamp = msgspec.json.decode((installed.folder / _STAMP).read_bytes(), type=_Stamp)
    except (OSError, msgspec.DecodeError):
        return "is half-made"
    if not os.access(installed.python, os.X_OK):
        return f"has lost its Python ({stamp.program})"
    # Asked only where it leads elsewhere than before: starting a Python takes longer than all the rest.
    if os.path.realpath(installed.python) != stamp.program and _version_of(str(installed.python)) != stamp.python:
        return f"was made for Python {stamp.python[0]}.{stamp.python[1]}, and another is in its place"
    return None


def install(pinned: Pinned, what: str, parent: Path, progress: Progress) -> Installed:
    """Make the environment, unless one is ready already and works.

    Args:
        pinned: what it holds.
        what: this act, as an error names it ("install toolchain tflite").
        parent: folder of all environments, which exists.
        progress: told what happens.

    Raises:
        CannotInstall: no fitting Python, no package index, or a package that does not work here; nothing is left.
    """
    with _alone(parent / f"{pinned.any_key}.lock"):
        ready = find_installed(pinned, parent)
        if ready is not None and _works(ready):
            return ready
        found = find_python(pinned.made_for, pinned.oldest)
        if found is None:
            wanted = ".".join(map(str, pinned.made_for))
            raise CannotInstall(what, f"Python {wanted} is not installed", f"install Python {wanted}, with venv")
        python, version = found
        place = parent / pinned.key(version)
        shutil.rmtree(place, ignore_errors=True)
        try:
            _make(Installed(pinned, place), what, python, version, progress)
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
    return Installed(pinned, place)


def remove_old(pinned: Pinned, parent: Path, progress: Progress) -> None:
    """Remove what was made below `parent` when the digest of its pins was all that named an environment."""
    for folder in sorted(parent.glob(f"{pinned.name}-*")):
        if _DIGEST.fullmatch(folder.name.removeprefix(f"{pinned.name}-")) and folder.is_dir():
            progress(f"removing {folder}, which nothing uses any more")
            shutil.rmtree(folder, ignore_errors=True)


def _works(installed: Installed) -> bool:
    """Whether it survives its probe: whoever asks for an installation has no use for one that is ready and broken."""
    try:
        _run([str(installed.python), "-c", installed.pinned.probe], "", _PROBE_TIMEOUT_S, installed.environment())
    except CannotInstall:
        return False
    return True


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


def _make(installed: Installed, what: str, python: str, version: tuple[int, int], progress: Progress) -> None:
    pinned, place = installed.pinned, installed.folder
    uv = _find_uv()
    progress(f"making an environment of Python {version[0]}.{version[1]} ({pinned.size_mb} MB) in {place}")
    if uv is not None and version >= pinned.made_for:
        _run([uv, "venv", "--quiet", "--python", python, str(place)], what)
        progress(f"installing {len(pinned.pins)} packages with uv")
        _run([uv, "pip", "install", "--quiet", "--no-deps", "--python", str(installed.python), *pinned.pins], what)
    else:
        _run([python, "-m", "venv", str(place)], what)
        progress(f"installing {len(pinned.pins)} packages with pip")
        pip = [str(installed.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
        # Tried and found to work on the older Python: only the package's own declaration says otherwise.
        _run([*pip, "--no-deps", "--ignore-requires-python", *pinned.pins], what)
    progress("trying it")
    _run([str(installed.python), "-c", pinned.probe], what, _PROBE_TIMEOUT_S, installed.environment())
    stamp = _Stamp(pins=list(pinned.pins), python=version, program=os.path.realpath(installed.python))
    (place / _STAMP).write_bytes(msgspec.json.encode(stamp))


def _run(
    command: Sequence[str], what: str, timeout_s: float = INSTALL_TIMEOUT_S, environment: dict[str, str] | None = None
) -> None:
    try:
        finished = subprocess.run(
            command, capture_output=True, timeout=timeout_s, check=False, env=environment, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise CannotInstall(what, f"{command[0]} took longer than {timeout_s:.0f} s", "try again") from error
    except OSError as error:
        raise CannotInstall(what, f"{command[0]} does not start: {error.strerror}") from error
    if finished.returncode != 0:
        because = last_words(finished.stderr) or f"{command[0]} ended with code {finished.returncode}"
        raise CannotInstall(what, because, "check the network, the disk, and that Python has venv and pip")


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
