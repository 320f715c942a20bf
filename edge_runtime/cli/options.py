"""Arguments and options that several commands have, with one help for all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Release = Annotated[
    Path, typer.Argument(help="Folder that edge-convert wrote, or a device's state_dir: what it runs now.")
]
Slot = Annotated[str, typer.Option(help="With a state_dir: which of the device's models.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads inside one call.")]
Backends = Annotated[list[str] | None, typer.Option("--backend", help="Engine that may be used; repeat for several.")]
Tuned = Annotated[Path | None, typer.Option(help="Folder in which tune --state kept what is best here.")]
