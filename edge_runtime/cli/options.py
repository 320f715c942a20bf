"""Arguments and options that several commands have, with one help for all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_runtime.contract.errors import InferenceError
from edge_runtime.contract.ids import shown

Release = Annotated[
    Path, typer.Argument(help="Folder that edge-convert wrote, or a device's state_dir: what it runs now.")
]
Slot = Annotated[str | None, typer.Option(help="With a state_dir: which of the device's models; default: main.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads inside one call.")]


def _known(names: list[str] | None) -> list[str] | None:
    """The engines that were named. Raises: InferenceError for a name that no engine has."""
    if names:
        from edge_runtime.inference.backend import BACKENDS, OTHER_LIBRARIES

        engines = [*BACKENDS, *OTHER_LIBRARIES]
        for name in names:
            if name not in engines:
                choice = f"choose one of {', '.join(engines)}"
                raise InferenceError(f"use engine {shown(name)}", "there is none of that name", choice)
    return names


Backends = Annotated[
    list[str] | None,
    typer.Option("--backend", callback=_known, help="Engine that may be used; repeat for several."),
]
Tuned = Annotated[Path | None, typer.Option(help="Folder in which tune --state kept what is best here.")]
