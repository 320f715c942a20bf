"""Options that several commands share, and the exit codes of all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

EXIT_USER_ERROR: Final = 1
EXIT_TARGET_FAILED: Final = 3
EXIT_INTERRUPTED: Final = 130

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Model = Annotated[Path, typer.Argument(help="The trained model: ONNX or TensorFlow Lite.", show_default=False)]
Target = Annotated[list[str] | None, typer.Option("--target", help="Board class or family; repeat for more.")]
Shape = Annotated[list[str] | None, typer.Option("--shape", help="Fix free sizes: NAME=1,3,224,224; repeat for more.")]
