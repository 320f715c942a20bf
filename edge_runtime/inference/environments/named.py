"""Engines that live in Python environments of their own: the device's owner names one, their adapters find it.

What was named stands in a small file beside the environments, so that a service finds it as well as a shell.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from edge_runtime.contract.errors import InferenceError

TFLITE_RUNTIME: Final = "tflite-runtime"


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """The environment that an owner chose for an engine."""

    python: str
    """Absolute path of its interpreter."""


def engines_folder() -> Path:
    """Where environments are made and named: `EDGEFLEET_ENGINES`, else below the user's data folder.

    Source: XDG Base Directory Specification, `XDG_DATA_HOME`. Raises: RuntimeError for a user without home.
    """
    if chosen := os.environ.get("EDGEFLEET_ENGINES"):
        return Path(chosen)
    given = os.environ.get("XDG_DATA_HOME", "")
    base = Path(given) if given.startswith("/") else Path.home() / ".local" / "share"
    return base / "edgefleet" / "engines"


def named_python(engine: str) -> Path | None:
    """Interpreter of the environment that was named for an engine, whether or not it is still there; None: none was."""
    try:
        return Path(msgspec.json.decode(_file(engine).read_bytes(), type=Named).python)
    except (OSError, RuntimeError, msgspec.DecodeError):
        return None


def name_python(engine: str, python: Path) -> None:
    """Have an engine run in the environment of this interpreter from now on. Raises: InferenceError."""
    try:
        place = _file(engine)
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(Named(python=str(python.absolute()))))
        fresh.replace(place)
    except (OSError, RuntimeError) as error:
        raise InferenceError(f"name an environment for {engine}", str(error), "set EDGEFLEET_ENGINES") from error


def _file(engine: str) -> Path:
    return engines_folder() / f"{engine}.json"
