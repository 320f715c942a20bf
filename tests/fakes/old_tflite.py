"""An environment of tflite-runtime with another library in the wheel's place."""

from __future__ import annotations

import sys
from pathlib import Path

LITERT = "from ai_edge_litert.interpreter import Interpreter, OpResolverType, load_delegate\n"
"""The library of this environment."""


def write_old_tflite(folder: Path, library: str = LITERT) -> Path:
    """Leave an environment whose `tflite_runtime.interpreter` has this source; returns its interpreter."""
    package = folder / "tflite_runtime"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "interpreter.py").write_text(library)
    info = folder / "tflite_runtime-2.14.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tflite-runtime\nVersion: 2.14.0\n")
    program = folder / "python"
    # Without the isolation that hides the folder where the library lies.
    program.write_text(f'#!/bin/sh\nshift\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return program
