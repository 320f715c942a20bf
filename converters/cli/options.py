"""Options that several commands share, and the exit codes of all of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

import typer

EXIT_USER_ERROR: Final = 1
EXIT_TARGET_FAILED: Final = 3
EXIT_INTERRUPTED: Final = 130

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Model = Annotated[
    Path,
    typer.Argument(
        help="The trained model: ONNX, TensorFlow Lite, .skops, .joblib, .pt2, or MODULE:FUNCTION.", show_default=False
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option("--trust-code", help="Let model and metric run code (pickles, .pt2, MODULE:FUNCTION)."),
]
Target = Annotated[list[str] | None, typer.Option("--target", help="Board class or family; repeat for more.")]
Shape = Annotated[list[str] | None, typer.Option("--shape", help="Fix free sizes: NAME=1,3,224,224; repeat for more.")]
CacheFolder = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        envvar="EDGEFLEET_CONVERT_CACHE",
        help="Folder of finished stages; in your own cache folder if not said.",
        show_default=False,
    ),
]


def cache_folder(said: Path | None) -> Path:
    """Where finished stages are kept (https://specifications.freedesktop.org/basedir-spec, XDG_CACHE_HOME)."""
    if said is not None:
        return said
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "edgefleet" / "convert"
