"""Our own build, alone in a fresh process: python -m tests.bench.fresh_build RECIPE OUT; prints seconds and memory."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from converters.finishing import BuildOptions
from converters.pipeline import build
from converters.recipe import parse_recipe
from tests.bench.rival import peak_bytes


def main() -> None:
    recipe, out = Path(sys.argv[1]), Path(sys.argv[2])
    began = time.monotonic()
    build(parse_recipe(recipe.read_bytes(), recipe.suffix), BuildOptions(base=recipe.parent, out=out), lambda _: None)
    # Compilers run in processes of their own: the largest of all counts.
    peak = max(peak_bytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
    print(json.dumps({"wall_s": time.monotonic() - began, "peak_bytes": peak, "version": "edgefleet"}))


if __name__ == "__main__":
    main()
