"""Milliseconds that a program's imports take, by whose modules they are."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_OWNERS: Final = {
    "edge_runtime": "our modules",
    "msgspec": "msgspec",
    "typing_extensions": "msgspec",  # which alone imports it
    "PIL": "Pillow",
    "typer": "Typer",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
}
_OTHERS: Final = "Python's own, for them"
_LINE: Final = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)")


def imports_ms(command: Sequence[str], folder: Path, runs: int) -> dict[str, float]:
    """For each module its milliseconds without those that it imports itself, as `python -X importtime` counts them.

    What `importlib.import_module` is asked for is not among them; of several runs the least counts.
    """
    least: dict[str, float] = {}
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for _ in range(runs):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=True)
        for took_us, name in _LINE.findall(done.stderr):
            least[name] = min(int(took_us) / 1000, least.get(name, float("inf")))
    return least


def by_owner(found: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    """Milliseconds by owner of what one program imports and the other does not, most first."""
    sums: dict[str, float] = {}
    for name in found.keys() - base.keys():
        owner = _OWNERS.get(name.partition(".")[0], _OTHERS)
        sums[owner] = sums.get(owner, 0.0) + found[name]
    return dict(sorted(sums.items(), key=lambda pair: -pair[1]))
