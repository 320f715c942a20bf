"""Makes or takes the Python environment of an engine that cannot live in ours, and names it once a model ran in it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge_runtime.contract.device_profile import EngineFact
from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import shown
from edge_runtime.inference.backends.tflite_runtime import TfliteRuntimeBackend
from edge_runtime.inference.environments.named import TFLITE_RUNTIME, engines_folder, name_python, named_python
from edge_runtime.inference.environments.pinned import Pinned, Progress, install, remove_old

# The last version of the wheel, built for Python 3.8 to 3.11 and numpy 1, whose own last version begins with 3.9.
_TFLITE_RUNTIME: Final = Pinned(
    name=TFLITE_RUNTIME,
    purpose="TensorFlow Lite before LiteRT, for boards whose delegates were built for it",
    pins=("tflite-runtime==2.14.0", "numpy==1.26.4"),
    made_for=(3, 11),
    oldest=(3, 9),
    size_mb=110,
    probe="import tflite_runtime.interpreter",
)


def install_engine(name: str, python: Path | None, progress: Progress) -> tuple[Path, EngineFact]:
    """Have an engine run in an environment of its own from now on.

    Args:
        name: of the engine, as its package is called.
        python: interpreter of an environment that has it; None: one is made.
        progress: told what happens.

    Returns:
        The interpreter, and what was found by running a model with it.

    Raises:
        InferenceError: there is no such engine, or it does not run there.
        CannotInstall: no environment can be made.
    """
    if name != TFLITE_RUNTIME:
        because = "no engine of that name needs an environment of its own"
        raise InferenceError(f"install engine {shown(name)}", because, f"use {TFLITE_RUNTIME}")
    chosen = python or _made(progress)
    fact = TfliteRuntimeBackend().tried(chosen)
    name_python(name, chosen)
    if python is None:
        remove_old(_TFLITE_RUNTIME, engines_folder(), progress)
    return chosen, fact


def why_broken() -> InferenceError | None:
    """What is wrong with the environment that is named; None where it works, or none is."""
    python = named_python(TFLITE_RUNTIME)
    try:
        if python is not None:
            TfliteRuntimeBackend().tried(python)
    except InferenceError as error:
        return error
    return None


def _made(progress: Progress) -> Path:
    try:
        parent = engines_folder()
        parent.mkdir(parents=True, exist_ok=True)
        return install(_TFLITE_RUNTIME, f"install engine {TFLITE_RUNTIME}", parent, progress).python
    except (OSError, RuntimeError) as error:
        raise InferenceError("write to the folder of engines", str(error), "set EDGEFLEET_ENGINES") from error
